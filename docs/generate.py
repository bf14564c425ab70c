"""Writes `settings.md` and `options.md` from the code: `python docs/generate.py`.

Settings are the fields of the recipe's parts, options the parameters of the commands. What a page
says of one is its description or help text, so that is where to change it.
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from sweeps.cli.compare import app as compare_app
from sweeps.cli.promote import app as promote_app
from sweeps.cli.run import app as run_app
from sweeps.config.recipe import Recipe
from unetexp.cli.exit_codes import DONE, FAILED, GATE_RED, MISTAKE
from unetexp.cli.main import app as unetexp_app
from unetexp.component import Component, components_in
from unetexp.system.stop_signals import INTERRUPTED, STOPPED
from unetexp.training.config import TrainConfig

_NOTE = "<!-- Written by `make docs` from the code: edit the description there. -->"

_SETTINGS = """# Settings

A setting is named by its dotted path: in `--set`, in a recipe's `space` and `points`, and in the
parameters that MLflow shows. In YAML each part of the path is a level of indentation. Where a
setting has several kinds, a change of `kind` keeps the settings that both kinds have."""

_EXPERIMENT = """## One experiment

These stand below `base:` in a recipe, and at the top of the file that `unetexp train` takes."""

_SWEEP = """## One sweep

These stand at the top of a recipe. [recipes.md](recipes.md) explains them with an example."""

_OPTIONS = """# Options

Every command prints its options with `--help` (`-h` for the three scripts). In the tables, capitals
stand for a value of yours."""

_EXIT_CODES = {
    DONE: "done; for a sweep: at least one trial completed",
    FAILED: "failed; for a sweep: no trial completed",
    MISTAKE: "a mistake in the input: one message, no traceback",
    GATE_RED: "a promotion gate failed, and nothing was changed",
    INTERRUPTED: "interrupted with Ctrl-C; open runs are closed first",
    STOPPED: "told to stop (SIGTERM, or SIGHUP without nohup); open runs are closed first",
}

_TYPES = {int: "integer", float: "number", bool: "`true` or `false`", str: "text", Path: "path"}


def settings_page() -> str:
    """`settings.md`: every setting of an experiment and of a sweep."""
    parts = {name: field for name, field in TrainConfig.model_fields.items() if _parts_of(field)}
    scalars = [name for name in TrainConfig.model_fields if name not in parts]
    lines = [_SETTINGS, _NOTE, _EXPERIMENT]
    for name, field in parts.items():
        lines += _section(name, field)
    lines += ["### The rest", _field_table(TrainConfig, "", scalars), _SWEEP]
    own = {name: field for name, field in Recipe.model_fields.items() if name != "base"}
    nested = {name: field for name, field in own.items() if _parts_of(field)}
    lines.append(_field_table(Recipe, "", [name for name in own if name not in nested]))
    for name, field in nested.items():
        lines += _section(name, field)
    return _joined(lines)


def options_page() -> str:
    """`options.md`: the exit codes, and every argument and option of every command."""
    codes = [(str(code), meaning) for code, meaning in _EXIT_CODES.items()]
    lines = [_OPTIONS, _NOTE, "## Exit codes", _table(("code", "meaning"), codes)]
    for name, command in commands().items():
        lines += [f"## {name}", inspect.cleandoc(command.help or ""), _option_table(command)]
    return _joined(lines)


PAGES = {"settings.md": settings_page, "options.md": options_page}


def commands() -> dict[str, Any]:
    """How each command is called -> the command as typer builds it."""
    scripts = {"run": run_app, "compare": compare_app, "promote": promote_app}
    group: Any = typer.main.get_command(unetexp_app)
    return {
        **{f"python sweeps/{n}.py": typer.main.get_command(app) for n, app in scripts.items()},
        **dict(_leaves("unetexp", group)),
    }


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """The commands of a group, also of groups within it."""
    for word, one in getattr(command, "commands", {}).items():
        if hasattr(one, "commands"):
            yield from _leaves(f"{name} {word}", one)
        else:
            yield f"{name} {word}", one


def _section(name: str, field: FieldInfo) -> Iterator[str]:
    """A part: its kinds, if it has several, and the table of each."""
    parts = _parts_of(field)
    prefix = f"{name}.PATH." if get_origin(field.annotation) is dict else f"{name}."
    yield f"### {name}"
    yield _sentence(field.description or _summary(parts[0]))
    if len(parts) == 1:
        yield _field_table(parts[0], prefix, parts[0].model_fields)
        return
    for part in parts:
        kind = part.model_fields["kind"].default
        default = " (the default)" if kind == getattr(field.default, "kind", None) else ""
        yield f"`{prefix}kind: {kind}`{default}: {_summary(part)}"
        fields = [name for name in part.model_fields if name != "kind"]
        if fields:
            yield _field_table(part, prefix, fields)


def _field_table(part: type[Component], prefix: str, names: Iterable[str]) -> str:
    rows = _field_rows(part, prefix, names)
    return _table(("setting", "allowed", "default", "meaning"), list(rows))


def _field_rows(
    part: type[Component], prefix: str, names: Iterable[str]
) -> Iterator[tuple[str, str, str, str]]:
    """A row for each field; of a field that is a part, one for each of that part's."""
    for name in names:
        field = part.model_fields[name]
        if isinstance(field.annotation, type) and issubclass(field.annotation, Component):
            inner = field.annotation
            yield from _field_rows(inner, f"{prefix}{name}.", inner.model_fields)
        else:
            yield f"`{prefix}{name}`", _allowed(field), _default(field), _text(field)


def _parts_of(field: FieldInfo) -> list[type[Component]]:
    """The parts below a field; of a mapping, those of its values."""
    annotation = field.annotation
    return components_in(get_args(annotation)[-1] if get_origin(annotation) is dict else annotation)


def _default(field: FieldInfo) -> str:
    if field is Recipe.model_fields["name"]:
        return "the file's name"
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def _text(field: FieldInfo) -> str:
    assert field.description, f"{field} has no description"
    return field.description


def _allowed(field: FieldInfo) -> str:
    """The values that a field takes, in words: `integer, 1 to 4096`."""
    return _with_range(_words(field.annotation), field.metadata)


def _words(annotation: Any) -> str:
    """The type in words; a constraint that stands in the annotation is said with it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in _TYPES:
        return _TYPES[annotation]
    if annotation is type(None):
        return "`null`"
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin is Annotated:
        return _with_range(_words(inner[0]), inner[1:])
    if origin in (Union, types.UnionType):
        return " or ".join(_words(one) for one in inner)
    if origin in (tuple, list):
        return f"list of {_plural(inner[0])}"
    if origin is dict:
        return f"mapping of {'name to number' if inner[1] is float else 'path to value'}"
    return "value"


def _plural(annotation: Any) -> str:
    noun, of, rest = _words(annotation).partition(" ")
    return f"{noun}s{of}{rest}"


def _with_range(words: str, metadata: Iterable[object]) -> str:
    low, high = _bound(metadata, ge="from", gt="above"), _bound(metadata, le="up to", lt="below")
    if not low and not high:
        return words
    limits = ", ".join(filter(None, [low, high]))
    if low.startswith("from"):
        limits = limits.replace(", up to", " to")
    name, null, rest = words.partition(" or `null`")
    return f"{name} {limits}{null}{rest}"


def _bound(metadata: Iterable[object], **words: str) -> str:
    for constraint in metadata:
        for attribute, word in words.items():
            value = getattr(constraint, attribute, None)
            if value is not None:
                return f"{word} {value}"
    return ""


def _summary(part: type[Component]) -> str:
    """The first paragraph of a part's docstring."""
    return " ".join(inspect.cleandoc(part.__doc__ or "").split("\n\n")[0].split())


def _option_table(command: Any) -> str:
    hints = typing.get_type_hints(inspect.unwrap(command.callback))
    rows = [
        (_call(option), _meaning(option, hints[option.name]), _option_default(option))
        for option in command.params
    ]
    return _table(("option", "meaning", "default"), rows)


def _call(option: Any) -> str:
    """How an option or an argument is written: `--gpus N`."""
    metavar = (option.metavar or option.name.strip("_")).upper()
    if option.param_type_name == "argument":
        return f"`{metavar}`"
    names = "`, `".join([*option.opts, *option.secondary_opts])
    return f"`{names}`" if option.is_flag else f"`{names} {option.metavar or metavar}`"


def _meaning(option: Any, hint: Any) -> str:
    choices = [f"`{choice}`" for choice in _choices(hint)]
    return f"{option.help} One of {', '.join(choices)}." if choices else str(option.help)


def _choices(hint: Any) -> list[str]:
    """The values that an annotation lists: those of a Literal or an Enum."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [member.value for member in hint]
    return [choice for inner in get_args(hint) for choice in _choices(inner)]


def _option_default(option: Any) -> str:
    if option.required:
        return "required"
    if option.secondary_opts:
        return f"`{(option.opts if option.default else option.secondary_opts)[0]}`"
    if isinstance(option.show_default, str):
        return option.show_default
    shown = option.default is not None and option.default is not False and option.default != ()
    value = getattr(option.default, "value", option.default)
    return f"`{json.dumps(value).strip(chr(34))}`" if shown else ""


def _sentence(text: str) -> str:
    text = text[0].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    cells = [[re.sub(r"([|*])", r"\\\1", cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in cells)


def _joined(blocks: Iterable[str]) -> str:
    return "\n\n".join(blocks) + "\n"


def write(folder: Path, pages: Mapping[str, Any] = PAGES) -> None:
    """Write all pages into `folder`."""
    for name, page in pages.items():
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).parent)

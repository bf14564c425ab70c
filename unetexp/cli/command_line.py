"""The command line's mistakes: each is one message with what was given and what is allowed.

Typer finds most of them, but names the value given in few of its messages. The commands here ask
it again for the values as they were typed, and say what the option's type and range admit.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from unetexp.cli.exit_codes import exit_codes
from unetexp.component import choices_of
from unetexp.errors import ConfigError, not_a_choice

# Of the click that typer carries, which gives it no public name.
_UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])


class Command(TyperCommand):
    """A command that refuses a mistake in one message, with exit code 2."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; an empty value is a mistake, too."""
        typed = list(args)
        with exit_codes(), _explained(self, ctx, typed):
            rest: list[str] = super().parse_args(ctx, args)
            if not ctx.resilient_parsing:
                _refuse_empty_values(self, ctx, typed)
        return rest


class Group(TyperGroup):
    """A group of commands that refuses a mistake in one message, with exit code 2."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what stands before the command's name."""
        with exit_codes(), _explained(self, ctx, list(args)):
            rest: list[str] = super().parse_args(ctx, args)
        return rest

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is meant."""
        with exit_codes():
            if self.get_command(ctx, args[0]) is None:
                raise ConfigError(not_a_choice("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


@contextmanager
def _explained(command: Any, ctx: Any, args: list[str]) -> Iterator[None]:
    """Turn what typer refuses into a ConfigError; a command alone still shows its help."""
    try:
        yield
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        raise ConfigError(_sentence(command, ctx, args, error)) from None


def _sentence(command: Any, ctx: Any, args: list[str], error: Any) -> str:
    param = getattr(error, "param", None)
    name = getattr(error, "option_name", None)
    if param is not None and type(error).__name__ == "MissingParameter":
        return f"{_name(param)}: a value is needed and none is given. {_help(param)}".rstrip()
    if param is not None:
        return _refusal(command, param, _typed_values(command, ctx, args).get(param.name))
    if hasattr(error, "possibilities"):
        return not_a_choice("option", name, _options(command, ctx))
    known = [param for param in command.get_params(ctx) if name in _spellings(param)]
    if known and (extra := [arg for arg in args if arg.startswith(f"{name}=")]):
        return f"{extra[0]}: this option takes no value. Write {name} alone."
    if known:
        needed = f"{name}: no value is given: give {_allowed(command, known[0])}. "
        return f"{needed}{_help(known[0])}".rstrip()
    usage = " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])
    return f"{error.format_message().rstrip('.')}. Allowed: {usage}"


def _refuse_empty_values(command: Any, ctx: Any, args: list[str]) -> None:
    """An empty text stands for a path or a name that a script forgot to fill in."""
    typed = _typed_values(command, ctx, args)
    for param in command.get_params(ctx):
        value = typed.get(param.name)
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and not text.strip():
                raise ConfigError(_refusal(command, param, text))


def _refusal(command: Any, param: Any, given: object) -> str:
    """`--gpus 'many': give a whole number of at least 0. GPUs to use; 0 is the CPU.`"""
    annotation, _ = _declared(command, param)
    if choices := _choices(annotation):
        return f"{not_a_choice(_name(param), given, choices)}. {_help(param)}".rstrip()
    sentence = f"{_name(param)} {given!r}: give {_allowed(command, param)}"
    if isinstance(given, str) and not given.strip():
        sentence += "; it is empty"
    return f"{sentence}. {_help(param)}".rstrip()


def _allowed(command: Any, param: Any) -> str:
    """What a parameter admits, in words."""
    annotation, info = _declared(command, param)
    if choices := _choices(annotation):
        return f"one of {', '.join(map(str, choices))}"
    words = {int: "a whole number", float: "a number", Path: "a path"}.get(annotation, "a text")
    low, high = getattr(info, "min", None), getattr(info, "max", None)
    if low is not None and high is not None:
        return f"{words} from {low} to {high}"
    return words if low is None else f"{words} of at least {low}"


def _choices(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [member.value for member in annotation]
    return choices_of(annotation)


def _declared(command: Any, param: Any) -> tuple[Any, Any]:
    """The type of one value of a parameter and what typer was told of it; `str` for --help."""
    function = inspect.unwrap(command.callback) if command.callback else None
    hints = get_type_hints(function, include_extras=True) if function else {}
    annotation, info = hints.get(param.name, str), None
    if get_origin(annotation) is Annotated:
        annotation, info = get_args(annotation)[:2]
    return _one_value(annotation), info


def _one_value(annotation: Any) -> Any:
    """The type of what `X | None` and `list[X]` hold."""
    members = [arg for arg in get_args(annotation) if arg is not type(None)]
    if not members or choices_of(annotation):
        return annotation
    return _one_value(members[0])


def _typed_values(command: Any, ctx: Any, args: list[str]) -> dict[str, Any]:
    """By parameter, its value as it was typed; what was not typed is missing."""
    values: dict[str, Any] = command.make_parser(ctx).parse_args(args=list(args))[0]
    return values


def _options(command: Any, ctx: Any) -> list[str]:
    return [name for param in command.get_params(ctx) for name in _spellings(param)]


def _spellings(param: Any) -> Sequence[str]:
    if param.param_type_name != "option":
        return []
    return [*param.opts, *param.secondary_opts]


def _name(param: Any) -> str:
    if param.param_type_name == "option":
        return str(param.opts[-1])
    return str(param.metavar or param.name.upper())


def _help(param: Any) -> str:
    return str(getattr(param, "help", None) or "")

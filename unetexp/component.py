"""The base class of all configured parts, and the nested mappings that describe them.

A part is a frozen, keyword-only pydantic model: its fields are its hyperparameters, and `kind`,
where a family has several, is its name in YAML. A configuration is a nested mapping; a dotted
path (`loss.gamma`) names one value in it. All errors in a configuration are reported in one
`ConfigError`, which lists each fault with its path, the given value and the choices.
"""

from __future__ import annotations

import copy
import datetime
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Tag, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from unetexp.errors import ConfigError, did_you_mean, not_a_choice

T = TypeVar("T")
Tree = dict[str, Any]


class Component(BaseModel):
    """A configured part: immutable, compared by value, unknown fields are errors."""

    own_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that mean something else in another kind, and do not outlast a change of kind."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )

    @classmethod
    def allows(cls, name: str, value: object) -> bool:
        """Whether the field `name` may have this value, whatever the others have."""
        try:
            cls.model_validate({name: value})
        except ValidationError as error:
            return all(fault["loc"][:1] != (name,) for fault in error.errors())
        return True

    @classmethod
    def before_change(cls, tree: Tree, name: str) -> None:
        """Remove from a part's `tree` what follows from its field `name`, which is to change."""

    def tree(self) -> Tree:
        """The part as plain data (str, int, float, bool, None, list, dict): YAML and JSON safe."""
        return self.model_dump(mode="json")


def decode(kind_of: type[T] | Any, tree: object, where: str = "") -> T:
    """Build a part, or one of a union of parts, from plain data.

    `where` is a prefix of the paths in messages. Raises ConfigError naming every fault.
    """
    try:
        part: T = TypeAdapter(kind_of).validate_python(tree)
    except ValidationError as error:
        faults = [_sentence(kind_of, fault, where) for fault in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(faults))) from None
    return part


def components_in(annotation: Any) -> list[type[Component]]:
    """The part classes that an annotation allows, also in Annotated, Optional and unions."""
    if isinstance(annotation, type) and issubclass(annotation, Component):
        return [annotation]
    origin = get_origin(annotation)
    if origin is Annotated:
        return components_in(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [part for arg in get_args(annotation) for part in components_in(arg)]
    return []


def kinds_of(annotation: Any) -> list[str]:
    """The `kind` names of the parts that an annotation allows, in the union's order."""
    parts = components_in(annotation)
    return [part.model_fields["kind"].default for part in parts if "kind" in part.model_fields]


def fields_at(root: Any, path: str) -> list[tuple[type[Component], FieldInfo]]:
    """Every field that the dotted `path` can mean below `root`, with the part it belongs to.

    More than one if several parts of a union have a field of that name. Raises ConfigError, with
    the nearest name, for a path that does not exist.
    """
    annotations: list[Any] = [root]
    found: list[tuple[type[Component], FieldInfo]] = []
    done: list[str] = []
    for name in path.split("."):
        parts = [part for annotation in annotations for part in components_in(annotation)]
        found = [(part, part.model_fields[name]) for part in parts if name in part.model_fields]
        if not found:
            known = list(dict.fromkeys(field for part in parts for field in part.model_fields))
            full = ".".join([*done, name])
            if not known:
                raise ConfigError(f"{path}: {'.'.join(done)} is a value, without settings.")
            hint = did_you_mean(name, known)
            raise ConfigError(
                f"{full}: there is no such setting.{hint} "
                f"{'.'.join(done) or 'The configuration'} has: {', '.join(known)}"
            )
        done.append(name)
        annotations = [field.annotation for _, field in found]
    return found


def choices_of(annotation: Any) -> list[Any]:
    """The values that a Literal annotation allows (also in Optional), else an empty list."""
    origin = get_origin(annotation)
    if origin is typing.Literal:
        return list(get_args(annotation))
    if origin in (Union, types.UnionType, Annotated):
        return [c for arg in get_args(annotation) for c in choices_of(arg)]
    return []


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value for every leaf of a nested mapping; lists are leaves."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def override(root: Any, tree: Mapping[str, Any], changes: Mapping[str, Any]) -> Tree:
    """`tree` with the dotted `changes` applied; `tree` itself is not changed.

    A change of a part's `kind` keeps the fields that the new kind has too, as far as their values
    are valid there, and drops the others and the kind's `own_fields`. A `preset` keeps the fields
    that the preset before has not filled in.
    """
    result = copy.deepcopy(dict(tree))
    leading = (".kind", ".preset")  # others may be set beside them
    for path in sorted(changes, key=lambda p: (not p.endswith(leading), p.count("."))):
        owners = fields_at(root, path)
        *parents, name = path.split(".")
        node = result
        for parent in parents:
            node = _child(node, parent, path)
        if name == "kind" and node.get("kind") != changes[path]:
            _keep_shared_fields(root, parents, node, changes[path])
        for part, _ in owners:
            part.before_change(node, name)
        node[name] = copy.deepcopy(changes[path])
    return result


def _child(node: Tree, name: str, path: str) -> Tree:
    child = node.get(name)
    if child is None:
        child = node[name] = {}
    if not isinstance(child, dict):
        raise ConfigError(f"{path}: {name} is set to {child!r}, a value, without settings.")
    return child


def _keep_shared_fields(root: Any, parents: list[str], node: Tree, kind: object) -> None:
    owner = fields_at(root, ".".join(parents))
    for _, field in owner:
        for part in components_in(field.annotation):
            if "kind" in part.model_fields and part.model_fields["kind"].default == kind:
                for name in [name for name in node if not _is_kept(part, name, node[name])]:
                    del node[name]


def _is_kept(part: type[Component], name: str, value: object) -> bool:
    """Whether a value that another kind had is one of `part` too."""
    if name == "kind":
        return True
    if name not in part.model_fields or name in part.own_fields:
        return False
    return part.allows(name, value)


def _sentence(root: Any, fault: ErrorDetails, where: str) -> str:
    """One pydantic fault as a sentence with the user's path, the given value and the choices."""
    path, part = _user_path(root, fault["loc"])
    full = ".".join(filter(None, [where, *path])) or "configuration"
    given, context = fault["input"], fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            known = list(part.model_fields) if part else []
            return (
                f"{full}: there is no such setting.{did_you_mean(path[-1], known)} "
                f"Known here: {', '.join(known)}"
            )
        case "union_tag_invalid":
            expected = [tag.strip().strip("'") for tag in context["expected_tags"].split(",")]
            return not_a_choice(f"{full}.kind", context["tag"], expected)
        case "union_tag_not_found":
            return f"{full}: no `kind` is given. Choices: {', '.join(_kinds_at(root, path))}"
        case "literal_error" if part is not None:
            choices = choices_of(part.model_fields[path[-1]].annotation)
            return not_a_choice(full, given, choices)
        case "missing":
            return f"{full}: a value is required, but none is given."
        case "value_error":
            return f"{full}: {context['error']}" if path else str(context["error"])
    message = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{full}: {_as_given(given)} is out of range or of the wrong type: {message}."


def _as_given(value: object) -> str:
    """A value as it stands in YAML, whose dates and nulls Python writes in other ways."""
    if isinstance(value, datetime.date):
        return repr(str(value))
    return "null" if value is None else repr(value)


def _user_path(root: Any, loc: tuple[int | str, ...]) -> tuple[list[str], type[Component] | None]:
    """A fault's path as the user wrote it (pydantic adds a union's tag), and the part it is in."""
    path: list[str] = []
    annotation, part = root, None
    for step in loc:
        if get_origin(annotation) in (dict, list, tuple):
            path.append(str(step))
            inner = get_args(annotation)
            annotation, part = inner[0] if get_origin(annotation) is tuple else inner[-1], None
            continue
        member = _tagged(annotation, step)
        if member is not None:
            annotation = member
            continue
        parts = components_in(annotation)
        tagged = [p for p in parts if "kind" in p.model_fields]
        chosen = [p for p in tagged if p.model_fields["kind"].default == step]
        if len(parts) > 1 and chosen:
            annotation = chosen[0]
            continue
        if isinstance(step, str) and step.startswith(("function-", "constrained-", "nullable")):
            continue
        if len(parts) == 1:
            part = parts[0]
            field = part.model_fields.get(str(step))
            annotation = field.annotation if field else None
            path.append(str(step))
        elif path and not parts and not isinstance(step, int):
            continue  # pydantic names the member of a plain union here: not part of the path
        else:
            path.append(str(step))
    return path, part


def _tagged(annotation: Any, tag: int | str) -> Any:
    """The member of a union that a pydantic Tag names; None where none does."""
    for member in get_args(annotation):
        if get_origin(member) is Annotated:
            inner, *notes = get_args(member)
            if any(isinstance(note, Tag) and note.tag == tag for note in notes):
                return inner
    return None


def _kinds_at(root: Any, path: list[str]) -> Iterator[str]:
    annotations = (
        [field.annotation for _, field in fields_at(root, ".".join(path))] if path else [root]
    )
    for annotation in annotations:
        yield from kinds_of(annotation)

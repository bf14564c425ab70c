"""Conditions on trials, such as `loss.kind == 'focal' and optimizer.lr < 1e-3`.

They are parsed as Python expressions but not executed by Python: this module evaluates the tree
of comparisons, `and`, `or`, `not`, `in`, arithmetic and literals. There are no calls, attributes or
variables.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from functools import reduce
from typing import Any

import pandas as pd

from unetexp.errors import ConfigError, did_you_mean, not_a_choice

_ALLOWED = (
    "Allowed: column names, numbers, 'text' in quotes, None, [lists], ==, !=, <, <=, >, >=, in, "
    "and, or, not, + - * / % and parentheses; such as \"loss.kind == 'focal' and "
    'optimizer.lr < 1e-3".'
)
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda values, choices: values.isin(choices),
    ast.NotIn: lambda values, choices: ~values.isin(choices),
}
_MISSING: dict[type[ast.cmpop], Callable[[Any], Any]] = {
    ast.Eq: pd.Series.isna,
    ast.Is: pd.Series.isna,
    ast.NotEq: pd.Series.notna,
    ast.IsNot: pd.Series.notna,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_STRING_OR_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`"


def filter_trials(frame: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The rows of `frame` that meet the condition.

    A missing value meets only `!=` and `== None`. Raises ConfigError for a condition that cannot be
    parsed, contains something that is not allowed, or names an unknown column.
    """
    try:
        return frame[_Condition(frame, condition).rows()]
    except ConfigError:
        raise
    except (SyntaxError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
        hint = " Equality is written ==." if re.search(r"[^=!<>]=[^=]", condition) else ""
        raise _refused(condition, f"it cannot be parsed: {reason}.{hint}") from None
    except (TypeError, ValueError, ArithmeticError) as error:
        raise _refused(condition, f"it cannot be evaluated: {error}.") from None


def column_named(frame: pd.DataFrame, name: str, where: str) -> str:
    """`name`, if it is a column; ConfigError with the nearest name if it is not."""
    if name not in frame:
        raise ConfigError(not_a_choice(where, name, frame.columns))
    return name


class _Condition:
    """One condition on one frame. Its columns become the names `column0`, `column1`, ..."""

    def __init__(self, frame: pd.DataFrame, text: str) -> None:
        self._frame, self._text = frame, text
        self._columns: dict[str, str] = {}

    def rows(self) -> pd.Series:
        """Whether each row meets the condition."""
        names = "|".join(map(re.escape, sorted(self._frame, key=len, reverse=True)))
        token = rf"{_STRING_OR_QUOTED}|(?<![\w.])(?:{names})(?![\w.])"
        tree = ast.parse(re.sub(token, self._stand_in, self._text).strip(), mode="eval")
        return self._truth(self._value(tree.body))

    def _stand_in(self, found: re.Match[str]) -> str:
        name = found[0]
        if name[0] in "'\"":
            return name
        name = column_named(self._frame, name.strip("`"), "--where")
        return f" {self._columns.setdefault(name, f'column{len(self._columns)}')} "

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=str() | int() | float() | None):
                return node.value
            case ast.List() | ast.Tuple() | ast.Set():
                return [self._value(element) for element in node.elts]
            case ast.Name() | ast.Attribute():
                return self._column(ast.unparse(node))
            case ast.BoolOp():
                join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
                return reduce(join, [self._truth(self._value(value)) for value in node.values])
            case ast.UnaryOp(op=ast.Not()):
                return ~self._truth(self._value(node.operand))
            case ast.UnaryOp(op=ast.USub()):
                return -_number(self._value(node.operand))
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                left, right = _number(self._value(node.left)), _number(self._value(node.right))
                return _ARITHMETIC[type(node.op)](left, right)
            case ast.Compare():
                return self._compare(node)
        raise _refused(self._text, f"{self._original(node)!r} is not allowed.")

    def _compare(self, node: ast.Compare) -> Any:
        values = [self._value(value) for value in (node.left, *node.comparators)]
        pairs = zip(node.ops, values, values[1:], strict=False)
        return reduce(operator.and_, [self._compared(*pair) for pair in pairs])

    def _compared(self, comparison: ast.cmpop, left: Any, right: Any) -> Any:
        if left is None:
            left, right = right, left
        if right is None and isinstance(left, pd.Series) and type(comparison) in _MISSING:
            return _MISSING[type(comparison)](left)
        if type(comparison) not in _COMPARISONS:
            raise TypeError("'is' can only be used with None")
        if isinstance(comparison, ast.In | ast.NotIn):
            if not (isinstance(left, pd.Series) and isinstance(right, list)):
                raise TypeError("'in' takes a column and a [list]")
        else:
            _require_comparable(left, right)
        return _COMPARISONS[type(comparison)](left, right)

    def _column(self, name: str) -> pd.Series:
        by_stand_in = {stand_in: column for column, stand_in in self._columns.items()}
        if name not in by_stand_in:
            raise ConfigError(
                f"--where {self._text!r}: there is no column {name!r}."
                f"{did_you_mean(name, self._frame.columns)} Text goes in quotes. Columns: "
                f"{', '.join(self._frame)}."
            )
        column = self._frame[by_stand_in[name]]
        if column.dtype == "Int64":
            return column.astype("float64")
        return column.astype(object) if column.dtype in ("bool", "boolean") else column

    def _truth(self, value: Any) -> pd.Series:
        """A value as a condition: the result of a comparison, or a column of bools."""
        if isinstance(value, pd.Series) and value.dtype in (bool, object):
            return value.eq(True)
        raise TypeError("a comparison is missing")

    def _original(self, node: ast.expr) -> str:
        by_stand_in = {stand_in: column for column, stand_in in self._columns.items()}
        return re.sub(r"\w+", lambda word: by_stand_in.get(word[0], word[0]), ast.unparse(node))


def _number(value: Any) -> Any:
    """`value`, if it is a number or a column of numbers."""
    is_column = isinstance(value, pd.Series) and pd.api.types.is_numeric_dtype(value)
    if is_column or isinstance(value, int | float):
        return value
    raise TypeError("arithmetic takes numbers")


def _require_comparable(left: Any, right: Any) -> None:
    """A column of text is compared with text and one of numbers with numbers."""
    for column, other in ((left, right), (right, left)):
        if isinstance(column, pd.Series) and isinstance(other, int | float | str):
            is_text = pd.api.types.is_string_dtype(column.dtype) and column.dtype != object
            is_number = pd.api.types.is_numeric_dtype(column)
            if (is_text and not isinstance(other, str)) or (is_number and isinstance(other, str)):
                kind, given = ("text", "number") if is_text else ("numbers", "text")
                raise TypeError(f"{column.name} holds {kind}, and {other!r} is a {given}")


def _refused(condition: str, reason: str) -> ConfigError:
    return ConfigError(f"--where {condition!r}: {reason} {_ALLOWED}")

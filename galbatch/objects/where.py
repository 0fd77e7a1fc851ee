"""The `where` expressions of run.toml: which objects, or rows of a list, one is true for, with nothing else evaluated."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from galbatch.config import nearest_hint
from galbatch.core.types import ObjectTable
from galbatch.errors import ConfigError

__all__ = ["may_be_true", "names_in", "select", "select_rows"]

_COMPARE: Mapping[type[ast.cmpop], Callable[..., Any]] = {
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
}
_ARITHMETIC: Mapping[type[ast.operator], Callable[..., Any]] = {
    ast.Add: pc.add,
    ast.Sub: pc.subtract,
    ast.Mult: pc.multiply,
    ast.Div: pc.divide,
    ast.Pow: pc.power,
}
# Kleene's logic: false and unknown is false, true or unknown is true, all else with unknown is unknown. & and |
# are accepted because numpy's and pandas' users write them.
_LOGIC: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.And: pc.and_kleene,
    ast.Or: pc.or_kleene,
    ast.BitAnd: pc.and_kleene,
    ast.BitOr: pc.or_kleene,
}


# Whether a comparison may be true, from the (least, greatest) values of its left and right side.
_MAY_BE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: lambda left, right: left[0] < right[1],
    ast.LtE: lambda left, right: left[0] <= right[1],
    ast.Gt: lambda left, right: left[1] > right[0],
    ast.GtE: lambda left, right: left[1] >= right[0],
    ast.Eq: lambda left, right: left[0] <= right[1] and right[0] <= left[1],
    ast.NotEq: lambda left, right: not left[0] == left[1] == right[0] == right[1],
}
_OPPOSITE: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.NotIn: ast.In,
}

# A prefix that no column has; what follows are the hexadecimal digits of a name in backticks.
QUOTED = "_quoted_"


def select(objects: ObjectTable, where: str | None) -> npt.NDArray[np.bool_]:
    """Return which objects an expression is true for.

    Parameters
    ----------
    where : str or None
        Comparisons (also chained, and ``in [...]``) joined by ``and``, ``or``, ``not`` over object_id,
        ra_deg, dec_deg and the kept columns (in backticks if the name is no identifier), with
        ``+ - * / **``, numbers and text. Nothing else is evaluated. None: all objects.

    Returns
    -------
    (object,) bool
        False where a value that decides is null or NaN, also below ``not``.

    Raises
    ------
    ConfigError
        Syntax, an unknown column (with the known ones), or a comparison of unlike kinds.
    """
    columns = {
        "object_id": pa.array(objects.object_id),
        "ra_deg": pa.array(objects.ra_deg),
        "dec_deg": pa.array(objects.dec_deg),
    }
    columns |= {name: objects.kept.column(name) for name in objects.kept.column_names}
    return select_rows(columns, len(objects), where)


def select_rows(columns: Mapping[str, Any], n_rows: int, where: str | None) -> npt.NDArray[np.bool_]:
    """Return which rows of some columns an expression is true for; the expression and the errors are those of `select`.

    Parameters
    ----------
    columns : mapping of str to pyarrow array, (row,)
    n_rows : int
        Number of rows; `where` may be None, and then there may be no column.

    Returns
    -------
    (row,) bool
    """
    if where is None or not where.strip():
        return np.ones(n_rows, dtype=np.bool_)
    tree = _parsed(where)
    try:
        result = _Expression(columns, where).value(tree)
    except (pa.ArrowNotImplementedError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"where = {where!r}: unlike kinds are compared: {error}") from None
    if not isinstance(result, pa.Array) or not pa.types.is_boolean(result.type):
        raise ConfigError(f"where = {where!r}: is not true or false; compare a column, as in z_best < 0.25")
    return np.asarray(result.fill_null(False).to_numpy(zero_copy_only=False), dtype=np.bool_)


def names_in(where: str | None) -> list[str]:
    """Return the names of the columns that an expression reads, in the order in which they first occur.

    Raises
    ------
    ConfigError
        The text is no expression.
    """
    if where is None or not where.strip():
        return []
    names = [node for node in ast.walk(_parsed(where)) if isinstance(node, ast.Name)]
    names.sort(key=lambda node: node.col_offset)
    return list(dict.fromkeys(_column_name(node.id) for node in names))


def may_be_true(where: str, limits: Mapping[str, tuple[Any, Any]]) -> bool:
    """Return whether an expression may be true for a row of a table whose columns have these least and greatest values.

    It is False only where no such row can exist; null and NaN are unknown to `where`, so they do not count. Nothing is
    known of columns that are not in `limits`.
    """
    return _may_be(_parsed(where), True, limits)


def _may_be(node: ast.expr, wanted: bool, limits: Mapping[str, tuple[Any, Any]]) -> bool:
    """Return whether a part of an expression may be true, or false as `wanted` says."""
    match node:
        case ast.Name():
            least, greatest = limits.get(_column_name(node.id), (False, True))
            return bool(greatest) if wanted else not least
        case ast.UnaryOp(op=ast.Not() | ast.Invert()):
            return _may_be(node.operand, not wanted, limits)
        case ast.BoolOp() | ast.BinOp(op=ast.BitAnd() | ast.BitOr()):
            parts = node.values if isinstance(node, ast.BoolOp) else [node.left, node.right]
            # Both parts of `and` must be true, one of `or`; to be false, the other way round.
            combine = all if isinstance(node.op, ast.And | ast.BitAnd) == wanted else any
            return combine(_may_be(part, wanted, limits) for part in parts)
        case ast.Compare():
            sides = [node.left, *node.comparators]
            pairs = zip(node.ops, sides[:-1], sides[1:], strict=True)
            found = (_pair_may_be(operator, (a, b), wanted, limits) for operator, a, b in pairs)
            return all(found) if wanted else any(found)
    return True


def _pair_may_be(
    operator: ast.cmpop,
    sides: tuple[ast.expr, ast.expr],
    wanted: bool,
    limits: Mapping[str, tuple[Any, Any]],
) -> bool:
    """Return whether a comparison may be true, or false as `wanted` says, from the limits of its sides."""
    left, right = (_limits_of(side, limits) for side in sides)
    kind = type(operator) if wanted else _OPPOSITE.get(type(operator))
    if kind is ast.In and isinstance(sides[1], ast.List | ast.Tuple):
        return any(_pair_may_be(ast.Eq(), (sides[0], item), True, limits) for item in sides[1].elts)
    if left is None or right is None or kind is None or kind not in _MAY_BE:
        return True
    try:
        return bool(_MAY_BE[kind](left, right))
    except TypeError:
        return True  # It compares unlike kinds: reading the rows gives the message.


def _limits_of(node: ast.expr, limits: Mapping[str, tuple[Any, Any]]) -> tuple[Any, Any] | None:
    """Return the least and greatest value of one side of a comparison; None if they are not known."""
    match node:
        case ast.Name():
            return limits.get(_column_name(node.id))
        case ast.Constant():
            return node.value, node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value, -value
    return None


def _parsed(where: str) -> ast.expr:
    # A name in backticks may be no identifier: in hexadecimal digits it is one.
    plain = re.sub(r"`([^`]+)`", lambda name: QUOTED + name[1].encode().hex(), where.strip())
    try:
        return ast.parse(plain, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # Null bytes are a ValueError; what is nested too deeply is one of the last two.
        raise ConfigError(f"where = {where!r}: is no expression: {error}") from None


def _column_name(identifier: str) -> str:
    """Return the name of the column that an identifier of a parsed expression stands for."""
    if identifier.startswith(QUOTED):
        return bytes.fromhex(identifier.removeprefix(QUOTED)).decode()
    return identifier


class _Expression:
    """Evaluates a parsed expression with three-valued logic: NaN and null are "unknown"."""

    def __init__(self, columns: Mapping[str, Any], where: str) -> None:
        self.where = where
        self.columns = columns

    def value(self, node: Any) -> Any:
        """Return the value of a node: a pyarrow array (object,), or a Python number, text or list."""
        match node:
            case ast.Name():
                return self._column(node.id)
            case ast.Constant():
                # bytes, complex numbers, None and ... are constants to Python, too.
                if not isinstance(node.value, bool | int | float | str):
                    raise ConfigError(
                        f"where = {self.where!r}: {node.value!r} is not allowed; write numbers or text"
                    )
                return node.value
            case ast.List() | ast.Tuple():
                return [self.value(item) for item in node.elts]
            case ast.UnaryOp():
                value = self.value(node.operand)
                if isinstance(node.op, ast.USub):
                    return pc.negate(value) if isinstance(value, pa.Array | pa.Scalar) else -value
                return value if isinstance(node.op, ast.UAdd) else pc.invert(value)  # + and not, ~
            case ast.BinOp():
                return self._binary(node)
            case ast.BoolOp():
                return reduce(_LOGIC[type(node.op)], [self.value(item) for item in node.values])
            case ast.Compare():
                return self._compare(node)
        # Calls, attributes and comprehensions end here, so that an expression can run no code.
        raise ConfigError(f"where = {self.where!r}: {ast.unparse(node)} is not allowed; compare columns only")

    def _column(self, identifier: str) -> Any:
        name = _column_name(identifier)
        if name not in self.columns:
            raise ConfigError(
                f"where = {self.where!r}: no column {name}{nearest_hint(name, self.columns)}"
                f"; known are {', '.join(self.columns)} ([objects] keep adds more)"
            )
        column = self.columns[name]
        return _nan_is_null(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)

    def _binary(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if type(node.op) in _LOGIC:
            return _LOGIC[type(node.op)](left, right)
        if type(node.op) not in _ARITHMETIC:
            raise ConfigError(f"where = {self.where!r}: this operator is not allowed; known are + - * / **")
        # Floats throughout: Arrow divides integers to integers. 0 / 0 is NaN, and so not known.
        return _nan_is_null(_ARITHMETIC[type(node.op)](_as_float(left), _as_float(right)))

    def _compare(self, node: ast.Compare) -> Any:
        values = [self.value(item) for item in (node.left, *node.comparators)]
        results = []
        # a < b < c is a < b and b < c, as in Python.
        for operator, left, right in zip(node.ops, values[:-1], values[1:], strict=True):
            if isinstance(operator, ast.In | ast.NotIn) and isinstance(right, list):
                # Arrow's is_in is false for null; a value that is not known is in no list and out of none.
                found = pc.is_in(left, value_set=pa.array(right))
                found = pc.if_else(pc.is_null(left), pa.scalar(None, pa.bool_()), found)
                results.append(found if isinstance(operator, ast.In) else pc.invert(found))
            elif type(operator) in _COMPARE:
                results.append(_COMPARE[type(operator)](left, right))
            else:
                raise ConfigError(
                    f"where = {self.where!r}: this comparison is not allowed; known are < <= > >= == != in"
                )
        return reduce(pc.and_kleene, results)


def _as_float(value: Any) -> Any:
    return value.cast(pa.float64()) if isinstance(value, pa.Array | pa.Scalar) else float(value)


def _nan_is_null(value: Any) -> Any:
    if isinstance(value, pa.Array) and pa.types.is_floating(value.type):
        return pc.if_else(pc.is_nan(value), pa.scalar(None, value.type), value)
    return value

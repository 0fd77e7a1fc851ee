"""The `where` expression of a model: which objects it is true for, with nothing else evaluated."""

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

__all__ = ["select"]

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
    if where is None or not where.strip():
        return np.ones(len(objects), dtype=np.bool_)
    try:
        # A name in backticks may be no identifier: in hexadecimal digits it is one.
        plain = re.sub(r"`([^`]+)`", lambda name: QUOTED + name[1].encode().hex(), where.strip())
        tree = ast.parse(plain, mode="eval")
        result = _Expression(objects, where).value(tree.body)
    except SyntaxError as error:
        raise ConfigError(f"where = {where!r}: is no expression: {error}") from None
    except (pa.ArrowNotImplementedError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"where = {where!r}: unlike kinds are compared: {error}") from None
    if not isinstance(result, pa.Array) or not pa.types.is_boolean(result.type):
        raise ConfigError(f"where = {where!r}: is not true or false; compare a column, as in z_best < 0.25")
    return np.asarray(result.fill_null(False).to_numpy(zero_copy_only=False), dtype=np.bool_)


class _Expression:
    """Evaluates a parsed expression with three-valued logic: NaN and null are "unknown"."""

    def __init__(self, objects: ObjectTable, where: str) -> None:
        self.where = where
        self.columns: dict[str, Any] = {
            "object_id": pa.array(objects.object_id),
            "ra_deg": pa.array(objects.ra_deg),
            "dec_deg": pa.array(objects.dec_deg),
        }
        self.columns |= {name: objects.kept.column(name) for name in objects.kept.column_names}

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

    def _column(self, name: str) -> pa.Array:
        if name.startswith(QUOTED):
            name = bytes.fromhex(name.removeprefix(QUOTED)).decode()
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

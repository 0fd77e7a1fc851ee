"""The cuts that are usual for an object list: what its columns' names suggest, as parts of a `where` expression."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galbatch.core.columns import PRIMARY, RESERVED_COLUMNS
from galbatch.objects.checking.rows import Blocks
from galbatch.objects.tables import as_booleans
from galbatch.objects.where import select_rows

__all__ = ["Cut", "CutRule", "cut_rules", "usual_cuts"]


@dataclass(frozen=True)
class Cut:
    """A selection that is usual for such an object list.

    Attributes
    ----------
    where : the selection as a `where` expression, which is true for the rows that stay
    why : human-readable description of the rows that it removes
    column : the column that it looks at
    n_removed : number of rows that it removes
    n_unknown : number of those that it removes because their value is missing
    """

    where: str
    why: str
    column: str
    n_removed: int
    n_unknown: int


@dataclass(frozen=True)
class CutRule:
    """A cut that a column's name suggests.

    Attributes
    ----------
    column : name of the column
    keep : rows that stay: ``true`` or ``false``, the value of a flag, or the end of an expression that begins with the
        column's name, such as ``== 0``
    why : human-readable description of the rows that are removed
    """

    column: str
    keep: str
    why: str


# Patterns of columns' names in lower case; the first that matches counts.
RULES = (
    (PRIMARY, "true", "not primary: the same object measured again where patches or tracts overlap"),
    (r".*nchild", "== 0", "parents of blends: their children are listed too"),
    (r"is_?star|star_?flag|.*_is_?star", "false", "stars"),
    (r".*extendedness(_value)?", "> 0.5", "stars: extendedness 0 is a point source"),
    (r"class_?star|.*_class_?star", "< 0.5", "stars: CLASS_STAR near 1 is a point source"),
    (r"type|morphtype|morph_type", "!= 'PSF'", "stars: the Tractor fits them as type PSF"),
    (r"maskbits|.*_maskbits", "== 0", "on or beside masked pixels: bright stars, saturation, large galaxies"),
    (r".*mask_?bright_?star.*|.*brightstar_?(halo|blooming|ghost15).*", "false", "near a bright star"),
    (r".*(pixelflags|flags_pixel|pixel_flags).*(bright_?object|bright).*center", "false", "the center lies in a bright star's mask"),
    (r".*(pixelflags|flags_pixel|pixel_flags).*saturated.*center", "false", "saturated at the center"),
    (r".*(pixelflags|flags_pixel|pixel_flags).*_(edge|offimage|nodata|bad)", "false", "at an edge, or on bad pixels"),
    (r".*(pixelflags|flags_pixel|pixel_flags).*(cr|interpolated|suspect).*center", "false", "interpolated pixels at the center"),
    (r".*(pixelflags|flags_pixel|pixel_flags).*bright.*any", "false", "touches a bright star's mask"),
    (r".*(sdss)?centroid(_sdss|_naive)?_flags?", "false", "the position was not measured well"),
)  # fmt: skip


# One band tells stars best: the reference band's, or the deepest and sharpest that is there.
BANDS_FOR_STARS = ("ref", "i", "r", "z", "y", "g")


def cut_rules(names: Sequence[str]) -> list[CutRule]:
    """Return the cuts that the names of a list's columns suggest, at most one a column."""
    found = []
    for name in names:
        if name in RESERVED_COLUMNS:
            continue
        for pattern, keep, why in RULES:
            if re.fullmatch(pattern, name.lower()):
                found.append(CutRule(name, keep, why))
                break

    def rank(rule: CutRule) -> int:
        starts = [rule.column.lower().startswith(band) for band in BANDS_FOR_STARS]
        return starts.index(True) if any(starts) else len(starts)

    extended = sorted((rule for rule in found if "extendedness" in rule.column.lower()), key=rank)
    return [rule for rule in found if rule not in extended[1:]]


def usual_cuts(blocks: Blocks, rules: Sequence[CutRule]) -> tuple[tuple[Cut, ...], int]:
    """Apply each rule to a list by itself.

    Parameters
    ----------
    blocks : the list's usable rows
    rules : cuts to try; those that do not suit their column's type are left out

    Returns
    -------
    cuts : those that remove rows
    n_removed : number of rows that at least one of them removes
    """
    wheres = _expressions(blocks, rules)
    n_removed, n_unknown, n_cut = dict.fromkeys(wheres, 0), dict.fromkeys(wheres, 0), 0
    for table in blocks([rule.column for rule in wheres]) if wheres else ():
        kept_by_all = np.ones(len(table), np.bool_)
        for rule, where in wheres.items():
            column = table.column(rule.column)
            selected = select_rows({rule.column: column}, len(table), where)
            kept_by_all &= selected
            n_removed[rule] += int(np.count_nonzero(~selected))
            is_nan = pc.sum(pc.is_nan(column)).as_py() if pa.types.is_floating(column.type) else 0
            n_unknown[rule] += int(column.null_count + (is_nan or 0))
        n_cut += int(np.count_nonzero(~kept_by_all))
    cuts = (
        Cut(where, rule.why, rule.column, n_removed[rule], n_unknown[rule])
        for rule, where in wheres.items()
        if n_removed[rule]
    )
    return tuple(cuts), n_cut


def _expressions(blocks: Blocks, rules: Sequence[CutRule]) -> dict[CutRule, str]:
    """Return the rules that suit their columns' types, as `where` expressions."""
    columns = list(dict.fromkeys(rule.column for rule in rules))
    schema = next(iter(blocks(columns))).schema if columns else pa.schema([])
    flags = [
        rule.column for rule in rules if _is_flag(rule) and pa.types.is_string(schema.field(rule.column).type)
    ]
    true_texts: dict[str, set[str]] = {name: set() for name in flags}
    for table in blocks(flags) if flags else ():
        for name, texts in true_texts.items():
            column = table.column(name)
            texts |= set(pc.unique(column.filter(as_booleans(column))).drop_null().to_pylist())
    found = {
        rule: _expression(rule, schema.field(rule.column).type, sorted(true_texts.get(rule.column, ())))
        for rule in rules
    }
    return {rule: where for rule, where in found.items() if where is not None}


def _is_flag(rule: CutRule) -> bool:
    return rule.keep in ("true", "false")


def _expression(rule: CutRule, kind: pa.DataType, true_texts: Sequence[str]) -> str | None:
    """Return the rule as a `where` expression that suits the column's type; None if there is none."""
    name = rule.column if rule.column.isidentifier() else f"`{rule.column}`"
    is_text, is_number = pa.types.is_string(kind), pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not _is_flag(rule):
        suits = is_text if "'" in rule.keep else is_number
        return f"{name} {rule.keep}" if suits else None
    wanted = rule.keep == "true"
    if pa.types.is_boolean(kind):
        return name if wanted else f"not {name}"
    if is_text:
        listed = ", ".join(map(repr, true_texts))
        return f"{name} {'in' if wanted else 'not in'} [{listed}]" if true_texts else None
    return f"{name} {'!=' if wanted else '=='} 0" if is_number else None

"""`galbatch objects check`: what a run would refuse of an object list, and the cuts that are usual for it.

Nothing is applied: the page ends with what to paste into run.toml.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from galbatch.config import FlagsConfig, ObjectsConfig
from galbatch.core import sky
from galbatch.core.types import ObjectTable
from galbatch.errors import ObjectListError
from galbatch.objects import tables
from galbatch.objects.hats import is_hats

__all__ = ["Cut", "ListCheck", "check_objects", "report_lines"]

# Names that surveys use, without underscores and in lower case; the first that is there is taken.
ID_NAMES = ("objectid", "id", "sourceid", "objid", "coaddobjectid", "lsid", "releaseid", "number", "name")
POSITION_NAMES = (
    ("radeg", "decdeg"),
    ("ra", "dec"),
    ("coordra", "coorddec"),
    ("raj2000", "dej2000"),
    ("raj2000", "decj2000"),
    ("alphaj2000", "deltaj2000"),
    ("raicrs", "deicrs"),
    ("ra2000", "dec2000"),
    ("rightascension", "declination"),
    ("ramean", "decmean"),
    *((f"{band}ra", f"{band}dec") for band in "irgzyu"),
)

N_EXAMPLES = 5


@dataclass(frozen=True)
class Cut:
    """A selection that is usual for such a list: a part of `where`.

    `n_removed` rows are those that it is false for, `n_unknown` of them because a value is missing.
    """

    where: str
    why: str
    column: str
    n_removed: int
    n_unknown: int


@dataclass(frozen=True)
class Refusal:
    """Rows that a run refuses for one reason, the first of them in words."""

    reason: str
    n_rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class ListCheck:
    """What was found in an object list.

    Attributes
    ----------
    objects : ``[objects]`` with the columns given or guessed
    guessed : which of id, ra and dec were guessed
    n_rows, n_columns : of the list
    id_kind : what the ids are
    ra_deg, dec_deg : lowest and highest of the usable rows, as found; NaN if there are none
    n_wrapped : usable rows whose right ascension lies outside 0..360
    n_neighbor, n_duplicate : usable rows that get NEIGHBOR and DUPLICATE_POSITION with the default radii
    n_cut : usable rows that all cuts together remove
    """

    objects: ObjectsConfig
    guessed: tuple[str, ...]
    n_rows: int
    n_columns: int
    id_kind: str
    ra_deg: tuple[float, float]
    dec_deg: tuple[float, float]
    n_wrapped: int
    n_neighbor: int
    n_duplicate: int
    refusals: tuple[Refusal, ...] = ()
    cuts: tuple[Cut, ...] = ()
    n_cut: int = 0
    notes: tuple[str, ...] = ()

    @property
    def n_refused(self) -> int:
        """Rows that cannot be used."""
        return sum(refusal.n_rows for refusal in self.refusals)


def check_objects(
    path: str, *, id_column: str | None = None, ra_column: str | None = None, dec_column: str | None = None
) -> ListCheck:
    """Look at an object list as a run would.

    Parameters
    ----------
    id_column, ra_column, dec_column : names of the columns; None: guessed from the names that surveys use

    Raises
    ------
    ObjectListError
        The list cannot be read, its columns cannot be guessed, or hold what no run can use.
    """
    if is_hats(path):
        raise ObjectListError(f"{path}: is a HATS catalog; galbatch plan checks those, pixel by pixel")
    names = tables.column_names(path)
    given = {"id": id_column, "ra": ra_column, "dec": dec_column}
    guessed = _guessed(path, names, given)
    objects = ObjectsConfig(path=path, **{key: given[key] or guessed[key] for key in given})
    rules = _rules(names)
    wanted = [objects.id, objects.ra, objects.dec, *(rule.column for rule in rules), *_magnitudes(names)]
    table = tables.read_table(path, columns=list(dict.fromkeys(wanted)))
    if len(table) == 0:
        raise ObjectListError(f"{path}: holds no objects")
    listed = tables.examine(path, table, objects=objects)
    usable = np.asarray(pc.is_null(listed.column("reason")))
    ra, dec = (listed.column(name).to_numpy()[usable] for name in ("ra_deg", "dec_deg"))
    nearest = sky.nearest_arcsec(ra, dec, within_arcsec=FlagsConfig().neighbor_radius_arcsec)
    cuts, n_cut = _cuts(table.filter(pa.array(usable)), rules)
    return ListCheck(
        objects=objects,
        guessed=tuple(key for key in given if given[key] is None),
        n_rows=len(table),
        n_columns=len(names),
        id_kind=_id_kind(listed.column("object_id")),
        ra_deg=_range(ra),
        dec_deg=_range(dec),
        n_wrapped=int(np.count_nonzero((ra < 0) | (ra >= 360))),
        n_neighbor=int(np.count_nonzero(nearest < FlagsConfig().neighbor_radius_arcsec)),
        n_duplicate=int(np.count_nonzero(nearest < FlagsConfig().duplicate_radius_arcsec)),
        refusals=tuple(_refusals(listed)),
        cuts=cuts,
        n_cut=n_cut,
        notes=tuple(_notes(names, table, objects=objects, positions=(ra, dec))),
    )


def _range(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (np.nan, np.nan)


# --- columns ---------------------------------------------------------------------------------------------


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _guessed(path: str, names: Sequence[str], given: dict[str, str | None]) -> dict[str, str]:
    """Names of the columns that are not given."""
    by_plain = {_plain(name): name for name in reversed(names)}
    ids = [by_plain[name] for name in ID_NAMES if name in by_plain]
    pairs = [
        (by_plain[ra], by_plain[dec]) for ra, dec in POSITION_NAMES if ra in by_plain and dec in by_plain
    ]
    found = {"id": ids[:1], "ra": [pair[0] for pair in pairs[:1]], "dec": [pair[1] for pair in pairs[:1]]}
    if not names:
        raise ObjectListError(f"{path}: is empty; a line of column names and rows below it are needed")
    for key, candidates in found.items():
        if given[key] is None and not candidates:
            raise ObjectListError(
                f"{path}: no column looks like the {key}; name it with --{key}; there are {', '.join(names)}"
            )
    return {key: candidates[0] for key, candidates in found.items() if candidates}


def _id_kind(ids: pa.ChunkedArray) -> str:
    if pa.types.is_string(ids.type):
        return "text"
    ends = [value for value in pc.min_max(ids).as_py().values() if value is not None]
    digits = max((len(str(abs(value))) for value in ends), default=0)
    return f"integers of up to {digits} digit{'' if digits == 1 else 's'}"


# --- what is refused -------------------------------------------------------------------------------------


def _refusals(listed: pa.Table) -> Iterator[Refusal]:
    rejected = listed.filter(pc.is_valid(listed.column("reason")))
    for reason in pc.unique(rejected.column("reason")).to_pylist():
        rows = rejected.filter(pc.equal(rejected.column("reason"), reason))
        examples = tuple(
            f"id {row['object_id']}, ra {row['ra_deg']}, dec {row['dec_deg']}"
            for row in rows.slice(0, N_EXAMPLES).to_pylist()
        )
        yield Refusal(reason, len(rows), examples)


# --- usual cuts ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rule:
    """A cut that a column's name suggests.

    `keep` says what stays: ``true``, ``false`` (of a flag), or the rest of an expression behind the column's name.
    """

    column: str
    keep: str
    why: str


# By what a column's name says, in lower case; the first that matches counts.
RULES = (
    (r"(.*_)?is_?primary", "true", "not primary: the same object measured again where patches or tracts overlap"),
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
    (r".*(pixelflags|flags_pixel|pixel_flags).*(cr|interpolated|suspect).*center", "false", "mended pixels at the center"),
    (r".*(pixelflags|flags_pixel|pixel_flags).*bright.*any", "false", "touches a bright star's mask"),
    (r".*(sdss)?centroid(_sdss|_naive)?_flags?", "false", "the position was not measured well"),
)  # fmt: skip


def _rules(names: Sequence[str]) -> list[_Rule]:
    found = []
    for name in names:
        if name in tables.RESERVED_COLUMNS:
            continue
        for pattern, keep, why in RULES:
            if re.fullmatch(pattern, name.lower()):
                found.append(_Rule(name, keep, why))
                break
    # One band tells stars best: the reference band's, or the deepest and sharpest that is there.
    extended = [rule for rule in found if "extendedness" in rule.column.lower()]
    extended.sort(key=lambda rule: _rank_of_band(rule.column))
    return [rule for rule in found if rule not in extended[1:]]


def _rank_of_band(column: str) -> int:
    starts = ("ref", "i", "r", "z", "y", "g")
    return next((rank for rank, start in enumerate(starts) if column.lower().startswith(start)), len(starts))


def _cuts(table: pa.Table, rules: Sequence[_Rule]) -> tuple[tuple[Cut, ...], int]:
    """Those of the rules that remove rows of `table`, and how many all of them remove."""
    cuts = []
    together = np.ones(len(table), np.bool_)
    for rule in rules:
        column = table.column(rule.column)
        where = _expression(rule, column)
        if where is None:
            continue
        selected = tables.select(_as_objects(table, rule.column), where)
        if not selected.all():
            together &= selected
            n_removed = len(table) - int(np.count_nonzero(selected))
            cuts.append(Cut(where, rule.why, rule.column, n_removed, _n_unknown(column)))
    return tuple(cuts), len(table) - int(np.count_nonzero(together))


def _n_unknown(column: pa.ChunkedArray) -> int:
    is_nan = pc.sum(pc.is_nan(column)).as_py() if pa.types.is_floating(column.type) else 0
    return int(column.null_count + (is_nan or 0))


def _as_objects(table: pa.Table, column: str) -> ObjectTable:
    """As much of an object table as a selection over one column needs."""
    zeros = np.zeros(len(table))
    return ObjectTable(np.arange(len(table)), zeros, zeros, zeros.astype(np.int64), table.select([column]))


def _expression(rule: _Rule, column: pa.ChunkedArray) -> str | None:
    """`rule` as an expression that suits the column's type; None if there is none."""
    name = rule.column if rule.column.isidentifier() else f"`{rule.column}`"
    is_text = pa.types.is_string(column.type)
    if rule.keep not in ("true", "false"):
        return f"{name} {rule.keep}" if is_text == ("'" in rule.keep) and _is_value(column) else None
    wanted = rule.keep == "true"
    if pa.types.is_boolean(column.type):
        return name if wanted else f"not {name}"
    if is_text:
        texts = pc.unique(column.filter(tables.is_true(column))).drop_null().to_pylist()
        listed = ", ".join(repr(text) for text in sorted(texts))
        return f"{name} {'in' if wanted else 'not in'} [{listed}]" if texts else None
    return f"{name} {'!=' if wanted else '=='} 0" if _is_value(column) else None


def _is_value(column: pa.ChunkedArray) -> bool:
    kind = column.type
    return bool(pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind))


# --- what is worth knowing -------------------------------------------------------------------------------


def _magnitudes(names: Sequence[str]) -> list[str]:
    """Columns that hold magnitudes, without their errors and flags."""
    pattern = r"(.*_)?[a-z]?_?(mag|cmodel_mag|cmodelmag|psfmag|mag_auto|mag_psf|kron_mag)(_[a-z])?(_psf|_cmodel|_kron|_auto)?"
    return [name for name in names if re.fullmatch(pattern, name.lower())]


def _notes(
    names: Sequence[str], table: pa.Table, *, objects: ObjectsConfig, positions: tuple[Any, Any]
) -> Iterator[str]:
    if _may_be_radians(*positions):
        as_lsst = " (as in the LSST pipelines' source tables)" if _plain(objects.ra) == "coordra" else ""
        yield (
            f"all positions lie within 0..6.28 and -1.57..1.57: are {objects.ra} and {objects.dec} in radians{as_lsst}? "
            "A run takes degrees"
        )
    if _plain(objects.id) == "objid" and "brickid" in map(_plain, names):
        yield (
            "objid is unique within a brick only: make one id of release, brickid and objid "
            "(release << 40 | brickid << 16 | objid)"
        )
    if flagged := [name for name in names if name.endswith(tables.ISNULL)]:
        nulls = ", ".join(
            f"{table.column(name).null_count} in {name}" for name in (objects.id, objects.ra, objects.dec)
        )
        is_one = len(flagged) == 1
        columns = "1 column ends" if is_one else f"{len(flagged)} columns end"
        they_are = "it is" if is_one else "they are"
        yield f"{columns} in {tables.ISNULL}: where {they_are} true, the value counts as null ({nulls})"
    for name in _magnitudes(names):
        if note := _magnitude_note(name, table.column(name)):
            yield note


def _may_be_radians(ra: npt.NDArray[np.float64], dec: npt.NDArray[np.float64]) -> bool:
    """Whether a list of several positions fits into the circle's 6.28 radians."""
    if len(ra) < 2:
        return False
    return bool(ra.min() >= 0 and ra.max() <= 2 * np.pi and np.abs(dec).max() <= np.pi / 2)


def _magnitude_note(name: str, column: pa.ChunkedArray) -> str | None:
    if not _is_value(column) or pa.types.is_string(column.type):
        return None
    values = column.cast(pa.float64()).to_numpy()
    good = values[np.isfinite(values) & (np.abs(values) < 50)]  # 99 and -99 stand for no measurement
    if not len(good):
        return None
    low, middle, high = np.percentile(good, [0, 50, 100])
    missing = f", {len(values) - len(good)} without a value" if len(good) < len(values) else ""
    return f"{name}: {low:.2f} to {high:.2f} mag, half brighter than {middle:.2f}{missing}"


# --- words -----------------------------------------------------------------------------------------------


def report_lines(check: ListCheck) -> list[str]:
    """The check as text, for people."""
    notes = [f"  {note}" for note in _all_notes(check)]
    parts = [_heading(check), _verdict(check), _cut_lines(check), _to_paste(check)]
    if notes:
        parts.insert(3, ["Worth knowing", *notes])
    return [line for part in parts for line in (*part, "")][:-1]


def _heading(check: ListCheck) -> list[str]:
    columns = (
        ("id", check.objects.id, check.id_kind),
        ("ra", check.objects.ra, _span(check.ra_deg)),
        ("dec", check.objects.dec, _span(check.dec_deg)),
    )
    width = max(len(name) for _, name, _ in columns)
    rows = f"{check.n_rows} row{'' if check.n_rows == 1 else 's'}"
    return [f"{check.objects.path}: {rows}, {check.n_columns} columns"] + [
        f"  {key:<3}  {name:<{width}}  {what}{' (guessed by its name)' if key in check.guessed else ''}"
        for key, name, what in columns
    ]


def _span(limits_deg: tuple[float, float]) -> str:
    if np.isnan(limits_deg[0]):
        return "no row that could be used"
    return f"{limits_deg[0]:.5f} to {limits_deg[1]:.5f} deg"


def _verdict(check: ListCheck) -> list[str]:
    if not check.refusals:
        return ["Accepted as it is: no row would be refused"]
    lines = [f"Refused: {check.n_refused} of {check.n_rows} rows cannot be used"]
    for refusal in check.refusals:
        lines.append(f"  {refusal.n_rows} x {refusal.reason}{', the first:' if refusal.n_rows > 1 else ':'}")
        lines += [f"    {example}" for example in refusal.examples]
    return [
        *lines,
        '  Correct them, or set invalid = "drop": they are then left out and listed in rejected.parquet.',
    ]


def _cut_lines(check: ListCheck) -> list[str]:
    if not check.cuts:
        return ["Usual cuts: none of the columns suggests one that would remove a row"]
    width = max(len("keep where"), *(len(cut.where) for cut in check.cuts))
    lines = ["Usual cuts (none is made unless you write it)", f"  {'keep where':<{width}}  removes  because"]
    for cut in check.cuts:
        unknown = f" ({cut.n_unknown} unknown)" if cut.n_unknown else ""
        lines.append(f"  {cut.where:<{width}}  {cut.n_removed:>7}  {cut.why}{unknown}")
    if len(check.cuts) > 1:
        lines.append(f"  {'all of them':<{width}}  {check.n_cut:>7}")
    return lines


def _all_notes(check: ListCheck) -> list[str]:
    flags = FlagsConfig()
    notes = list(check.notes)
    if check.n_wrapped:
        lie = (
            "right ascensions lie outside 0..360 and are"
            if check.n_wrapped > 1
            else "right ascension lies outside 0..360 and is"
        )
        notes.insert(0, f"{check.n_wrapped} {lie} wrapped")
    for count, radius, flag in (
        (check.n_neighbor, flags.neighbor_radius_arcsec, "NEIGHBOR"),
        (check.n_duplicate, flags.duplicate_radius_arcsec, "DUPLICATE_POSITION"),
    ):
        if count:
            notes.append(f"{count} rows have another within {radius:g} arcsec: they stay, flagged {flag}")
    if check.n_duplicate and check.cuts:
        notes.append(
            "these two flags look at the whole list, whatever `where` selects: rows that are no objects of their own, such as "
            "those that are not primary, are better left out of the file"
        )
    return notes


def _to_paste(check: ListCheck) -> list[str]:
    objects = check.objects
    lines = ["To paste into run.toml", "  [objects]", f"  path = {_toml(objects.path)}"]
    lines += [
        f"  {key} = {_toml(name)}"
        for key, name in (("id", objects.id), ("ra", objects.ra), ("dec", objects.dec))
    ]
    if columns := list(dict.fromkeys(cut.column for cut in check.cuts)):
        lines.append(f"  keep = [{', '.join(map(_toml, columns))}]  # what the cuts read")
    if check.refusals:
        lines.append('  # invalid = "drop"  # leaves the refused rows out; without it the run stops')
    if check.cuts:
        where = " and ".join(cut.where for cut in check.cuts)
        lines += [
            "  # all the cuts, for each [[models]] that wants them; what is cut stays in the catalog, flagged NOT_SELECTED:",
            f"  # where = {_toml(where)}",
        ]
    return lines


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

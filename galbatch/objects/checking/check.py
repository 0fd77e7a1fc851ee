"""The check behind `galbatch objects check`: the rows that a run would refuse, and the usual cuts for such a list.

Nothing is applied: the report ends with lines to paste into run.toml.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from galbatch.config import FlagsConfig, ObjectsConfig, RegionConfig
from galbatch.core import sky
from galbatch.errors import ObjectListError
from galbatch.objects.checking.cuts import Cut, cut_rules, usual_cuts
from galbatch.objects.reading import examine, kept_names, psf_widths, read_list, refuse_empty
from galbatch.objects.region import Region, region_of
from galbatch.objects.rows import ListCounts
from galbatch.objects.sources import is_hats
from galbatch.objects.tables import ISNULL_SUFFIX, column_names

__all__ = ["ListCheck", "Refusal", "check_objects", "guess_columns", "report_lines"]

# Names that surveys use, in lower case and without underscores; the first that a list has is taken. Names of
# one survey precede the general ones: HSC and Rubin lists have both objectId and id.
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
class Refusal:
    """Rows that a run refuses for one reason, with the first of them as examples."""

    reason: str
    n_rows: int
    examples: tuple[str, ...]

    @classmethod
    def all_of(cls, listed: pa.Table) -> Iterator[Refusal]:
        """Iterate over the reasons of a table as `reading.examine` makes it, in the order of the rows."""
        rejected = listed.filter(pc.is_valid(listed.column("reason")))
        for reason in pc.unique(rejected.column("reason")).to_pylist():
            rows = rejected.filter(pc.equal(rejected.column("reason"), reason))
            examples = tuple(
                f"id {row['object_id']}, ra {row['ra_deg']}, dec {row['dec_deg']}"
                for row in rows.slice(0, N_EXAMPLES).to_pylist()
            )
            yield cls(reason, len(rows), examples)


@dataclass(frozen=True)
class ListCheck:
    """The findings of a check of an object list.

    Attributes
    ----------
    objects : the ``[objects]`` section with the columns given or guessed
    guessed : which of id, ra and dec were guessed
    counts : numbers of rows in the list, in the region and chosen; only the chosen ones are checked
    n_columns : of the list
    id_kind : text, or integers with their number of digits
    ra_deg, dec_deg : lowest and highest of the usable rows, as found; NaN if there are none
    n_wrapped : usable rows whose right ascension lies outside 0..360
    n_neighbor, n_duplicate : usable rows that get NEIGHBOR and DUPLICATE_POSITION with the default radii
    n_cut : usable rows that all cuts together remove
    """

    objects: ObjectsConfig
    guessed: tuple[str, ...]
    counts: ListCounts
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
    def n_rows(self) -> int:
        """Rows that were checked: those that ``[objects] region`` and ``where`` choose."""
        return self.counts.n_chosen

    @property
    def n_refused(self) -> int:
        """Rows that cannot be used."""
        return sum(refusal.n_rows for refusal in self.refusals)


def check_objects(
    objects: ObjectsConfig, *, guess: Collection[str] = ("id", "ra", "dec"), region: Region | None = None
) -> ListCheck:
    """Check an object list as a run would.

    Parameters
    ----------
    objects : ObjectsConfig
        How a run reads the list.
    guess : collection of str
        Those of id, ra and dec whose columns are guessed from the names that surveys use.
    region : Region or None
        The region that ``objects.region`` names; None: it is made here, unless it is one of tracts.

    Raises
    ------
    ObjectListError
        The list cannot be read, its columns cannot be guessed, or hold what no run can use.
    ConfigError
        As `read_objects`.
    """
    path = objects.path
    if is_hats(path):
        raise ObjectListError(f"{path}: is a HATS catalog; galbatch plan checks those, pixel by pixel")
    names = column_names(path, hdu=objects.hdu)
    objects = objects.model_copy(update=guess_columns(path, names, guess))
    region = region or region_of(objects.region)
    keep = kept_names(objects)
    rules = cut_rules(names)
    psf = objects.psf_fwhm_arcsec
    wanted = [objects.id, objects.ra, objects.dec, *(rule.column for rule in rules), *_magnitudes(names)]
    table, counts = read_list(path, objects, [*wanted, *keep, *psf.values()], region=region)
    refuse_empty(objects, counts)
    psf_widths(path, table, columns=psf)  # only for what it refuses
    listed = examine(path, table, objects=objects)
    usable = np.asarray(pc.is_null(listed.column("reason")))
    ra, dec = (listed.column(name).to_numpy()[usable] for name in ("ra_deg", "dec_deg"))
    # One search with the larger radius serves both flags.
    nearest = sky.nearest_arcsec(ra, dec, within_arcsec=FlagsConfig().neighbor_radius_arcsec)
    cuts, n_cut = usual_cuts(table.filter(pa.array(usable)), rules)
    return ListCheck(
        objects=objects,
        guessed=tuple(key for key in ("id", "ra", "dec") if key in guess),
        counts=counts,
        n_columns=len(names),
        id_kind=_id_kind(listed.column("object_id")),
        ra_deg=_range(ra),
        dec_deg=_range(dec),
        n_wrapped=int(np.count_nonzero((ra < 0) | (ra >= 360))),
        n_neighbor=int(np.count_nonzero(nearest < FlagsConfig().neighbor_radius_arcsec)),
        n_duplicate=int(np.count_nonzero(nearest < FlagsConfig().duplicate_radius_arcsec)),
        refusals=tuple(Refusal.all_of(listed)),
        cuts=cuts,
        n_cut=n_cut,
        notes=tuple(_notes(names, table, objects=objects, positions=(ra, dec))),
    )


def _range(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (np.nan, np.nan)


# --- columns ---------------------------------------------------------------------------------------------


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def guess_columns(path: str, names: Sequence[str], keys: Collection[str]) -> dict[str, str]:
    """Return the names of the columns that are id, ra and dec, as far as they are among `keys`, by the names that surveys use.

    Raises
    ------
    ObjectListError
        No column looks like one of them.
    """
    # In reverse, so that the first of several columns with one plain name stays.
    by_plain = {_plain(name): name for name in reversed(names)}
    ids = [by_plain[name] for name in ID_NAMES if name in by_plain]
    pairs = [
        (by_plain[ra], by_plain[dec]) for ra, dec in POSITION_NAMES if ra in by_plain and dec in by_plain
    ]
    found = {"id": ids[:1], "ra": [pair[0] for pair in pairs[:1]], "dec": [pair[1] for pair in pairs[:1]]}
    if not names:
        raise ObjectListError(f"{path}: is empty; a line of column names and rows below it are needed")
    for key in keys:
        if not found[key]:
            raise ObjectListError(
                f"{path}: no column looks like the {key}; name it with --{key}; there are {', '.join(names)}"
            )
    return {key: found[key][0] for key in keys}


def _id_kind(ids: pa.ChunkedArray) -> str:
    if pa.types.is_string(ids.type):
        return "text"
    ends = [value for value in pc.min_max(ids).as_py().values() if value is not None]
    digits = max((len(str(abs(value))) for value in ends), default=0)
    return f"integers of up to {digits} digit{'' if digits == 1 else 's'}"


# --- what is worth knowing -------------------------------------------------------------------------------


def _magnitudes(names: Sequence[str]) -> list[str]:
    """Return the names of columns that hold magnitudes, without their errors and flags."""
    pattern = r"(.*_)?[a-z]?_?(mag|cmodel_mag|cmodelmag|psfmag|mag_auto|mag_psf|kron_mag)(_[a-z])?(_psf|_cmodel|_kron|_auto)?"
    return [name for name in names if re.fullmatch(pattern, name.lower())]


def _notes(
    names: Sequence[str], table: pa.Table, *, objects: ObjectsConfig, positions: tuple[Any, Any]
) -> Iterator[str]:
    ra, dec = positions
    # All positions of a list within 6.28 by 3.14 degrees of the origin are rare: radians are far more likely. One
    # position alone says nothing.
    if len(ra) > 1 and ra.min() >= 0 and ra.max() <= 2 * np.pi and np.abs(dec).max() <= np.pi / 2:
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
    if flagged := [name for name in names if name.endswith(ISNULL_SUFFIX)]:
        nulls = ", ".join(
            f"{table.column(name).null_count} in {name}" for name in (objects.id, objects.ra, objects.dec)
        )
        is_one = len(flagged) == 1
        columns = "1 column ends" if is_one else f"{len(flagged)} columns end"
        they_are = "it is" if is_one else "they are"
        yield f"{columns} in {ISNULL_SUFFIX}: where {they_are} true, the value counts as null ({nulls})"
    for name in _magnitudes(names):
        column = table.column(name)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            continue
        values = column.cast(pa.float64(), safe=False).to_numpy()
        # Surveys write 99, -99 or 999 where nothing was measured; no galaxy is fainter than 50 mag.
        good = values[np.isfinite(values) & (np.abs(values) < 50)]
        if len(good):
            low, middle, high = np.percentile(good, [0, 50, 100])
            missing = f", {len(values) - len(good)} without a value" if len(good) < len(values) else ""
            yield f"{name}: {low:.2f} to {high:.2f} mag, half brighter than {middle:.2f}{missing}"


# --- the report as text ----------------------------------------------------------------------------------


def report_lines(check: ListCheck) -> list[str]:
    """Return the check as human-readable lines."""
    columns = (
        ("id", check.objects.id, check.id_kind),
        ("ra", check.objects.ra, _span(check.ra_deg)),
        ("dec", check.objects.dec, _span(check.dec_deg)),
    )
    width = max(len(name) for _, name, _ in columns)
    rows = f"{check.counts.n_listed} row{'' if check.counts.n_listed == 1 else 's'}"
    lines = [f"{check.objects.path}: {rows}, {check.n_columns} columns", *_chosen_lines(check)]
    for key, name, what in columns:
        guessed = " (guessed by its name)" if key in check.guessed else ""
        lines.append(f"  {key:<3}  {name:<{width}}  {what}{guessed}")
    lines.append("")
    if check.refusals:
        verb = "Left out" if check.objects.invalid == "drop" else "Refused"
        lines.append(f"{verb}: {check.n_refused} of {check.n_rows} rows cannot be used")
        for refusal in check.refusals:
            lines.append(
                f"  {refusal.n_rows} x {refusal.reason}{', the first:' if refusal.n_rows > 1 else ':'}"
            )
            lines += [f"    {example}" for example in refusal.examples]
    if check.refusals and check.objects.invalid == "refuse":
        lines.append(
            '  Correct them, or set invalid = "drop": they are then left out and listed in rejected.parquet.'
        )
    if not check.refusals:
        lines.append("Accepted as it is: no row would be refused")
    lines += ["", *_cut_lines(check), ""]
    if notes := _all_notes(check):
        lines += ["Worth knowing", *(f"  {note}" for note in notes), ""]
    return lines + _to_paste(check)


def _chosen_lines(check: ListCheck) -> list[str]:
    """Return a line each for the region and for `where`, if they are stated, with the number of rows that they leave."""
    objects, counts = check.objects, check.counts
    lines = [f"  {counts.n_in_region} of them in the region {objects.region}"] if objects.region else []
    if objects.where:
        lines.append(f"  {counts.n_chosen} of {'these' if lines else 'them'} where {objects.where}")
    return lines


def _span(limits_deg: tuple[float, float]) -> str:
    if np.isnan(limits_deg[0]):
        return "no row that could be used"
    # Five decimals of a degree are 0.04 arcsec: enough to see which field a list covers.
    return f"{limits_deg[0]:.5f} to {limits_deg[1]:.5f} deg"


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
            "these two flags look at all rows of the run, whatever a network's `where` selects: rows that are no objects of their own, such as "
            "those that are not primary, are better left out by [objects] where"
        )
    return notes


def _to_paste(check: ListCheck) -> list[str]:
    objects = check.objects
    lines = ["To paste into run.toml", "  [objects]", f"  path = {_toml(objects.path)}"]
    if objects.hdu is not None:
        lines.append(f"  hdu = {objects.hdu if isinstance(objects.hdu, int) else _toml(objects.hdu)}")
    lines += [
        f"  {key} = {_toml(name)}"
        for key, name in (("id", objects.id), ("ra", objects.ra), ("dec", objects.dec))
    ]
    if objects.id_type != "as_stored":
        lines.append(f"  id_type = {_toml(objects.id_type)}")
    if objects.where:
        lines.append(f"  where = {_toml(objects.where)}")
    if objects.region:
        lines.append(f"  region = {_toml_region(objects.region)}")
    if columns := list(dict.fromkeys(cut.column for cut in check.cuts)):
        lines.append(f"  keep = [{', '.join(map(_toml, columns))}]  # what the cuts read")
    if check.refusals and objects.invalid == "drop":
        lines.append('  invalid = "drop"')
    elif check.refusals:
        lines.append('  # invalid = "drop"  # leaves the refused rows out; without it the run stops')
    if check.cuts:
        where = " and ".join(cut.where for cut in check.cuts)
        lines += [
            "  # all the cuts, for each [[models]] that wants them; what is cut stays in the catalog, flagged NOT_SELECTED:",
            f"  # where = {_toml(where)}",
        ]
    return lines


def _toml_region(region: RegionConfig) -> str:
    ((key, value),) = region.model_dump(exclude_none=True).items()
    if isinstance(value, str):
        return f"{{ {key} = {_toml(value)} }}"
    items = (_toml(item) if isinstance(item, str) else f"{item:g}" for item in value)
    return f"{{ {key} = [{', '.join(items)}] }}"


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

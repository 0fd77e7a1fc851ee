"""The check behind `galbatch objects check`: the rows that a run would refuse, and the usual cuts for such a list.

Nothing is applied: the report ends with lines to paste into run.toml.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galbatch.config import FlagsConfig, ObjectsConfig
from galbatch.core.columns import DEC, ID, RA
from galbatch.core.flags import PixelFlag, count_flags
from galbatch.objects.checking.cuts import Cut, cut_rules, usual_cuts
from galbatch.objects.checking.names import guess_columns, magnitude_columns
from galbatch.objects.checking.notes import Positions, list_notes
from galbatch.objects.checking.rows import CheckedCatalog, CheckedList, CheckedRows
from galbatch.objects.hats import examined_hats, first_leaf, position_names
from galbatch.objects.reading import InputColumns, examine, input_columns, kept_names, psf_widths
from galbatch.objects.region import Region, region_of
from galbatch.objects.rows import ListCounts
from galbatch.objects.sources import is_hats
from galbatch.objects.tables import ISNULL_SUFFIX, column_names
from galbatch.objects.where import select_rows

__all__ = ["Feeding", "ListCheck", "Refusal", "check_objects"]

N_EXAMPLES = 5


@dataclass(frozen=True)
class Refusal:
    """Rows that a run refuses for one reason, with the first of them as examples."""

    reason: str
    n_rows: int
    examples: tuple[str, ...]


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
    positions : of the usable rows
    n_neighbor, n_duplicate : usable rows that get NEIGHBOR and DUPLICATE_POSITION
    n_cut : usable rows that all cuts together remove
    n_selected : usable rows that each network selects, by its name
    """

    objects: ObjectsConfig
    guessed: tuple[str, ...]
    counts: ListCounts
    n_columns: int
    id_kind: str
    positions: Positions
    n_neighbor: int
    n_duplicate: int
    refusals: tuple[Refusal, ...] = ()
    cuts: tuple[Cut, ...] = ()
    n_cut: int = 0
    n_selected: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    flags: FlagsConfig = field(default_factory=FlagsConfig)

    @property
    def n_rows(self) -> int:
        """Rows that were checked: those that ``[objects] region`` and ``where`` choose."""
        return self.counts.n_chosen

    @property
    def n_refused(self) -> int:
        """Rows that cannot be used."""
        return sum(refusal.n_rows for refusal in self.refusals)


@dataclass(frozen=True)
class Feeding:
    """Columns, selections and radii that a run takes from an object list, beside what ``[objects]`` states.

    Attributes
    ----------
    inputs : columns that are auxiliary inputs of networks
    wheres : the selection of each network as an expression, by the network's name; None selects all objects
    flags : radii of the flags that other objects set
    """

    inputs: InputColumns = field(default_factory=dict)
    wheres: Mapping[str, str | None] = field(default_factory=dict)
    flags: FlagsConfig = field(default_factory=FlagsConfig)


def check_objects(
    objects: ObjectsConfig,
    *,
    guess: Collection[str] = ("id", "ra", "dec"),
    region: Region | None = None,
    feeding: Feeding | None = None,
) -> ListCheck:
    """Check an object list, or a HATS catalog, as a run would.

    Parameters
    ----------
    objects : ObjectsConfig
        How a run reads the list.
    guess : collection of str
        Those of id, ra and dec whose columns are guessed from the names that surveys use; of a HATS catalog as far as its
        properties do not state them.
    region : Region or None
        The region that ``objects.region`` names; None: it is made here, unless it is one of tracts.
    feeding : Feeding or None
        What a run takes beside; None: nothing.

    Raises
    ------
    ObjectListError
        The list cannot be read, its columns cannot be guessed, or hold what no run can use.
    ConfigError
        As `read_objects`; or a network's selection is no expression over the columns that a run keeps.
    """
    feeding, region = feeding or Feeding(), region or region_of(objects.region)
    in_pixels = is_hats(objects.path)
    names = column_names(first_leaf(objects.path) if in_pixels else objects.path, hdu=objects.hdu)
    guessed = tuple(key for key in guess if not in_pixels or key not in position_names(objects.path))
    objects = objects.model_copy(update=guess_columns(objects.path, names, guessed))
    rules, magnitudes = cut_rules(names), magnitude_columns(names)
    rows: CheckedRows
    if in_pixels:
        rows = CheckedCatalog(examined_hats(objects, feeding.inputs, region))
    else:
        also = [*(rule.column for rule in rules), *magnitudes]
        rows = CheckedList(objects, region, (*_taken_columns(objects, feeding), *also))
    found = _Examined.of(rows)
    n_selected, n_unfed = _taken(rows, feeding)
    bits = np.concatenate([np.zeros(0, np.int32), *rows.object_flags(feeding.flags)])
    n_neighbor, n_duplicate = count_flags(bits, [PixelFlag.NEIGHBOR, PixelFlag.DUPLICATE_POSITION])
    cuts, n_cut = usual_cuts(rows.blocks, rules)
    notes = list_notes(
        rows.blocks, rows.objects, names=names, magnitudes=magnitudes, positions=found.positions
    )
    return ListCheck(
        objects=rows.objects,
        guessed=guessed,
        counts=rows.counts,
        n_columns=len(names),
        id_kind=found.id_kind,
        positions=found.positions,
        n_neighbor=n_neighbor,
        n_duplicate=n_duplicate,
        refusals=found.refusals,
        cuts=cuts,
        n_cut=n_cut,
        n_selected=n_selected,
        notes=(*_notes_on_nulls(rows.objects, names, found), *notes, *_notes_on_inputs(n_unfed, found)),
        flags=feeding.flags,
    )


# --- ids and positions -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Examined:
    """The ids and positions of all chosen rows: what is wrong with them, and what they are.

    Attributes
    ----------
    refusals : in the order of the rows
    n_missing : rows without id, right ascension and declination
    """

    refusals: tuple[Refusal, ...]
    id_kind: str
    positions: Positions
    n_missing: tuple[int, int, int]

    @classmethod
    def of(cls, rows: CheckedRows) -> _Examined:
        n_rows, examples, digits, is_text = Counter[str](), dict[str, list[str]](), 0, False
        positions, n_missing = Positions.of(np.zeros(0), np.zeros(0)), np.zeros(3, np.int64)
        for listed in rows.listed():
            for reason, found in _rejected(listed):
                n_rows[reason] += len(found)
                shown = examples.setdefault(reason, [])
                shown += [_example(row) for row in found.slice(0, N_EXAMPLES - len(shown)).to_pylist()]
            ids = listed.column("object_id")
            is_text = is_text or pa.types.is_string(ids.type)
            digits = max(digits, _digits(ids))
            ra, dec = listed.column("ra_deg").to_numpy(), listed.column("dec_deg").to_numpy()
            n_missing += [ids.null_count, np.count_nonzero(np.isnan(ra)), np.count_nonzero(np.isnan(dec))]
            usable = np.asarray(pc.is_null(listed.column("reason")))
            positions += Positions.of(ra[usable], dec[usable])
        refusals = (Refusal(reason, n, tuple(examples[reason])) for reason, n in n_rows.items())
        kind = f"integers of up to {digits} digit{'' if digits == 1 else 's'}"
        n_ids, n_ra, n_dec = map(int, n_missing)
        return cls(tuple(refusals), "text" if is_text else kind, positions, (n_ids, n_ra, n_dec))


def _rejected(listed: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Iterate over the reasons of a table as `reading.examine` makes it, with the rows of each."""
    rejected = listed.filter(pc.is_valid(listed.column("reason")))
    for reason in pc.unique(rejected.column("reason")).to_pylist():
        yield reason, rejected.filter(pc.equal(rejected.column("reason"), reason))


def _example(row: Mapping[str, object]) -> str:
    return f"id {row['object_id']}, ra {row['ra_deg']}, dec {row['dec_deg']}"


def _digits(ids: pa.ChunkedArray) -> int:
    if pa.types.is_string(ids.type):
        return 0
    ends = [value for value in pc.min_max(ids).as_py().values() if value is not None]
    return max((len(str(abs(value))) for value in ends), default=0)


# --- what a run takes ------------------------------------------------------------------------------------


def _taken_columns(objects: ObjectsConfig, feeding: Feeding) -> list[str]:
    own = [objects.id, objects.ra, objects.dec]
    return [*own, *kept_names(objects), *objects.psf_fwhm_arcsec.values(), *feeding.inputs]


def _taken(rows: CheckedRows, feeding: Feeding) -> tuple[dict[str, int], dict[str, int]]:
    """Read all columns that a run takes, and return two numbers of usable rows.

    Returns
    -------
    n_selected : those that each network selects, by its name
    n_unfed : those without a number for an auxiliary input, by its column
    """
    objects = rows.objects
    n_selected, n_unfed = dict.fromkeys(feeding.wheres, 0), dict.fromkeys(feeding.inputs, 0)
    for table in rows.blocks(list(dict.fromkeys(_taken_columns(objects, feeding)))):
        psf_widths(objects.path, table, columns=objects.psf_fwhm_arcsec)  # only for what it refuses
        for name, values in input_columns(objects.path, table, feeding.inputs).items():
            lacks = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
            n_unfed[name] += int(np.count_nonzero(lacks))
        columns = _catalog_columns(objects, table) if any(feeding.wheres.values()) else {}
        for name, where in feeding.wheres.items():
            n_selected[name] += int(np.count_nonzero(select_rows(columns, len(table), where)))
    return n_selected, n_unfed


def _catalog_columns(objects: ObjectsConfig, table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Return usable rows under the names and with the values that the expressions of ``[[models]]`` see: the catalog's."""
    listed = examine(objects.path, table, objects=objects)
    wrapped_deg = pa.array(np.mod(listed.column("ra_deg").to_numpy(), 360.0))
    columns = {ID.name: listed.column("object_id"), RA.name: wrapped_deg, DEC.name: listed.column("dec_deg")}
    return columns | {name: table.column(name) for name in kept_names(objects)}


# --- remarks ---------------------------------------------------------------------------------------------


def _notes_on_nulls(objects: ObjectsConfig, names: Sequence[str], found: _Examined) -> Iterator[str]:
    if flagged := [name for name in names if name.endswith(ISNULL_SUFFIX)]:
        columns = zip(found.n_missing, (objects.id, objects.ra, objects.dec), strict=True)
        nulls = ", ".join(f"{n} in {name}" for n, name in columns)
        is_one = len(flagged) == 1
        those = "1 column ends" if is_one else f"{len(flagged)} columns end"
        they_are = "it is" if is_one else "they are"
        yield f"{those} in {ISNULL_SUFFIX}: where {they_are} true, the value counts as null ({nulls})"


def _notes_on_inputs(n_unfed: Mapping[str, int], found: _Examined) -> Iterator[str]:
    for name, n in n_unfed.items():
        if n:
            yield (
                f"{name}: {n} of {found.positions.n} rows hold no number: a network that takes it gives them no values, "
                "flagged MISSING_PIXELS"
            )

"""Object lists: the ids and positions of a table, the reason why a row is rejected, and the sorted table of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from galbatch.config import ObjectsConfig
from galbatch.core import sky
from galbatch.core.columns import DEC, ID, RA, RESERVED_COLUMNS
from galbatch.core.types import ObjectTable
from galbatch.errors import ConfigError, ObjectListError
from galbatch.objects.region import Region, region_of
from galbatch.objects.rows import ListCounts, RowFilter
from galbatch.objects.tables import read_table
from galbatch.objects.values import numbers_of, positions_of, vectors_of

__all__ = [
    "DUPLICATE",
    "InputColumns",
    "examine",
    "input_columns",
    "kept_names",
    "psf_widths",
    "read_list",
    "read_numbers",
    "read_objects",
    "refuse_empty",
    "refuse_rejected",
    "sorted_objects",
]

InputColumns: TypeAlias = Mapping[str, int | None]
"""Columns of an object list that are auxiliary inputs of networks, with the length of those that hold lists; None: numbers."""

MAX_EXACT_ID = 2.0**53
"""Up to here a float64 holds every integer."""

DUPLICATE = "duplicate id"
NO_ID = "no id"
# Also those beyond ASCII that break lines (Unicode's categories).
CONTROL_CHARACTERS = r"[\p{Cc}\p{Zl}\p{Zp}]"
UNPRINTABLE_ID = "control characters in the id"
NOT_FINITE = "position is not finite"
BAD_DECLINATION = "declination outside -90..90"
# Lists count from -180 deg or beyond a turn, and such values are wrapped; -999, 999 and 9999 stand for a position that is missing.
GREATEST_RA_DEG = 900.0
BAD_RIGHT_ASCENSION = f"right ascension outside -{GREATEST_RA_DEG:g}..{GREATEST_RA_DEG:g}"
REASONS = (
    NO_ID,
    UNPRINTABLE_ID,
    NOT_FINITE,
    BAD_DECLINATION,
    BAD_RIGHT_ASCENSION,
    DUPLICATE,
)  # the first that holds is given


def read_objects(
    objects: ObjectsConfig,
    *,
    also: Sequence[str] = (),
    inputs: InputColumns = MappingProxyType({}),
    region: Region | None = None,
) -> tuple[ObjectTable, pa.Table, ListCounts]:
    """Read and check the object list.

    Parameters
    ----------
    objects : ObjectsConfig
        The path of the list and the names of its columns. With ``invalid = "drop"`` rows that cannot be used are left
        out: those without id or position, and all but the first row of an id among the others.
    also : sequence of str
        Columns wanted in `kept` besides ``objects.keep``.
    inputs : InputColumns
        Columns that are auxiliary inputs of networks.
    region : Region or None
        The region that ``objects.region`` names; None: it is made here, unless it is one of tracts.

    Returns
    -------
    table : ObjectTable
        Sorted by (healpix_29, object_id); RA wrapped into [0, 360); `kept` holds ``objects.keep`` and `also`,
        `psf_fwhm_arcsec` the columns of ``objects.psf_fwhm_arcsec``, `inputs` those of `inputs`.
    rejected : pyarrow.Table
        Chosen rows that cannot be used: object_id, ra_deg, dec_deg (in degrees, not wrapped, null where missing) and reason, in
        the order of the list.
    counts : ListCounts
        The numbers of rows in the list, in the region, and chosen.

    Raises
    ------
    ObjectListError
        No such file or column; ids that are no integers or text; no objects; with ``invalid = "refuse"``
        any row that cannot be used, with their count and the first five.
    ConfigError
        A kept column has the name of one of the catalog's own.
    """
    region = region or region_of(objects.region)
    keep = kept_names(objects, also)
    wanted = [objects.id, objects.ra, objects.dec, *keep, *objects.psf_fwhm_arcsec.values(), *inputs]
    table, counts = read_list(objects.path, objects, wanted, region=region)
    refuse_empty(objects, counts)
    listed = examine(objects.path, table, objects=objects)
    rejected = listed.filter(pc.is_valid(listed.column("reason")))
    refuse_rejected(objects, n_rows=len(table), rejected=rejected)
    psf = psf_widths(objects.path, table, columns=objects.psf_fwhm_arcsec)
    numbers = input_columns(objects.path, table, inputs)
    return sorted_objects(listed, table.select(keep), psf=psf, inputs=numbers), rejected, counts


def read_list(
    path: str, objects: ObjectsConfig, columns: Sequence[str], *, region: Region | None = None
) -> tuple[pa.Table, ListCounts]:
    """Read columns of a list, or of one of its files, as ``[objects]`` says; raises as `RowFilter.read` does.

    Returns
    -------
    table : pyarrow.Table
        The rows that lie in `region` and that ``[objects] where`` is true for.
    counts : ListCounts
        The numbers of rows before and after.
    """
    return RowFilter(objects, region).read(path, list(dict.fromkeys(columns)))


def refuse_empty(objects: ObjectsConfig, counts: ListCounts) -> None:
    """Raise ObjectListError if a list has no rows, or if none of them is chosen by ``[objects] region`` and ``where``."""
    if not counts.n_listed:
        raise ObjectListError(f"{objects.path}: holds no objects")
    if not counts.n_in_region:
        raise ObjectListError(
            f"{objects.path}: none of its {counts.n_listed} rows lies in [objects] region = {objects.region}"
        )
    if not counts.n_chosen:
        of = f"the {counts.n_in_region} in [objects] region" if objects.region else f"its {counts.n_listed}"
        raise ObjectListError(
            f"{objects.path}: [objects] where = {objects.where!r} is true for none of {of} rows"
        )


def examine(path: str, table: pa.Table, *, objects: ObjectsConfig) -> pa.Table:
    """Return the ids and positions of a list's rows, and why a row cannot be used.

    Returns
    -------
    pyarrow.Table
        object_id (int64 or text), ra_deg, dec_deg (float64, converted to degrees, not wrapped) and reason (null where the row is usable),
        in the order of the list.

    Raises
    ------
    ObjectListError
        Ids that are no integers or text, positions that are no numbers, or no angles, as `degrees_of`;
        `path` is what the message names.
    """
    ids = table.column(objects.id)
    if objects.id_type == "text" and (pa.types.is_integer(ids.type) or pa.types.is_null(ids.type)):
        ids = ids.cast(pa.string())
    if objects.id_type == "integer" and pa.types.is_string(ids.type):
        ids = _integers_of_text(path, ids, objects.id)
    ids = _ids(path, ids, objects.id)
    positions = positions_of(path, table, objects)
    no_id = np.asarray(pc.is_null(ids))
    unprintable = np.zeros(len(ids), dtype=np.bool_)
    if pa.types.is_string(ids.type):
        no_id |= np.asarray(pc.equal(ids, "").fill_null(False))
        # numpy's text drops a NUL at its end, so that two ids could become one; terminals obey the others.
        unprintable = np.asarray(pc.match_substring_regex(ids, CONTROL_CHARACTERS).fill_null(False))
    not_finite = ~(np.isfinite(positions["ra_deg"]) & np.isfinite(positions["dec_deg"]))
    outside = ~not_finite & (np.abs(np.nan_to_num(positions["dec_deg"])) > 90.0)
    beyond = ~not_finite & (np.abs(positions["ra_deg"]) > GREATEST_RA_DEG)
    # Only usable rows count as the first of an id: a row without a position must not displace one with it.
    usable = ~(no_id | unprintable | not_finite | outside | beyond)
    repeated = np.zeros(len(ids), dtype=np.bool_)
    repeated[np.flatnonzero(usable)] = _is_repeated(ids.filter(pa.array(usable)))
    # Codes, not text, until Arrow has them: 10 million rows of numpy's text take a GB.
    code = np.select(
        [no_id, unprintable, not_finite, outside, beyond, repeated], range(len(REASONS)), default=-1
    ).astype(np.int8)
    reasons = pa.DictionaryArray.from_arrays(pa.array(code, mask=code < 0), pa.array(REASONS))
    return pa.table({"object_id": ids, **positions, "reason": reasons.cast(pa.string())})


def refuse_rejected(objects: ObjectsConfig, *, n_rows: int, rejected: pa.Table) -> None:
    """Raise ObjectListError if rows were rejected and must not be, or if none of `n_rows` is left."""
    if not len(rejected):
        return
    counted = rejected.group_by("reason", use_threads=False).aggregate([([], "count_all")]).to_pylist()
    counts = ", ".join(f"{row['count_all']} x {row['reason']}" for row in counted)
    if objects.invalid == "refuse":
        first = "\n".join(
            f"  id {row['object_id']}, ra {row['ra_deg']}, dec {row['dec_deg']}: {row['reason']}"
            for row in rejected.slice(0, 5).to_pylist()
        )
        raise ObjectListError(
            f"{objects.path}: {len(rejected)} of {n_rows} rows cannot be used ({counts}); the first:\n{first}\n"
            'correct them, or set [objects] invalid = "drop" to leave them out and list them in rejected.parquet'
        )
    if len(rejected) == n_rows:
        raise ObjectListError(f"{objects.path}: none of its {n_rows} rows is an object; {counts}")


def kept_names(objects: ObjectsConfig, also: Sequence[str] = ()) -> list[str]:
    """Return the names of the columns to keep; raise ConfigError where one is that of a column of the catalog."""
    own = {objects.id: ID.name, objects.ra: RA.name, objects.dec: DEC.name}
    # A column that is in the catalog under its own name already need not be kept twice.
    names = [name for name in dict.fromkeys([*objects.keep, *also]) if own.get(name) != name]
    if clash := [name for name in names if name in RESERVED_COLUMNS]:
        raise ConfigError(
            f"[objects] keep: {', '.join(clash)}: the catalog has a column of its own of that name; "
            "rename it in the object list"
        )
    return names


def read_numbers(
    path: str,
    *,
    id_column: str,
    columns: Sequence[str],
    lengths: InputColumns = MappingProxyType({}),
) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]:
    """Read ids, int64 or str, and numbers by column, NaN for null; raise `ObjectListError` as `read_table` does.

    Columns that have a length in `lengths` are vectors, (row, number) float32; the others (row,) float64.
    """
    table = read_table(path, columns=[id_column, *columns])
    ids = _ids(path, table.column(id_column), id_column)
    if ids.null_count:
        raise ObjectListError(f"{path}: column {id_column}: {ids.null_count} rows have no id")
    numbers = {
        name: _numbers_or_vectors(path, table, name, length=lengths.get(name), expected="numbers")
        for name in columns
    }
    return ids.to_numpy(zero_copy_only=False), numbers


def psf_widths(
    path: str, table: pa.Table, *, columns: Mapping[str, str]
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the rows' PSF widths for every band in `columns`, which names their columns; NaN where there is none.

    Raises
    ------
    ObjectListError
        A column holds no numbers.
    """
    widths = {}
    for band, name in columns.items():
        expected = "PSF widths (FWHM) in arcsec as numbers"
        width = numbers_of(path, table.column(name), name=name, expected=expected)
        positive = np.isfinite(width) & (width > 0)
        widths[band] = np.where(positive, width, np.nan).astype(np.float32)
    return widths


def input_columns(path: str, table: pa.Table, inputs: InputColumns) -> dict[str, npt.NDArray[np.float32]]:
    """Return the auxiliary inputs of networks by column, (row,) or (row, number) float32; NaN where there is no number.

    Raises
    ------
    ObjectListError
        A column holds no numbers, or lists of another length than the network takes.
    """
    expected = "numbers, as a network's auxiliary input"
    with np.errstate(over="ignore"):  # beyond float32 they are infinite: no number either
        return {
            name: _numbers_or_vectors(path, table, name, length=length, expected=expected).astype(np.float32)
            for name, length in inputs.items()
        }


def _numbers_or_vectors(
    path: str, table: pa.Table, name: str, *, length: int | None, expected: str
) -> npt.NDArray[Any]:
    """Return a column as (row,) float64, or with a length as (row, number) float32; NaN for null."""
    column = table.column(name)
    if length is None:
        return numbers_of(path, column, name=name, expected=expected)
    return vectors_of(path, column, name=name, length=length)


def sorted_objects(
    listed: pa.Table,
    kept: pa.Table,
    *,
    psf: Mapping[str, npt.NDArray[np.float32]],
    inputs: Mapping[str, npt.NDArray[np.float32]],
) -> ObjectTable:
    """Return the usable rows of `listed`, as `examine` makes it, with their rows of the others, as an object table."""
    good = pc.is_null(listed.column("reason"))
    usable = np.flatnonzero(good)
    listed, kept = listed.filter(good), kept.filter(good)
    ra = np.mod(listed.column("ra_deg").to_numpy(), 360.0)
    ra[ra == 360.0] = 0.0  # np.mod(-1e-20, 360) is 360
    dec = listed.column("dec_deg").to_numpy()
    index = sky.healpix_29(ra, dec)
    row = _rank(index, listed.column("object_id"))
    rank = pa.array(row)
    return ObjectTable(
        listed.column("object_id").take(rank).to_numpy(),
        ra[row],
        dec[row],
        index[row],
        kept.take(rank).combine_chunks(),
        {band: width[usable][row] for band, width in psf.items()},
        {name: values[usable][row] for name, values in inputs.items()},
    )


def _rank(index: npt.NDArray[np.int64], ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return the row numbers (object,) in the order of index, then id."""
    # Few indices are equal, and comparing ids as text is slow: only the rows of equal indices are compared by id.
    rank = np.argsort(index, kind="stable")
    same = index[rank[1:]] == index[rank[:-1]]
    tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    if len(tied):
        rows = rank[tied]
        keys = pa.table({"healpix": index[rows], "id": ids.take(pa.array(rows))})
        order = pc.sort_indices(keys, sort_keys=[("healpix", "ascending"), ("id", "ascending")])
        rank[tied] = rows[order.to_numpy()]
    return rank


def _ids(path: str, column: pa.ChunkedArray, name: str) -> pa.Array:
    """Return the ids as int64 or text; they are never converted to float on the way, which would round them."""
    ids = column.combine_chunks()
    if pa.types.is_string(ids.type):
        return ids
    if pa.types.is_integer(ids.type) or (pa.types.is_decimal(ids.type) and ids.type.scale == 0):
        try:
            return ids.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise ObjectListError(
                f"{path}: column {name}: ids must fit 64 bits with sign, or be text: {error}; "
                'set [objects] id_type = "text"'
            ) from None
    advice = ""
    if pa.types.is_floating(ids.type):
        largest = pc.max(pc.abs(ids)).as_py() or 0.0
        advice = (
            f"; up to {largest:.0f} they are above 2^53, where a float64 has lost digits: get the list again, "
            'with ids as integers or text (of a CSV file, [objects] id_type = "text" reads all digits)'
            if largest > MAX_EXACT_ID
            else "; none is above 2^53, so no digits are lost yet: convert the column to integers (int64), or set [objects] "
            'id_type = "text" for ids of a CSV file that only look like numbers, such as 1e5'
        )
    raise ObjectListError(f"{path}: column {name} holds {ids.type}; ids must be integers or text{advice}")


def _integers_of_text(path: str, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    try:
        return pc.utf8_trim_whitespace(column).cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise ObjectListError(
            f'{path}: column {name}: [objects] id_type = "integer", but not all ids are integers of 64 bits: {error}; '
            'set id_type = "text"'
        ) from None


def _is_repeated(ids: pa.Array) -> npt.NDArray[np.bool_]:
    """Return a mask (object,), true where an earlier row has the same id."""
    if pa.types.is_string(ids.type):
        key = ids.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    else:
        key = ids.to_numpy()
    ordered = np.sort(key)
    if not (ordered[1:] == ordered[:-1]).any():
        return np.zeros(len(key), np.bool_)
    rank = np.argsort(key, kind="stable")  # 6 times slower than the sort: only where there are any
    repeated = np.zeros(len(key), np.bool_)
    repeated[rank[1:]] = key[rank[1:]] == key[rank[:-1]]
    return repeated

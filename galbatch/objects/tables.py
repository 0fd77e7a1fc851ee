"""Object lists and other tables in and out: Parquet, FITS, CSV, VOTable.

Integers stay integers from file to catalog: an id of 17 digits does not fit a float64.
"""

from __future__ import annotations

import ast
import codecs
import csv
import difflib
import gzip
import io
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from astropy.table import Column, MaskedColumn, Table

from galbatch import storage
from galbatch.config import ObjectsConfig
from galbatch.core import sky
from galbatch.core.pixels import PATH_COLUMNS
from galbatch.core.types import ObjectTable
from galbatch.errors import ConfigError, ObjectListError, OutputError

__all__ = [
    "DUPLICATE",
    "ISNULL",
    "RESERVED_COLUMNS",
    "check_suffix",
    "column_names",
    "examine",
    "input_columns",
    "is_true",
    "kept_names",
    "psf_widths",
    "read_numbers",
    "read_objects",
    "read_table",
    "refuse_rejected",
    "select",
    "sorted_objects",
    "unit_of",
    "write_parquet",
    "write_table",
]

RESERVED_COLUMNS = ("_healpix_29", "object_id", "ra_deg", "dec_deg", "flags", *PATH_COLUMNS)
"""Names of the catalog's own columns (and of HATS' path columns): kept columns cannot have them."""

WRITTEN = (".parquet", ".csv", ".fits", ".vot", ".xml")
"""Suffixes of the tables that are written."""

ISNULL = "_isnull"
"""What HSC's archive puts after a column's name for the column that says where it is null."""

MAX_EXACT_ID = 2.0**53
"""Up to here a float64 holds every integer."""

OTHER_ANGLES = (
    "rad",
    "15deg",
    "h",
    "arcmin",
    "arcsec",
    "mas",
)  # 15deg: hours, as VOUnits has no name for them

DUPLICATE = "duplicate id"
NO_ID = "no id"
NOT_FINITE = "position is not finite"
BAD_DECLINATION = "declination outside -90..90"
REASONS = (NO_ID, NOT_FINITE, BAD_DECLINATION, DUPLICATE)  # the first that holds is given

# --- reading ---------------------------------------------------------------------------------------------


def read_table(path: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table by its suffix: ``.parquet``, ``.fits``, ``.csv``, ``.vot`` or ``.xml``; local or S3.

    All but Parquet also gzipped, with ``.gz`` after the suffix. Units and descriptions of FITS and VOTable
    columns come as the field metadata ``unit`` and ``description``. A CSV header, or one of its names, may
    begin with ``#``, as in HSC's. Masked values become null, and so do the values of a column ``ra`` where a
    column ``ra_isnull`` beside it is true: so HSC's archive writes null where the format has none.

    Parameters
    ----------
    columns : sequence of str or None
        Only these, in this order; None: all.

    Raises
    ------
    ObjectListError
        The file is not there, has another suffix, cannot be read as what its suffix says, or lacks a
        column; the message names the columns there and the nearest.
    """
    suffix = next((s for s in READERS if path.lower().endswith(s)), None)
    if suffix is None:
        raise ObjectListError(f"{path}: unknown kind of table; known are {', '.join(READERS)}")
    try:
        table = _plain_types(READERS[suffix](path, columns))
    except FileNotFoundError:
        raise ObjectListError(f"{path}: there is no such file") from None
    except (pa.ArrowException, ValueError, TypeError, OSError) as error:
        raise ObjectListError(f"{path}: cannot be read as {suffix}: {error}") from error
    table = _with_nulls(table)
    return table if columns is None else table.select(list(columns))


def column_names(path: str) -> list[str]:
    """Names of a table's columns; of Parquet and CSV only the header is read. Raises as `read_table`."""
    lower = path.lower()
    try:
        if lower.endswith(".parquet"):
            with storage.open_file(path) as file:
                return [str(name) for name in pq.ParquetFile(file).schema_arrow.names]
        if lower.endswith((".csv", ".csv.gz")):
            return _named(*_leading_comments(_read_bytes(path)))[0]
    except (pa.ArrowException, ValueError, OSError):
        pass  # read_table says what is wrong
    return [str(name) for name in read_table(path).column_names]


def _with_nulls(table: pa.Table) -> pa.Table:
    """Null wherever the ``_isnull`` column beside a column is true."""
    for index, field in enumerate(table.schema):
        if field.name + ISNULL in table.column_names and not field.name.endswith(ISNULL):
            null = is_true(table.column(field.name + ISNULL))
            column = pc.if_else(null, pa.scalar(None, field.type), table.column(field.name))
            table = table.set_column(index, field.with_nullable(True), column)
    return table


def is_true(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Booleans of a column of booleans, numbers, or text such as ``t`` or ``True``; null counts as false."""
    if pa.types.is_string(column.type):
        true = pc.is_in(pc.utf8_lower(column), value_set=pa.array(["t", "true", "1", "y", "yes"]))
    elif pa.types.is_null(column.type):
        true = pc.is_valid(column)
    else:
        true = column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column
        true = true.cast(pa.bool_())
    return true.fill_null(False)


def _plain_types(table: pa.Table) -> pa.Table:
    """Dictionaries and large strings as what they stand for: so leaves of one catalog agree on types."""
    fields = []
    for field in table.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        fields.append(field.with_type(pa.string() if pa.types.is_large_string(kind) else kind))
    return table.cast(pa.schema(fields))


def _read_parquet(path: str, columns: Sequence[str] | None) -> pa.Table:
    with storage.open_file(path) as file:
        parquet = pq.ParquetFile(file)
        names = _checked(path, parquet.schema_arrow.names, columns)
        table: pa.Table = parquet.read(columns=names)
    return table.select(names).replace_schema_metadata(None)


def _read_csv(path: str, columns: Sequence[str] | None) -> pa.Table:
    comments, body = _leading_comments(_read_bytes(path))
    names, body = _named(comments, body)
    read = _checked(path, names, columns)
    if not body.strip():
        return pa.table({name: pa.nulls(0) for name in read})
    # Empty text is a missing value: an id column with holes must not turn into text.
    options = pyarrow.csv.ConvertOptions(strings_can_be_null=True, include_columns=read)
    # The kind of a column is guessed from the first block: where a later one differs (a column without a
    # value at first, whole numbers at first), all is read in one block.
    for block_bytes in (2**20, min(max(len(body) + 1, 2**20), 2**31 - 1)):
        reading = pyarrow.csv.ReadOptions(column_names=names, block_size=block_bytes)
        try:
            return pyarrow.csv.read_csv(io.BytesIO(body), read_options=reading, convert_options=options)
        except pa.ArrowInvalid as error:
            failure = error
    raise failure


def _read_bytes(path: str) -> bytes:
    """The file's bytes, unpacked if its name ends in ``.gz``."""
    data = storage.read_bytes(path)
    if not path.lower().endswith(".gz"):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, zlib.error) as error:
        raise ValueError(f"the gzipped data are damaged or cut off: {error}") from None


def _leading_comments(data: bytes) -> tuple[list[str], bytes]:
    comments = []
    data = data.removeprefix(codecs.BOM_UTF8)
    while data.startswith(b"#"):
        line, _, data = data.partition(b"\n")
        comments.append(line.decode("utf-8"))
    return comments, data


def _named(comments: list[str], body: bytes) -> tuple[list[str], bytes]:
    """Column names, and the rows below them.

    They are in the last ``#`` line, if the first line below it holds values, not names, or there is none.
    """
    first, _, rest = body.partition(b"\n")
    cells = _cells(first.decode("utf-8"))
    names = [name.strip().lstrip("#").strip() for name in _cells(comments[-1])] if comments else []
    if not body.strip() or (len(names) == len(cells) and any(map(_is_number, cells))):
        return names, body
    return [name.strip().lstrip("#").strip() for name in cells], rest


def _cells(line: str) -> list[str]:
    return next(csv.reader([line.strip()], skipinitialspace=True), [])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_astropy(path: str, columns: Sequence[str] | None, kind: str) -> pa.Table:
    table = Table.read(io.BytesIO(_read_bytes(path)), format=kind)
    names = _checked(path, table.colnames, columns)
    arrays = [_arrow_array(table[name]) for name in names]
    fields = [_field(table[name], array.type) for name, array in zip(names, arrays, strict=True)]
    return pa.table(arrays, schema=pa.schema(fields))


def _arrow_array(column: Any) -> pa.Array:
    values = np.asarray(column)
    mask = np.asarray(column.mask) if isinstance(column, MaskedColumn) else None
    if values.ndim > 1:
        return pa.array(values.tolist())
    if values.dtype.kind in "SUO":
        text = [value.decode() if isinstance(value, bytes) else value for value in values.tolist()]
        return pa.array([None if value is None else str(value) for value in text], pa.string(), mask=mask)
    # FITS is big-endian, Arrow little-endian.
    return pa.array(values.astype(values.dtype.newbyteorder("=")), mask=mask)


def _field(column: Any, arrow_type: pa.DataType) -> pa.Field:
    unit = column.unit.to_string("vounit") if column.unit is not None else ""
    metadata = {"unit": unit, "description": column.description or ""}
    return pa.field(
        column.name, arrow_type, metadata={key: value for key, value in metadata.items() if value}
    )


def _checked(path: str, there: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """The `wanted` names (None: all), if they are all there, and with them the columns that say where they are null."""
    for name in there if wanted is None else wanted:
        if (count := there.count(name)) > 1:
            raise ObjectListError(
                f"{path}: {count} columns are called {name}; rename all but the one that is meant"
            )
    if wanted is None:
        return list(there)
    for name in wanted:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            hint = f"; the nearest is {near[0]}" if near else ""
            raise ObjectListError(f"{path}: no column {name}{hint}; there are {', '.join(there)}")
    return list(dict.fromkeys([*wanted, *(name + ISNULL for name in wanted if name + ISNULL in there)]))


READERS: Mapping[str, Callable[[str, Sequence[str] | None], pa.Table]] = {
    ".parquet": _read_parquet,
    **dict.fromkeys((".csv", ".csv.gz"), _read_csv),
    **dict.fromkeys((".fits", ".fits.gz"), partial(_read_astropy, kind="fits")),
    **dict.fromkeys((".vot", ".xml", ".vot.gz", ".xml.gz"), partial(_read_astropy, kind="votable")),
}


def read_numbers(
    path: str, *, id_column: str, columns: Sequence[str]
) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[np.float64]]]:
    """Ids, int64 or str, and numbers by column, NaN for null; raises `ObjectListError` as `read_table` does."""
    table = read_table(path, columns=[id_column, *columns])
    ids = _ids(path, table.column(id_column), id_column)
    if ids.null_count:
        raise ObjectListError(f"{path}: column {id_column}: {ids.null_count} rows have no id")
    numbers = {name: _numbers(path, table.column(name), name=name, expected="numbers") for name in columns}
    return ids.to_numpy(zero_copy_only=False), numbers


def write_parquet(path: str, table: pa.Table) -> None:
    """Write a Parquet file, whole or not at all; raises as `storage.publish` does."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    storage.publish(path, buffer.getvalue())


def write_table(path: str, table: pa.Table) -> None:
    """Write a table in the format of its suffix: ``.parquet``, ``.csv``, ``.fits``, ``.vot`` or ``.xml``.

    The field metadata ``unit`` and ``description`` become those of the FITS and VOTable columns.

    Raises
    ------
    OutputError
        Another suffix; no space, or no permission.
    """
    check_suffix(path)
    buffer = io.BytesIO()
    if path.endswith(".parquet"):
        pq.write_table(table, buffer)
    elif path.endswith(".csv"):
        pyarrow.csv.write_csv(table, buffer)
    else:
        _astropy_table(table).write(buffer, format="fits" if path.endswith(".fits") else "votable")
    storage.publish(path, buffer.getvalue())


def check_suffix(path: str) -> None:
    """Refuse the name of a table that `write_table` could not write.

    Raises
    ------
    OutputError
        Its suffix is not known.
    """
    if not path.endswith(WRITTEN):
        raise OutputError(f"{path}: unknown kind of table; known are {', '.join(WRITTEN)}")


def _astropy_table(table: pa.Table) -> Table:
    result = Table()
    for field in table.schema:
        column = table.column(field.name).combine_chunks()
        mask = np.asarray(pc.is_null(column))
        if pa.types.is_string(field.type):
            values = np.array([value or "" for value in column.to_pylist()], dtype=np.str_)
        else:
            values = column.fill_null(0).to_numpy(zero_copy_only=False)
        metadata = field.metadata or {}
        result[field.name] = MaskedColumn(values, mask=mask) if mask.any() else Column(values)
        result[field.name].unit = metadata.get(b"unit", b"").decode() or None
        result[field.name].description = metadata.get(b"description", b"").decode() or None
    return result


# --- object lists ----------------------------------------------------------------------------------------


def read_objects(
    objects: ObjectsConfig, *, also: Sequence[str] = (), inputs: Sequence[str] = ()
) -> tuple[ObjectTable, pa.Table]:
    """Read and check the object list.

    Parameters
    ----------
    objects : ObjectsConfig
        Where it is and what its columns mean. With ``invalid = "drop"`` rows that cannot be used are left
        out: those without id or position, and all but the first row of an id among the others.
    also : sequence of str
        Columns wanted in `kept` besides ``objects.keep``.
    inputs : sequence of str
        Columns that networks take.

    Returns
    -------
    table : ObjectTable
        Sorted by (healpix_29, object_id); RA wrapped into [0, 360); `kept` holds ``objects.keep`` and `also`,
        `psf_fwhm_arcsec` the columns of ``objects.psf_fwhm_arcsec``, `inputs` those of `inputs`.
    rejected : pyarrow.Table
        Rows left out: object_id, ra_deg, dec_deg (as found, null where missing) and reason, in the
        order of the list.

    Raises
    ------
    ObjectListError
        No such file or column; ids that are no integers or text; no objects; with ``invalid = "refuse"``
        any row that cannot be used, with their count and the first five.
    ConfigError
        A kept column has the name of one of the catalog's own.
    """
    keep = kept_names(objects, also)
    wanted = [objects.id, objects.ra, objects.dec, *keep, *objects.psf_fwhm_arcsec.values(), *inputs]
    table = read_table(objects.path, columns=list(dict.fromkeys(wanted)))
    if len(table) == 0:
        raise ObjectListError(f"{objects.path}: holds no objects")
    listed = examine(objects.path, table, objects=objects)
    rejected = listed.filter(pc.is_valid(listed.column("reason")))
    refuse_rejected(objects, n_rows=len(table), rejected=rejected)
    psf = psf_widths(objects.path, table, objects=objects)
    numbers = input_columns(objects.path, table, names=inputs)
    return sorted_objects(listed, table.select(keep), psf=psf, inputs=numbers), rejected


def examine(path: str, table: pa.Table, *, objects: ObjectsConfig) -> pa.Table:
    """Ids and positions of a list's rows, and why a row cannot be used.

    Returns
    -------
    object_id (int64 or text), ra_deg, dec_deg (float64, as found) and reason (null where the row is usable),
    in the order of the list.

    Raises
    ------
    ObjectListError
        Ids that are no integers or text, positions that are no numbers, or in another unit than degrees;
        `path` is what the message names.
    """
    ids = _ids(path, table.column(objects.id), objects.id)
    ra = _degrees(path, table, objects.ra)
    dec = _degrees(path, table, objects.dec)
    return pa.table({"object_id": ids, "ra_deg": ra, "dec_deg": dec, "reason": _reasons(ids, ra, dec)})


def refuse_rejected(objects: ObjectsConfig, *, n_rows: int, rejected: pa.Table) -> None:
    """Raise ObjectListError if rows were rejected and must not be, or if none is left of `n_rows`."""
    if len(rejected) and objects.invalid == "refuse":
        raise ObjectListError(_refusal(objects.path, n_rows, rejected))
    if len(rejected) == n_rows:
        raise ObjectListError(f"{objects.path}: none of its {n_rows} rows is an object; {_counts(rejected)}")


def kept_names(objects: ObjectsConfig, also: Sequence[str] = ()) -> list[str]:
    """Names of the columns to keep; raises ConfigError where one is that of a column of the catalog."""
    own = {objects.id: "object_id", objects.ra: "ra_deg", objects.dec: "dec_deg"}
    # A column that is in the catalog under its own name already need not be kept twice.
    names = [name for name in dict.fromkeys([*objects.keep, *also]) if own.get(name) != name]
    if clash := [name for name in names if name in RESERVED_COLUMNS]:
        raise ConfigError(
            f"[objects] keep: {', '.join(clash)}: the catalog has a column of its own of that name; "
            "rename it in the object list"
        )
    return names


def _ids(path: str, column: pa.ChunkedArray, name: str) -> pa.Array:
    """Ids as int64 or text, never by way of a float."""
    array = column.combine_chunks()
    if pa.types.is_string(array.type):
        return array
    if pa.types.is_integer(array.type) or (pa.types.is_decimal(array.type) and array.type.scale == 0):
        try:
            return array.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise ObjectListError(
                f"{path}: column {name}: ids must fit 64 bits with sign, or be text: {error}"
            ) from None
    raise ObjectListError(
        f"{path}: column {name} holds {array.type}; ids must be integers or text"
        + (_lost_digits(array) if pa.types.is_floating(array.type) else "")
    )


def _lost_digits(ids: pa.Array) -> str:
    """What came of integers that went through a float64, and what to do."""
    largest = pc.max(pc.abs(ids)).as_py() or 0.0
    if largest > MAX_EXACT_ID:
        return (
            f"; up to {largest:.0f} they are above 2^53, where a float64 has lost digits: get the list again, "
            "with ids as integers or text"
        )
    return "; none is above 2^53, so no digits are lost yet: convert the column to integers (int64)"


def _degrees(path: str, table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """Angles as float64, NaN for null."""
    column, unit = table.column(name), unit_of(table.schema.field(name))
    if unit in OTHER_ANGLES:
        raise ObjectListError(f"{path}: column {name} is in {unit}, expected degrees; convert it")
    return _numbers(path, column, name=name, expected="degrees as numbers; convert it to decimal degrees")


def unit_of(field: pa.Field) -> str:
    """The unit that a column's metadata state; "" if they state none."""
    return str((field.metadata or {}).get(b"unit", b"").decode())


def psf_widths(path: str, table: pa.Table, *, objects: ObjectsConfig) -> dict[str, npt.NDArray[np.float32]]:
    """PSF widths of the list's rows for every band whose column `objects` names; NaN where they are none.

    Raises
    ------
    ObjectListError
        A column holds no numbers.
    """
    widths = {}
    for band, name in objects.psf_fwhm_arcsec.items():
        expected = "PSF widths (FWHM) in arcsec as numbers"
        width = _numbers(path, table.column(name), name=name, expected=expected)
        positive = np.isfinite(width) & (width > 0)
        widths[band] = np.where(positive, width, np.nan).astype(np.float32)
    return widths


def input_columns(path: str, table: pa.Table, *, names: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
    """The columns that networks take, by name, float32; NaN where they hold no number.

    Raises
    ------
    ObjectListError
        A column holds no numbers.
    """
    expected = "numbers, as a network's auxiliary input"
    with np.errstate(over="ignore"):  # beyond float32 they are infinite: no number either
        return {
            name: _numbers(path, table.column(name), name=name, expected=expected).astype(np.float32)
            for name in names
        }


def _numbers(path: str, column: pa.ChunkedArray, *, name: str, expected: str) -> npt.NDArray[np.float64]:
    """A column as float64, NaN for null."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise ObjectListError(f"{path}: column {name} holds {column.type}, expected {expected}")
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _reasons(ids: pa.Array, ra: npt.NDArray[np.float64], dec: npt.NDArray[np.float64]) -> pa.Array:
    """Why each row cannot be used; null where it can."""
    no_id = np.asarray(pc.is_null(ids))
    if pa.types.is_string(ids.type):
        no_id |= np.asarray(pc.equal(ids, "").fill_null(False))
    not_finite = ~(np.isfinite(ra) & np.isfinite(dec))
    outside = ~not_finite & (np.abs(np.nan_to_num(dec)) > 90.0)
    usable = ~(no_id | not_finite | outside)
    index = np.flatnonzero(usable)
    repeated = np.zeros(len(ids), dtype=np.bool_)
    repeated[index] = _repeated(ids.filter(pa.array(usable)))
    # Codes, not text, until Arrow has them: 10 million rows of numpy's text take a GB.
    code = np.select([no_id, not_finite, outside, repeated], range(len(REASONS)), default=-1).astype(np.int8)
    codes = pa.array(code, mask=code < 0)
    return pa.DictionaryArray.from_arrays(codes, pa.array(REASONS)).cast(pa.string())


def _repeated(ids: pa.Array) -> npt.NDArray[np.bool_]:
    """Whether an id stands in an earlier row."""
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


def _counts(rejected: pa.Table) -> str:
    counted = rejected.group_by("reason", use_threads=False).aggregate([([], "count_all")]).to_pylist()
    return ", ".join(f"{row['count_all']} x {row['reason']}" for row in counted)


def _refusal(path: str, n_rows: int, rejected: pa.Table) -> str:
    first = "\n".join(
        f"  id {row['object_id']}, ra {row['ra_deg']}, dec {row['dec_deg']}: {row['reason']}"
        for row in rejected.slice(0, 5).to_pylist()
    )
    return (
        f"{path}: {len(rejected)} of {n_rows} rows cannot be used ({_counts(rejected)}); the first:\n{first}\n"
        'correct them, or set [objects] invalid = "drop" to leave them out and list them in rejected.parquet'
    )


def sorted_objects(
    listed: pa.Table,
    kept: pa.Table,
    *,
    psf: Mapping[str, npt.NDArray[np.float32]],
    inputs: Mapping[str, npt.NDArray[np.float32]],
) -> ObjectTable:
    """The usable rows of `listed`, as `examine` makes it, with their rows of the others, as an object table."""
    good = pc.is_null(listed.column("reason"))
    usable = np.flatnonzero(good)
    listed, kept = listed.filter(good), kept.filter(good)
    ra = np.mod(listed.column("ra_deg").to_numpy(), 360.0)
    ra[ra == 360.0] = 0.0  # what mod makes of -1e-20
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
    """What sorts by index, then id. Few indices are equal: only their rows are compared by id."""
    rank = np.argsort(index, kind="stable")
    same = index[rank[1:]] == index[rank[:-1]]
    tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    if len(tied):
        rows = rank[tied]
        keys = pa.table({"healpix": index[rows], "id": ids.take(pa.array(rows))})
        order = pc.sort_indices(keys, sort_keys=[("healpix", "ascending"), ("id", "ascending")])
        rank[tied] = rows[order.to_numpy()]
    return rank


# --- selections ------------------------------------------------------------------------------------------

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
_LOGIC: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.And: pc.and_kleene,
    ast.Or: pc.or_kleene,
    ast.BitAnd: pc.and_kleene,
    ast.BitOr: pc.or_kleene,
}


def select(objects: ObjectTable, where: str | None) -> npt.NDArray[np.bool_]:
    """Which objects an expression is true for.

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
        tree = ast.parse(re.sub(r"`([^`]+)`", _quoted, where.strip()), mode="eval")
        result = _Expression(objects, where).value(tree.body)
    except SyntaxError as error:
        raise ConfigError(f"where = {where!r}: is no expression: {error}") from None
    except (pa.ArrowNotImplementedError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"where = {where!r}: unlike kinds are compared: {error}") from None
    if not isinstance(result, pa.Array) or not pa.types.is_boolean(result.type):
        raise ConfigError(f"where = {where!r}: is not true or false; compare a column, as in z_best < 0.25")
    return np.asarray(result.fill_null(False).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _quoted(match: re.Match[str]) -> str:
    return "_quoted_" + match[1].encode().hex()


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

    def value(self, node: ast.AST) -> Any:
        """Value of a node: a pyarrow array, or a Python number, text or list."""
        evaluate = {
            ast.Name: self._column,
            ast.Constant: self._constant,
            ast.List: self._list,
            ast.Tuple: self._list,
            ast.UnaryOp: self._unary,
            ast.BinOp: self._binary,
            ast.BoolOp: self._bool,
            ast.Compare: self._compare,
        }.get(type(node))
        if evaluate is None:
            raise ConfigError(
                f"where = {self.where!r}: {ast.unparse(node)} is not allowed; compare columns only"
            )
        return evaluate(node)

    def _column(self, node: Any) -> pa.Array:
        name = bytes.fromhex(node.id[8:]).decode() if node.id.startswith("_quoted_") else node.id
        if name not in self.columns:
            near = difflib.get_close_matches(name, self.columns, n=1)
            raise ConfigError(
                f"where = {self.where!r}: no column {name}"
                + (f"; did you mean {near[0]}?" if near else "")
                + f"; known are {', '.join(self.columns)} ([objects] keep adds more)"
            )
        column = self.columns[name]
        return _nan_is_null(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)

    def _constant(self, node: Any) -> Any:
        if not isinstance(node.value, bool | int | float | str):
            raise ConfigError(f"where = {self.where!r}: {node.value!r} is not allowed; write numbers or text")
        return node.value

    def _list(self, node: Any) -> list[Any]:
        return [self.value(item) for item in node.elts]

    def _unary(self, node: Any) -> Any:
        value = self.value(node.operand)
        if isinstance(node.op, ast.USub):
            return pc.negate(value) if isinstance(value, pa.Array | pa.Scalar) else -value
        if isinstance(node.op, ast.UAdd):
            return value
        return pc.invert(value)

    def _binary(self, node: Any) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if type(node.op) in _LOGIC:
            return _LOGIC[type(node.op)](left, right)
        if type(node.op) not in _ARITHMETIC:
            raise ConfigError(f"where = {self.where!r}: this operator is not allowed; known are + - * / **")
        # Floats throughout: Arrow divides integers to integers.
        return _nan_is_null(_ARITHMETIC[type(node.op)](_as_float(left), _as_float(right)))

    def _bool(self, node: Any) -> Any:
        values = [self.value(item) for item in node.values]
        result = values[0]
        for value in values[1:]:
            result = _LOGIC[type(node.op)](result, value)
        return result

    def _compare(self, node: Any) -> Any:
        values = [self.value(item) for item in (node.left, *node.comparators)]
        result = None
        for step, left, right in zip(node.ops, values[:-1], values[1:], strict=True):
            true = self._compared(step, left, right)
            result = true if result is None else pc.and_kleene(result, true)
        return result

    def _compared(self, step: ast.cmpop, left: Any, right: Any) -> Any:
        if isinstance(step, ast.In | ast.NotIn) and isinstance(right, list):
            found = pc.is_in(left, value_set=pa.array(right))
            found = pc.if_else(pc.is_null(left), pa.scalar(None, pa.bool_()), found)
            return found if isinstance(step, ast.In) else pc.invert(found)
        if type(step) not in _COMPARE:
            raise ConfigError(
                f"where = {self.where!r}: this comparison is not allowed; known are < <= > >= == != in"
            )
        return _COMPARE[type(step)](left, right)


def _as_float(value: Any) -> Any:
    return value.cast(pa.float64()) if isinstance(value, pa.Array | pa.Scalar) else float(value)


def _nan_is_null(value: Any) -> Any:
    if isinstance(value, pa.Array) and pa.types.is_floating(value.type):
        return pc.if_else(pc.is_nan(value), pa.scalar(None, value.type), value)
    return value

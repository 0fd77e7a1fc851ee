"""HDF5 files as tables: datasets of one length are the columns, as GalaxiesML has them beside its images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Column, Table
from astropy.table.meta import get_header_from_yaml

from galbatch import storage
from galbatch.core.process import OptionalPackage, require
from galbatch.errors import ObjectListError
from galbatch.objects.tables.columns import existing_columns, what_it_is
from galbatch.objects.tables.units import UNIT_ATTRIBUTES

h5py = OptionalPackage("h5py")

__all__ = ["HDF5_SUFFIXES", "hdf5_names", "read_hdf5"]

HDF5_SUFFIXES = tuple(f"{name}{zipped}" for name in (".h5", ".hdf5") for zipped in ("", ".gz"))

ASTROPY_META = ".__table_column_meta__"
"""Ending of the dataset in which astropy keeps the units of a table that it writes beside it, as YAML."""


def hdf5_names(path: str, hdu: int | str | None) -> list[str]:
    """Return the names of a file's columns, images among them; raises as `read_hdf5` does."""
    with _opened(path) as file:
        return list(_columns(path, file, hdu))


def read_hdf5(path: str, columns: Sequence[str] | None, hdu: int | str | None) -> Table:
    """Return columns of an HDF5 file as an astropy table, with units where an attribute of the dataset states one.

    A column is a dataset (row,) or (row, element) at the file's top or in the group `hdu`, or a field of a dataset of records,
    as astropy and PyTables write them. `columns` None means all of them; images and other arrays are left out then.

    Raises
    ------
    ObjectListError
        It is no HDF5 file or is damaged; there is no such group; a column is missing, a group or an array of more than two
        axes; or columns differ in length.
    """
    with _opened(path) as file:
        found = _columns(path, file, hdu)
        place = file if hdu is None else file[str(hdu)]
        for name in columns or ():
            if name not in found and _is_group(place) and name in place and _is_group(place[name]):
                raise ObjectListError(
                    f"{path}: {name} is a group, expected a column: name a dataset, or set [objects] hdu to read those of a group"
                )
        chosen = existing_columns(path, list(found), columns)
        if columns is None:
            chosen = [name for name in chosen if len(found[name].shape) <= 2]
        _require_columns(path, {name: found[name] for name in chosen})
        return Table({name: found[name].read() for name in chosen})


@dataclass(frozen=True, slots=True)
class _Source:
    """A column's place: a dataset, or a field of a dataset of records."""

    dataset: Any
    field: str = ""
    stated: Mapping[str, Any] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        inner = self.dataset.dtype[self.field].shape if self.field else ()
        return tuple(self.dataset.shape) + tuple(inner)

    def read(self) -> Column:
        if self.field:
            values = self.dataset.fields(self.field)[...]
        else:
            is_text = h5py.check_string_dtype(self.dataset.dtype) is not None
            values = self.dataset.asstr()[...] if is_text else self.dataset[...]
        attributes = dict(self.dataset.attrs) if self.stated is None else self.stated
        unit = next((attributes[key] for key in UNIT_ATTRIBUTES if key in attributes), None)
        unit = unit.decode() if isinstance(unit, bytes) else unit
        # A unit that astropy does not know stays as text, for `examine` to judge.
        return Column(np.asarray(values), unit=str(unit) if unit is not None else None)


def _columns(path: str, file: Any, hdu: int | str | None) -> dict[str, _Source]:
    """Return the columns of the file's top, or of the group or dataset `hdu`, by name."""
    place = file if hdu is None else file.get(str(hdu))
    if place is None:
        raise ObjectListError(
            f"{path}: hdu = {hdu!r} is no group or dataset of the file; there are {_listed(file)}"
        )
    if not _is_group(place):
        return _of_records(path, place)
    datasets = {
        name: item
        for name, item in place.items()
        if not _is_group(item) and item.shape and not name.endswith(ASTROPY_META)
    }
    records = [item for item in datasets.values() if item.dtype.names]
    if len(records) == 1 and len(datasets) == 1:
        return _of_records(path, records[0])
    if not datasets:
        raise ObjectListError(
            f"{path}: has no datasets of rows{'' if hdu is None else f' in {hdu}'}; there are {_listed(place)}; set [objects] hdu to the group "
            "or dataset that is the table (files that pandas wrote with to_hdf: write them as Parquet)"
        )
    return {name: _Source(item) for name, item in datasets.items() if not item.dtype.names}


def _of_records(path: str, dataset: Any) -> dict[str, _Source]:
    """Return the fields of a dataset of records, with the units that astropy writes beside it."""
    if not dataset.dtype.names:
        raise ObjectListError(
            f"{path}: {dataset.name} is one array {dataset.shape}, expected a table: a group of datasets, or a dataset of records"
        )
    meta = dataset.file.get(f"{dataset.name}{ASTROPY_META}")
    lines = [] if meta is None else [line.decode() for line in meta[...]]
    described = get_header_from_yaml(lines).get("datatype", []) if lines else []
    stated = {column["name"]: column for column in described}
    return {name: _Source(dataset, name, stated.get(name, {})) for name in dataset.dtype.names}


def _require_columns(path: str, chosen: Mapping[str, _Source]) -> None:
    """Raise unless datasets are columns of one table."""
    for name, source in chosen.items():
        if len(source.shape) > 2:
            raise ObjectListError(
                f"{path}: {name} is an array {source.shape}, expected numbers (row,) or lists (row, element); layouts galaxiesml "
                "and multimodaluniverse read images"
            )
    lengths = {name: source.shape[0] for name, source in chosen.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} ({n} rows)" for name, n in lengths.items())
        raise ObjectListError(f"{path}: columns differ in length: {shown}; they are no columns of one table")


def _is_group(item: Any) -> bool:
    # Of h5py's own classes only datasets have a type; the package is imported by nobody who opens no such file.
    return not hasattr(item, "dtype")


def _listed(place: Any) -> str:
    """Return what stands in a group, for an error message."""
    kinds = [f"{name} (group)" if _is_group(item) else f"{name} {item.shape}" for name, item in place.items()]
    return ", ".join(kinds[:40]) or "none"


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Open an HDF5 file, also packed and on S3, and turn what h5py raises over damaged bytes into an ObjectListError."""
    # Refused here, as the errors below would hide the path.
    require("h5py", where=path)
    content = storage.open_content(path)
    try:
        with content.file, h5py.File(content.file, "r") as file:
            yield file
    # h5py raises OSError without a number for bytes that are damaged, and RuntimeError for some.
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ObjectListError(
            f"{path}: is no HDF5 file, or is damaged or truncated ({' '.join(str(error).split())}){what_it_is(path)}; fetch it again"
        ) from None

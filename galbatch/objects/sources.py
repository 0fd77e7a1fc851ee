"""The sources of a run's objects: a list in one file, which fits in memory, or a HATS catalog read pixel by pixel.

Both give their objects along HEALPix in **chunks** that fit in memory: a list is one chunk, a HATS catalog one
for each of its pixels. Memory is bounded by the largest chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import pyarrow as pa

from galbatch import storage
from galbatch.config import ObjectsConfig
from galbatch.core.columns import RESERVED_COLUMNS, excluded_values
from galbatch.core.types import ObjectTable
from galbatch.errors import ObjectListError
from galbatch.objects.hats import HATS_ENTRIES, first_leaf, open_hats, read_properties
from galbatch.objects.reading import InputColumns, read_objects
from galbatch.objects.region import Region
from galbatch.objects.rows import ListCounts
from galbatch.objects.tables import TABLE_SUFFIXES, column_names, parquet_files

__all__ = ["ListSource", "ObjectSource", "is_hats", "open_objects"]

WHOLE_SKY = (0, 12 << 58)
"""All indices of order 29."""

COLLECTION = "collection.properties"


class ObjectSource(Protocol):
    """Objects along HEALPix, in chunks that fit in memory."""

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Half-open range of healpix_29 of each chunk; rising, disjoint."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of objects in each chunk."""

    @property
    def listed(self) -> ListCounts:
        """Numbers of rows in the list, in ``[objects] region`` and chosen by ``[objects] where``."""

    @property
    def rejected(self) -> pa.Table:
        """Rows left out: object_id, ra_deg, dec_deg and reason."""

    def read(self, chunk: int) -> ObjectTable:
        """Read the objects of a chunk."""


@dataclass(frozen=True)
class ListSource:
    """Objects that are in memory: one chunk."""

    objects: ObjectTable
    rejected: pa.Table
    listed: ListCounts

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        return (WHOLE_SKY,)

    @property
    def counts(self) -> tuple[int, ...]:
        return (len(self.objects),)

    def read(self, chunk: int) -> ObjectTable:
        return self.objects


def open_objects(
    objects: ObjectsConfig, *, inputs: InputColumns = MappingProxyType({}), region: Region | None = None
) -> ObjectSource:
    """Open the source for ``[objects]`` and check all of it, so that what is wrong is found before any work.

    Parameters
    ----------
    inputs : InputColumns
        Columns that are auxiliary inputs of networks.
    region : Region or None
        The region that ``[objects] region`` names; None: it is made here, unless it is one of tracts.

    Raises
    ------
    ObjectListError, ConfigError
        As `read_objects`; or a HATS catalog is not whole, or not partitioned by these positions.
    """
    if objects.path.lower().endswith(TABLE_SUFFIXES):
        objects = _keeping_primary(objects, column_names(objects.path, hdu=objects.hdu))
        return ListSource(*read_objects(objects, inputs=inputs, region=region))
    if is_hats(objects.path):
        names = column_names(first_leaf(objects.path))
        return open_hats(_keeping_primary(objects, names), inputs, region)
    hint = ""
    collection = storage.join(objects.path, COLLECTION)
    if storage.exists(collection):
        table = read_properties(collection).get("hats_primary_table_url", "the table's folder")
        hint = f"; it is a HATS collection: give {storage.join(objects.path, table)}"
    elif parquet_files(objects.path):
        objects = _keeping_primary(objects, column_names(objects.path))
        return ListSource(*read_objects(objects, inputs=inputs, region=region))
    raise ObjectListError(
        f"{objects.path}: is neither a table ({', '.join(TABLE_SUFFIXES)}) nor the folder of a HATS catalog "
        f"(none of {', '.join(HATS_ENTRIES)} is there){hint}"
    )


def _keeping_primary(objects: ObjectsConfig, names: Sequence[str]) -> ObjectsConfig:
    """Return ``[objects]`` that also keeps the columns by which the default cut leaves rows out."""
    own = {objects.id, objects.ra, objects.dec, *RESERVED_COLUMNS}
    also = [name for name in excluded_values(names) if name not in own]
    return objects.model_copy(update={"keep": tuple(dict.fromkeys([*objects.keep, *also]))})


def is_hats(path: str) -> bool:
    """Return whether `path` is a HATS catalog."""
    if path.lower().endswith(TABLE_SUFFIXES):
        return False
    return any(storage.exists(storage.join(path, name)) for name in HATS_ENTRIES)

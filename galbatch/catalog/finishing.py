"""Finishing a catalog: the HATS metadata are made from the leaves and written next to them, the properties last."""

from __future__ import annotations

import datetime
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from galbatch import __version__, storage
from galbatch.catalog import layout
from galbatch.catalog.checksums import add_missing_checksums
from galbatch.catalog.leaves import footer_of, read_leaf, read_leaf_metadata
from galbatch.catalog.schema import schema_difference
from galbatch.core import sky
from galbatch.core.columns import DEC, HEALPIX, RA
from galbatch.core.pixels import HEALPIX_ORDER, HealpixPixel, Partition
from galbatch.errors import CatalogError
from galbatch.objects import reader_metadata

__all__ = ["finish", "model_property", "read_properties"]

# hats is imported inside functions: it takes two seconds and imports pyplot, which workers do not need.

MAX_LEAVES_WITH_METADATA = 10_000
"""With more leaves ``_metadata`` is not written, because readers load the whole file. LSDB works without it."""

SKYMAP_ORDER = 8
"""HEALPix order of the sky map, whose pixels are 14 arcmin wide."""

FOOTER_THREADS = 16
"""Number of footers read at the same time: on S3 each takes 50 ms, most of it waiting for the network."""


def model_property(what: Literal["audit", "engine", "bundle"], model: str = "") -> str:
    """Return the name of a catalog property about one model; without a model, the prefix that such names have.

    Parameters
    ----------
    what : {"audit", "engine", "bundle"}
        Result of the audit of adaptive passes, engine that ran the network, or sha256 of its bundles.
    model : str
        Name of the model, as in ``[[models]] name``.
    """
    return f"galbatch_{what}_{model}"


@dataclass(frozen=True)
class _Leaf:
    """A leaf, with the metadata in the footer of its Parquet file."""

    pixel: HealpixPixel
    metadata: pq.FileMetaData
    size_bytes: int

    @property
    def path(self) -> str:
        """Path relative to ``dataset/``, in the form in which ``_metadata`` refers to files."""
        return layout.leaf_path("", self.pixel).removeprefix(f"/{layout.DATASET}/")


def finish(
    catalog_path: str,
    *,
    partitions: Sequence[Partition],
    properties: dict[str, str],
    n_rows_expected: int,
    added_up: Callable[[Sequence[dict[str, str]]], Mapping[str, str]] | None = None,
) -> int:
    """Write the HATS metadata of a catalog from its leaves. Repeated calls write the same files except for dates.

    Old properties are deleted first and new ones written last, so that a catalog which can be opened is complete.

    Parameters
    ----------
    catalog_path : str
        Local or S3.
    partitions : sequence of Partition
        All partitions of the run. If some have no leaf because they failed, the property ``galbatch_complete`` is false.
    properties : dict of str
        Properties to add to those that HATS defines, such as ``galbatch_seed``.
    n_rows_expected : int
        Total number of rows that the leaves must have.
    added_up : callable or None
        Computes further properties from the footers of all leaves, each a dict as given to `write_leaf`.

    Returns
    -------
    int
        Number of rows in the catalog.

    Raises
    ------
    CatalogError
        There is no leaf, a leaf is not one of `partitions`, schemas differ, or the number of rows is not the expected
        one. The catalog then has no properties and cannot be opened.
    OutputError
        There is no space, or no permission to write.
    """
    for name in layout.PROPERTIES[::-1]:
        storage.remove(storage.join(catalog_path, name))
    leaves = _read_leaves(catalog_path, partitions)
    add_missing_checksums(catalog_path, [leaf.pixel for leaf in leaves])
    n_rows = sum(int(leaf.metadata.num_rows) for leaf in leaves)
    if n_rows != n_rows_expected:
        raise CatalogError(f"{catalog_path}: its leaves hold {n_rows} rows, expected {n_rows_expected}")
    complete = len(leaves) == len(partitions)
    # Later entries win: a caller may not declare a catalog complete that lacks leaves.
    own = {"obs_collection": "galbatch", "galbatch_complete": "true"} | properties
    own |= {} if complete else {"galbatch_complete": "false"}
    own |= {} if added_up is None else added_up([footer_of(leaf.metadata) for leaf in leaves])
    _write_metadata(catalog_path, leaves)
    _write_with_hats(catalog_path, leaves, own)
    storage.remove(storage.join(catalog_path, layout.STAGING))
    return n_rows


def read_properties(catalog_path: str) -> dict[str, str]:
    """Return the catalog's properties as text: those that HATS defines, and galbatch's own.

    Raises
    ------
    CatalogError
        There are none, because the catalog is not finished or the folder is not a catalog; or they are not valid.
    """
    from hats.catalog import TableProperties

    try:
        found = TableProperties.read_from_dir(layout.hats_path(catalog_path))
    except FileNotFoundError:
        raise CatalogError(
            f"{catalog_path}: no hats.properties: no catalog, or one that is not finished; galbatch run finishes it"
        ) from None
    except ValueError as error:
        raise CatalogError(f"{catalog_path}: hats.properties is not valid: {error}") from error
    return {key: str(value) for key, value in found.model_dump(by_alias=True, exclude_none=True).items()}


def _read_leaves(catalog_path: str, partitions: Sequence[Partition]) -> list[_Leaf]:
    """Read the footers of all leaves, sorted as their rows are (by HEALPix index at order 29)."""
    pixels = layout.list_leaves(catalog_path)
    if not pixels:
        raise CatalogError(
            f"{catalog_path}: no leaf found, so there is no catalog to finish; no partition was finished"
        )
    known = {partition.pixel for partition in partitions}
    if foreign := [pixel for pixel in pixels if pixel not in known]:
        raise CatalogError(
            f"{catalog_path}: {len(foreign)} leaves do not belong to the partitions of this run, the first "
            f"{foreign[0].name}; choose another [catalog] path, or run galbatch clean"
        )

    def read(pixel: HealpixPixel) -> _Leaf:
        return _Leaf(pixel, *read_leaf_metadata(layout.leaf_path(catalog_path, pixel)))

    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        return list(pool.map(read, sorted(pixels, key=attrgetter("index_range"))))


def _publish(catalog_path: str, name: str, data: bytes) -> None:
    path = storage.join(catalog_path, name)
    storage.publish(path, data, staging=storage.join(catalog_path, layout.STAGING))


def _write_metadata(catalog_path: str, leaves: list[_Leaf]) -> None:
    """Write ``_common_metadata`` (the schema, and the VOTable that describes it) and, unless there are too many leaves, ``_metadata``."""
    schema = leaves[0].metadata.schema.to_arrow_schema()
    for leaf in leaves[1:]:
        if difference := schema_difference(leaf.metadata.schema.to_arrow_schema(), schema):
            raise CatalogError(
                f"{catalog_path}: leaf {leaf.pixel.name} differs from "
                f"{leaves[0].pixel.name}: {difference}; remove the wrong one and run again"
            )
    schema = schema.with_metadata(reader_metadata(schema.empty_table()))
    collected = {layout.COMMON_METADATA: list[pq.FileMetaData]()}
    if len(leaves) > MAX_LEAVES_WITH_METADATA:
        storage.remove(storage.join(catalog_path, layout.METADATA))
    else:
        for leaf in leaves:
            # Readers of _metadata find the rows by this path; in a leaf's own footer it is empty.
            leaf.metadata.set_file_path(leaf.path)
        collected[layout.METADATA] = [leaf.metadata for leaf in leaves]
    for name, metadata in collected.items():
        buffer = io.BytesIO()
        pq.write_metadata(schema, buffer, metadata_collector=metadata)
        _publish(catalog_path, name, buffer.getvalue())


def _write_with_hats(catalog_path: str, leaves: list[_Leaf], properties: dict[str, str]) -> None:
    """Let hats write partition_info.csv, the sky maps and the properties into a local folder, and publish them from there."""
    from hats.catalog import PartitionInfo, TableProperties
    from hats.io.skymap import write_skymap
    from hats.pixel_math import HealpixPixel as HatsPixel

    counts = _rows_on_the_sky(catalog_path, leaves)
    with tempfile.TemporaryDirectory() as folder:
        info = PartitionInfo.from_healpix(
            [HatsPixel(leaf.pixel.healpix_order, leaf.pixel.healpix_pixel) for leaf in leaves]
        )
        info.write_to_file(catalog_path=folder)
        write_skymap(counts, folder)
        values = {**_hats_properties(leaves, counts), **properties}
        TableProperties(**values).to_properties_file(folder)
        _publish(catalog_path, layout.PARTITION_INFO, Path(folder, layout.PARTITION_INFO).read_bytes())
        # hats has two names for this map. Both are written, so that readers of either find it.
        for name in (layout.SKYMAP, layout.POINT_MAP):
            _publish(catalog_path, name, Path(folder, layout.SKYMAP).read_bytes())
        for name in layout.PROPERTIES:
            _publish(catalog_path, name, Path(folder, name).read_bytes())


def _hats_properties(leaves: list[_Leaf], counts: npt.NDArray[np.int64]) -> dict[str, str]:
    """Return the properties that HATS defines, from the leaves and the rows (pixel,) in each pixel of the sky map."""
    now = datetime.datetime.now(tz=datetime.UTC)
    values = {
        "dataproduct_type": "object",
        "hats_nrows": sum(leaf.metadata.num_rows for leaf in leaves),
        "hats_col_ra": RA.name,
        "hats_col_dec": DEC.name,
        "hats_col_healpix": HEALPIX.name,
        "hats_col_healpix_order": HEALPIX_ORDER,
        "hats_npix_suffix": ".parquet",
        "hats_skymap_order": SKYMAP_ORDER,
        "hats_max_rows": max(leaf.metadata.num_rows for leaf in leaves),
        "hats_order": max(leaf.pixel.healpix_order for leaf in leaves),
        "moc_sky_fraction": f"{np.mean(counts > 0):.5g}",
        "hats_builder": f"galbatch v{__version__}, hats v{version('hats')}",
        "hats_creation_date": now.strftime("%Y-%m-%dT%H:%MUTC"),
        # HATS gives the size in KiB.
        "hats_estsize": sum(leaf.size_bytes for leaf in leaves) // 1024,
        "hats_release_date": "2025-08-22",
        "hats_version": "v1.0",
    }
    return {key: str(value) for key, value in values.items()}


def _rows_on_the_sky(catalog_path: str, leaves: list[_Leaf]) -> npt.NDArray[np.int64]:
    """Return the number of rows (pixel,), int64, in each pixel of the sky map.

    Rows are read only from leaves larger than a pixel of the map.
    """
    counts = np.zeros(12 * 4**SKYMAP_ORDER, dtype=np.int64)
    for leaf in leaves:
        healpix_order, pixel = leaf.pixel.healpix_order, leaf.pixel.healpix_pixel
        if healpix_order >= SKYMAP_ORDER:
            # The whole leaf lies in one pixel: two bits of its number go with each order.
            counts[pixel >> 2 * (healpix_order - SKYMAP_ORDER)] += leaf.metadata.num_rows
        else:
            table = read_leaf(layout.leaf_path(catalog_path, leaf.pixel), columns=[HEALPIX.name])
            pixels = sky.pixel_of(table.column(HEALPIX.name).to_numpy(), SKYMAP_ORDER)
            # Not counts[pixels] += 1, which would count a pixel once however often it occurs.
            np.add.at(counts, pixels, 1)
    return counts

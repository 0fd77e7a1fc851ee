"""Finishing a catalog: the HATS metadata are made from the leaves and written next to them, the properties last."""

from __future__ import annotations

import datetime
import io
import posixpath
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from galbatch import __version__, objects, storage
from galbatch.catalog import layout
from galbatch.catalog.checksums import add_missing_checksums
from galbatch.catalog.evidence import evidence_property
from galbatch.catalog.leaves import footer_of, read_leaf, read_leaf_schema
from galbatch.catalog.schema import default_columns, schema_difference
from galbatch.core import sky
from galbatch.core.columns import DEC, HEALPIX, RA, model_of_network
from galbatch.core.pixels import HEALPIX_ORDER, HealpixPixel, Partition
from galbatch.core.prefetch import map_in_threads
from galbatch.errors import CatalogError
from galbatch.objects import reader_metadata

__all__ = [
    "STORE_PROPERTY",
    "FooterSum",
    "doubts",
    "finish",
    "model_property",
    "networks_of",
    "read_properties",
    "stated_store",
    "store_property",
    "trained_property",
    "trained_ranges",
]

# hats is imported inside functions: it takes two seconds and imports pyplot, which workers do not need.

MAX_ROW_GROUPS_WITH_METADATA = 2_500
"""With more row groups in all leaves ``_metadata`` is not written: it takes 230 kB for each of memory here and in its readers. LSDB works without it."""

SKYMAP_ORDER = 8
"""HEALPix order of the sky map, whose pixels are 14 arcmin wide."""

LEAF_THREADS = 16
"""Number of leaves read at the same time: on S3 a footer takes 50 ms, most of it waiting for the network."""


STORE_PROPERTY = "galbatch_store"
"""Property with the path of the cutout store from the catalog's own folder, so that both can be moved together."""


def store_property(catalog_path: str, store_path: str) -> dict[str, str]:
    """Return the property that states the cutout store: its path from the catalog's folder, or its own path or URL where none leads there."""
    ours, theirs = (storage.absolute(path).rstrip("/") for path in (catalog_path, store_path))
    # s3://bucket/a/catalog: the scheme, nothing, the bucket, and then what a path can be relative to.
    root_of_ours, root_of_theirs = (
        path.split("/")[:3] if "://" in path else ["/"] for path in (ours, theirs)
    )
    is_near = root_of_ours == root_of_theirs
    return {STORE_PROPERTY: posixpath.relpath(theirs, ours) if is_near else theirs}


def stated_store(catalog_path: str) -> str | None:
    """Return the path of the cutout store that the catalog's properties state; None if they state none, or the catalog is not finished."""
    file = storage.join(catalog_path, layout.PROPERTIES[-1])
    # Not by hats, whose import takes longer than all else that shows one object.
    stated = objects.read_properties(file).get(STORE_PROPERTY) if storage.exists(file) else None
    if stated is None:
        return None
    # A URL, or a path on a disk of a catalog that is on none.
    if "://" in stated or posixpath.isabs(stated):
        return stated
    scheme, slashes, path = catalog_path.rpartition("://")
    return f"{scheme}{slashes}{posixpath.normpath(posixpath.join(path.rstrip('/'), stated))}"


def trained_property(model: str, ranges: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """Return the property with the ranges of a model's quantities in training: ``bt 0 1, re_arcsec 0.1 12``; empty without ranges."""
    text = ", ".join(f"{name} {low:.9g} {high:.9g}" for name, (low, high) in ranges.items())
    return {model_property("trained", model): text} if text else {}


def trained_ranges(properties: Mapping[str, str], model: str) -> dict[str, tuple[float, float]]:
    """Return smallest and largest value in training of each quantity of a model, from the catalog's properties; empty if they state none."""
    text = properties.get(model_property("trained", model), "")
    # A merged catalog has several, where its networks of one name differ.
    words = [one.split() for one in text.split(", ") if one] if " | " not in text else []
    return {name: (float(low), float(high)) for name, low, high in words}


def model_property(
    what: Literal["audit", "doubt", "prior", "engine", "bundle", "citation", "trained"], model: str = ""
) -> str:
    """Return the name of a catalog property about one model; without a model, the prefix that such names have.

    Parameters
    ----------
    what : {"audit", "doubt", "prior", "engine", "bundle", "citation", "trained"}
        Result of the audit of adaptive passes, why the errors stated for a model are doubtful, whose prior its posteriors are under, engine that
        ran the network, sha256 of its bundles, what to cite for it, or the ranges of `trained_property`.
    model : str
        Name of the model, as in ``[[models]] name``, with that of a case after a dot.
    """
    return f"galbatch_{what}_{model}"


def networks_of(properties: Mapping[str, str], model: str) -> list[str]:
    """Return the names of a model's networks in a catalog's properties: its own, or those of its cases."""
    prefix = model_property("bundle")
    names = (key.removeprefix(prefix) for key in properties if key.startswith(prefix))
    return [name for name in names if model_of_network(name) == model] or [model]


def doubts(path: str) -> list[str]:
    """Return a line for each model of a catalog whose Monte Carlo errors are larger than stated; empty if there are none."""
    prefix = model_property("doubt")
    return [
        f"{key.removeprefix(prefix)}: {value}"
        for key, value in read_properties(path).items()
        if key.startswith(prefix)
    ]


class FooterSum(Protocol):
    """Adds up what the footers of all leaves hold, one after the other, into properties of the catalog."""

    def add(self, footer: Mapping[str, str]) -> None:
        """Add the footer of a leaf, as it was given to `write_leaf`."""

    @property
    def properties(self) -> Mapping[str, str]:
        """The properties, from all footers that were added."""


@dataclass(frozen=True)
class _Leaf:
    """A leaf that the catalog lists."""

    pixel: HealpixPixel
    n_rows: int
    size_bytes: int


@dataclass(frozen=True)
class _OpenedLeaf:
    """A leaf with all that finishing reads of it.

    Attributes
    ----------
    metadata, schema : the footer of its Parquet file
    map_pixels, map_rows : (pixel of the sky map,) int64, the pixels that it has rows in, and how many
    """

    leaf: _Leaf
    metadata: pq.FileMetaData
    schema: pa.Schema
    map_pixels: npt.NDArray[np.int64]
    map_rows: npt.NDArray[np.int64]

    @classmethod
    def read(cls, catalog_path: str, pixel: HealpixPixel) -> _OpenedLeaf:
        """Read the footer; rows are read only of a leaf that is larger than a pixel of the sky map."""
        path = layout.leaf_path(catalog_path, pixel)
        metadata, schema, size_bytes = read_leaf_schema(path)
        if pixel.healpix_order >= SKYMAP_ORDER:
            # The whole leaf lies in one pixel: two bits of its number go with each order.
            pixels = np.array([pixel.healpix_pixel >> 2 * (pixel.healpix_order - SKYMAP_ORDER)])
            rows = np.array([metadata.num_rows])
        else:
            index = read_leaf(path, columns=[HEALPIX.name]).column(HEALPIX.name).to_numpy()
            pixels, rows = np.unique(sky.pixel_of(index, SKYMAP_ORDER), return_counts=True)
        return cls(_Leaf(pixel, metadata.num_rows, size_bytes), metadata, schema, pixels, rows)


class _Summary:
    """The summary of all leaves, which are added one after the other, so that memory does not grow with their footers.

    Attributes
    ----------
    leaves : the leaves, in the order of their rows (by HEALPix index at order 29)
    rows_on_the_sky : (pixel,) int64, number of rows in each pixel of the sky map
    schema : of the first leaf
    metadata : of all leaves, as ``_metadata`` holds it; None if they have too many row groups for such a file
    """

    def __init__(self, catalog_path: str) -> None:
        self.leaves: list[_Leaf] = []
        self.rows_on_the_sky = np.zeros(12 * 4**SKYMAP_ORDER, dtype=np.int64)
        self.schema: pa.Schema | None = None
        self.metadata: pq.FileMetaData | None = None
        self._catalog_path = catalog_path

    @property
    def n_rows(self) -> int:
        """The number of rows of all leaves."""
        return sum(leaf.n_rows for leaf in self.leaves)

    @property
    def names(self) -> list[str]:
        """The names of all columns."""
        return [] if self.schema is None else list(self.schema.names)

    def add(self, opened: _OpenedLeaf) -> None:
        """Add a leaf.

        Raises
        ------
        CatalogError
            Its schema differs from that of the first leaf.
        """
        schema, pixel = opened.schema, opened.leaf.pixel
        if self.schema is None:
            self.schema = schema.with_metadata(reader_metadata(schema.empty_table()))
            self.metadata = _metadata_without_rows(self.schema)
        elif difference := schema_difference(schema, self.schema):
            raise CatalogError(
                f"{self._catalog_path}: leaf {pixel.name} differs from {self.leaves[0].pixel.name}: {difference}; "
                "remove the wrong one and run again"
            )
        if self.metadata is not None:
            # Readers of _metadata find the rows by this path, relative to dataset/; in a leaf's own footer it is empty.
            path = layout.leaf_path("", pixel).removeprefix(f"/{layout.DATASET}/")
            opened.metadata.set_file_path(path)
            self.metadata.append_row_groups(opened.metadata)
            if self.metadata.num_row_groups > MAX_ROW_GROUPS_WITH_METADATA:
                self.metadata = None
        # Not rows[pixels] += ..: a pixel may hold rows of several leaves, but of one leaf it occurs once.
        self.rows_on_the_sky[opened.map_pixels] += opened.map_rows
        self.leaves.append(opened.leaf)


def _metadata_without_rows(schema: pa.Schema) -> pq.FileMetaData:
    """Return the metadata of a Parquet file with a schema and without rows."""
    buffer = io.BytesIO()
    pq.write_metadata(schema, buffer)
    buffer.seek(0)
    return pq.read_metadata(buffer)


def finish(
    catalog_path: str,
    *,
    partitions: Sequence[Partition],
    properties: dict[str, str],
    n_rows_expected: int,
    footers: FooterSum | None = None,
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
    footers : FooterSum or None
        Adds up further properties from the footers of all leaves.

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
    pixels = _own_leaves(catalog_path, partitions)
    add_missing_checksums(catalog_path, pixels)
    summary = _Summary(catalog_path)
    for opened in map_in_threads(partial(_OpenedLeaf.read, catalog_path), pixels, n_threads=LEAF_THREADS):
        summary.add(opened)
        if footers is not None:
            footers.add(footer_of(opened.metadata))
    n_rows = summary.n_rows
    if n_rows != n_rows_expected:
        raise CatalogError(f"{catalog_path}: its leaves hold {n_rows} rows, expected {n_rows_expected}")
    # Later entries win: a caller may not declare a catalog complete that lacks leaves.
    own = {"obs_collection": "galbatch", "galbatch_complete": "true"} | properties
    own |= {} if len(pixels) == len(partitions) else {"galbatch_complete": "false"}
    own |= {} if footers is None else footers.properties
    own |= evidence_property(catalog_path)
    _write_metadata(catalog_path, summary)
    _write_with_hats(catalog_path, summary, own)
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


def _own_leaves(catalog_path: str, partitions: Sequence[Partition]) -> list[HealpixPixel]:
    """Return the pixels of all leaves, sorted as their rows are (by HEALPix index at order 29)."""
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
    return sorted(pixels, key=attrgetter("index_range"))


def _publish(catalog_path: str, name: str, data: bytes) -> None:
    path = storage.join(catalog_path, name)
    storage.publish(path, data, staging=storage.join(catalog_path, layout.STAGING))


def _write_metadata(catalog_path: str, summary: _Summary) -> None:
    """Write ``_common_metadata`` (the schema, and what describes it to readers) and, unless there are too many leaves, ``_metadata``."""
    buffer = io.BytesIO()
    pq.write_metadata(summary.schema, buffer)
    _publish(catalog_path, layout.COMMON_METADATA, buffer.getvalue())
    if summary.metadata is None:
        storage.remove(storage.join(catalog_path, layout.METADATA))
        return
    buffer = io.BytesIO()
    summary.metadata.write_metadata_file(buffer)
    _publish(catalog_path, layout.METADATA, buffer.getvalue())


def _write_with_hats(catalog_path: str, summary: _Summary, properties: dict[str, str]) -> None:
    """Let hats write partition_info.csv, the sky maps and the properties into a local folder, and publish them from there."""
    from hats.catalog import PartitionInfo, TableProperties
    from hats.io.skymap import write_skymap
    from hats.pixel_math import HealpixPixel as HatsPixel

    with tempfile.TemporaryDirectory() as folder:
        info = PartitionInfo.from_healpix(
            [HatsPixel(leaf.pixel.healpix_order, leaf.pixel.healpix_pixel) for leaf in summary.leaves]
        )
        info.write_to_file(catalog_path=folder)
        write_skymap(summary.rows_on_the_sky, folder)
        values = {**_hats_properties(summary), **properties}
        TableProperties(**values).to_properties_file(folder)
        _publish(catalog_path, layout.PARTITION_INFO, Path(folder, layout.PARTITION_INFO).read_bytes())
        # hats has two names for this map. Both are written, so that readers of either find it.
        for name in (layout.SKYMAP, layout.POINT_MAP):
            _publish(catalog_path, name, Path(folder, layout.SKYMAP).read_bytes())
        for name in layout.PROPERTIES:
            _publish(catalog_path, name, Path(folder, name).read_bytes())


def _hats_properties(summary: _Summary) -> dict[str, str]:
    """Return the properties that HATS defines."""
    now = datetime.datetime.now(tz=datetime.UTC)
    values = {
        "dataproduct_type": "object",
        "hats_nrows": summary.n_rows,
        "hats_col_ra": RA.name,
        "hats_col_dec": DEC.name,
        "hats_cols_default": " ".join(default_columns(summary.names)),
        "hats_col_healpix": HEALPIX.name,
        "hats_col_healpix_order": HEALPIX_ORDER,
        "hats_npix_suffix": ".parquet",
        "hats_skymap_order": SKYMAP_ORDER,
        "hats_max_rows": max(leaf.n_rows for leaf in summary.leaves),
        "hats_order": max(leaf.pixel.healpix_order for leaf in summary.leaves),
        "moc_sky_fraction": f"{np.mean(summary.rows_on_the_sky > 0):.5g}",
        "hats_builder": f"galbatch v{__version__}, hats v{version('hats')}",
        "hats_creation_date": now.strftime("%Y-%m-%dT%H:%MUTC"),
        # HATS gives the size in KiB.
        "hats_estsize": sum(leaf.size_bytes for leaf in summary.leaves) // 1024,
        "hats_release_date": "2025-08-22",
        "hats_version": "v1.0",
    }
    return {key: str(value) for key, value in values.items()}

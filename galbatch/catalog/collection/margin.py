"""Margins: the objects just outside of each partition, which a crossmatch needs at its borders, made by hats-import."""

from __future__ import annotations

import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

from galbatch.catalog import layout
from galbatch.catalog.collection.state import (
    MARGIN_PREFIX,
    STATE,
    primary_url,
    properties_of,
    publish_part,
    state_of,
)
from galbatch.core.process import require
from galbatch.errors import UsageError

__all__ = ["make_margin"]

MAX_RADIUS_ARCSEC = 3600.0
"""Larger margins hold more rows than the catalog itself, where its partitions are as small as a degree."""


def make_margin(catalog_path: str, *, radius_arcsec: float, client: Any) -> tuple[str, int]:
    """Make the margin of a finished catalog and enter it into its collection; a margin of the same radius is replaced.

    Parameters
    ----------
    catalog_path : str
        Local or S3.
    radius_arcsec : float
        Width of the margin, arcsec: matches up to this separation lose no pair.
    client : distributed.Client
        Connection to the workers, which must be on this machine: they share a temporary folder.

    Returns
    -------
    name : str
        Name of the margin, such as ``margin_10arcsec``.
    n_rows : int
        Number of its rows. An object is in the margins of all partitions that it is near to.

    Raises
    ------
    CatalogError
        The catalog is not finished.
    UsageError
        The radius is not positive, or wider than the smallest partitions; hats-import is not installed.
    OutputError
        There is no space, or no permission to write.
    """
    if not 0 < radius_arcsec <= MAX_RADIUS_ARCSEC:
        raise UsageError(
            f"margin of {radius_arcsec:g} arcsec: expected a radius above 0 and up to {MAX_RADIUS_ARCSEC:g} arcsec"
        )
    state = state_of(catalog_path)
    _require_wide_partitions(catalog_path, radius_arcsec)
    name = f"{MARGIN_PREFIX}{radius_arcsec:g}arcsec"
    stated = {STATE: state, "hats_cols_default": _default_columns(catalog_path)}
    with tempfile.TemporaryDirectory() as folder:
        made = _with_hats_import(catalog_path, Path(folder), name, radius_arcsec, stated, client)
        n_rows = int(properties_of(str(made), ["hats_nrows"])["hats_nrows"])
        _point_to(made, primary_url(catalog_path, levels=2))
        files = {str(path.relative_to(made)): path for path in made.rglob("*") if path.is_file()}
        publish_part(catalog_path, name, files)
    return name, n_rows


def _require_wide_partitions(catalog_path: str, radius_arcsec: float) -> None:
    """Raise `UsageError` if the margin is wider than half of the smallest partition, which hats-import refuses."""
    import hats.pixel_math.healpix_shim as healpix

    smallest = max(leaf.healpix_order for leaf in layout.list_leaves(catalog_path))
    widest_arcsec = healpix.order2mindist(smallest + 1) * 60
    if radius_arcsec > widest_arcsec:
        raise UsageError(
            f"{catalog_path}: margin of {radius_arcsec:g} arcsec: the smallest partitions are of HEALPix order {smallest}, which "
            f"allows {math.floor(widest_arcsec)} arcsec at most"
        )


def _default_columns(catalog_path: str) -> str:
    """Return the default columns of the catalog, which are those of its margin, too."""
    return properties_of(catalog_path, ["hats_cols_default"]).get("hats_cols_default", "")


def _with_hats_import(
    catalog_path: str, folder: Path, name: str, radius_arcsec: float, stated: dict[str, str], client: Any
) -> Path:
    """Let hats-import make the margin in a local folder, and return the margin's folder."""
    cache = require("hats_import", module="hats_import.margin_cache")
    stating = require("hats_import", module="hats_import.margin_cache.margin_cache_arguments")
    with warnings.catch_warnings():
        # hats warns that it lists the folder to find its partitions.
        warnings.simplefilter("ignore")
        arguments = stating.MarginCacheArguments(
            input_catalog_path=layout.hats_path(catalog_path),
            output_path=folder,
            output_artifact_name=name,
            margin_threshold=radius_arcsec,
            tmp_dir=folder / "temporary",
            progress_bar=False,
            resume=False,
            addl_hats_properties={key: value for key, value in stated.items() if value},
        )
        cache.generate_margin_cache(arguments, client)
    return folder / name


def _point_to(made: Path, url: str) -> None:
    """Replace the catalog's absolute path in the properties of a margin by `url`, so that both can be moved together."""
    from hats.catalog import TableProperties

    properties = TableProperties.read_from_dir(made)
    properties.primary_catalog = url
    properties.to_properties_file(made)

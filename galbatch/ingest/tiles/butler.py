"""A Butler repository -> a table of tiles."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from galbatch.objects import butler_files

__all__ = ["tiles_from_butler"]


def tiles_from_butler(
    repo: str, *, collections: Sequence[str], dataset_type: str, bands: Sequence[str], where: str = ""
) -> pa.Table:
    """List the files of a Butler's coadds of one dataset type, as a table for ``[survey] tiles``.

    Parameters
    ----------
    repo : path, URI or alias of the repository
    collections : searched in this order; of a patch and band that are in several, the first counts
    where : the Butler's own expression, such as ``skymap = 'lsst_cells_v1' AND tract = 10463``

    Returns
    -------
    columns path, band and tile_id (``tract/patch``), sorted by the last two

    Raises
    ------
    UsageError
        As `butler_files`.
    """
    names = ", ".join(f"'{band}'" for band in bands)
    files = butler_files(
        repo,
        collections=collections,
        dataset_type=dataset_type,
        dimensions=("band", "tract", "patch"),
        where=f"({where}) AND band IN ({names})" if where else f"band IN ({names})",
    )
    rows = [
        (f"{file.data_id['tract']}/{file.data_id['patch']}", file.data_id["band"], file.path)
        for file in files
    ]
    tile_id, band, path = zip(*sorted(rows), strict=True)
    return pa.table({"path": path, "band": band, "tile_id": tile_id}, schema=TILES)


TILES = pa.schema([("path", pa.string()), ("band", pa.string()), ("tile_id", pa.string())])

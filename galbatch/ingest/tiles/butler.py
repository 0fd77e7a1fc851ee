"""A Butler repository -> a table of tiles: the only door to lsst.daf.butler, which only an LSST environment has."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from galbatch.errors import UsageError

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
        No lsst.daf.butler, no such repository, collection or dataset type, nothing found, or datasets that are not
        whole files on this machine or S3.
    """
    daf_butler = _daf_butler()
    # ButlerUserError came in 2024; before, what users get wrong was a LookupError or a ValueError.
    mistakes = (
        getattr(daf_butler, "ButlerUserError", LookupError),
        LookupError,
        ValueError,
        FileNotFoundError,
    )
    asked = f"{repo}: {dataset_type} in {', '.join(collections)}"
    try:
        butler = getattr(daf_butler.Butler, "from_config", daf_butler.Butler)(
            repo, collections=list(collections)
        )
        names = ", ".join(f"'{band}'" for band in bands)
        restricted = f"({where}) AND band IN ({names})" if where else f"band IN ({names})"
        refs = _query(butler, dataset_type, collections=collections, where=restricted)
    except mistakes as error:
        raise UsageError(f"{asked}: the Butler says: {error}") from error
    rows = sorted((_row(butler, ref, asked) for ref in refs), key=lambda row: (row["tile_id"], row["band"]))
    if not rows:
        raise UsageError(
            f"{asked}: nothing found in bands {', '.join(bands)}"
            + (f" where {where}" if where else "")
            + "; butler query-datasets shows what is there"
        )
    columns = ("path", "band", "tile_id")
    return pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in columns})


def _daf_butler() -> Any:
    """Import lsst.daf.butler, which is no dependency of galbatch: it comes with an LSST environment."""
    try:
        return importlib.import_module("lsst.daf.butler")
    except ImportError as error:
        raise UsageError(
            f"tiles from-butler: lsst.daf.butler cannot be imported ({error}); run it in an LSST environment (setup "
            "lsst_distrib), or install lsst-daf-butler. galbatch itself does not need it: make the table there and use it "
            "anywhere the files can be read"
        ) from None


def _query(butler: Any, dataset_type: str, *, collections: Sequence[str], where: str) -> Iterable[Any]:
    """Return the references of all datasets, by the query of 2024 or, where the Butler is older, by the registry's."""
    if hasattr(butler, "query_datasets"):
        # The limit of query_datasets is 20,000 unless it is lifted.
        found: Iterable[Any] = butler.query_datasets(
            dataset_type, list(collections), find_first=True, where=where, limit=None, explain=False
        )
        return found
    found = butler.registry.queryDatasets(
        dataset_type, collections=list(collections), findFirst=True, where=where
    )
    return list(found)


def _row(butler: Any, ref: Any, asked: str) -> dict[str, str]:
    """Return path, band and tile id of one dataset."""
    try:
        band, tract, patch = (ref.dataId[name] for name in ("band", "tract", "patch"))
    except LookupError as error:
        raise UsageError(
            f"{asked}: its datasets have no {error}; coadds with band, tract and patch are needed, such as deep_coadd"
        ) from None
    try:
        uri = butler.getURI(ref)
    except RuntimeError as error:  # a dataset in several files
        raise UsageError(f"{asked}: tract {tract} patch {patch} is not one file: {error}") from error
    if uri.scheme in ("file", "") and not uri.fragment:
        path = str(uri.ospath)
    elif uri.scheme == "s3" and not uri.fragment:
        # The Butler writes s3://profile@bucket/..; galbatch takes the profile from AWS_PROFILE.
        bucket = str(uri.netloc).rpartition("@")[2]
        path = f"s3://{bucket}/{str(uri.path).lstrip('/')}"
    else:
        raise UsageError(
            f"{asked}: {uri} is neither a file nor on S3; fetch the files with butler retrieve-artifacts and point [survey] "
            "tiles to their folder"
        )
    return {"path": path, "band": str(band), "tile_id": f"{tract}/{patch}"}

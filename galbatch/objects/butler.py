"""A Butler repository as a source of files and of object lists: the only door to lsst.daf.butler, which only an LSST environment has."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from galbatch.core.urls import scheme_of
from galbatch.errors import OutputError, UsageError
from galbatch.objects.tables import errors_of_reading, read_parquet

__all__ = ["ButlerFile", "butler_files", "objects_from_butler"]


@dataclass(frozen=True)
class ButlerFile:
    """The file of a dataset.

    Attributes
    ----------
    path : on this machine, or on S3
    data_id : the values of the dimensions that were asked for
    """

    path: str
    data_id: dict[str, str]


def butler_files(
    repo: str, *, collections: Sequence[str], dataset_type: str, dimensions: Sequence[str], where: str = ""
) -> list[ButlerFile]:
    """Return the files of a Butler's datasets of one type.

    Parameters
    ----------
    repo : str
        Path, URI or alias of the repository.
    collections : sequence of str
        Searched in this order; of datasets with one data id the first counts.
    dimensions : sequence of str
        Dimensions that the datasets must have, such as tract and patch.
    where : str
        The Butler's own expression, such as ``skymap = 'lsst_cells_v1' AND tract = 10463``.

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
        refs = _query(butler, dataset_type, collections=collections, where=where)
    except mistakes as error:
        raise UsageError(f"{asked}: the Butler says: {error}") from error
    found = [_file(butler, ref, asked, dimensions=dimensions) for ref in refs]
    if not found:
        raise UsageError(
            f"{asked}: nothing found{f' where {where}' if where else ''}; butler query-datasets shows what is there"
        )
    return found


def objects_from_butler(
    repo: str,
    output: str,
    *,
    collections: Sequence[str],
    dataset_type: str,
    columns: Sequence[str],
    where: str = "",
) -> tuple[int, int]:
    """Copy columns of a Butler's object tables into a folder of Parquet files, for ``[objects] path``.

    The tables, one a tract or a patch, are read one after the other. The folder appears when all are there.

    Parameters
    ----------
    output : str
        The folder, on this machine; it must not exist.
    columns : sequence of str
        The columns that are copied, those of id and position among them.

    Returns
    -------
    n_tables, n_rows : int

    Raises
    ------
    UsageError
        As `butler_files`; or a table lacks a column.
    OutputError
        The folder exists, or cannot be written.
    """
    target = Path(output)
    if scheme_of(output) or target.exists():
        what = "is no folder of this machine" if scheme_of(output) else "exists; it is not written into"
        raise OutputError(f"{output}: {what}; name a new folder")
    files = butler_files(
        repo, collections=collections, dataset_type=dataset_type, dimensions=["tract"], where=where
    )
    n_rows = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # In a folder of the same disk, whose name shows that it is not whole.
        with tempfile.TemporaryDirectory(prefix=f"{target.name}.partial-", dir=target.parent) as folder:
            whole = Path(folder) / "objects"
            whole.mkdir()
            for number, file in enumerate(sorted(files, key=lambda file: (file.data_id["tract"], file.path))):
                with errors_of_reading(file.path, "Parquet"):
                    table = read_parquet(file.path, columns).select(list(columns))
                pq.write_table(table, whole / f"{number:05d}_tract_{file.data_id['tract']}.parquet")
                n_rows += len(table)
            os.rename(whole, target)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror}") from None
    return len(files), n_rows


def _daf_butler() -> Any:
    """Return the module lsst.daf.butler, which is no dependency of galbatch but comes with an LSST environment.

    Raises
    ------
    UsageError
        It cannot be imported; the message says how to install it.
    """
    try:
        return importlib.import_module("lsst.daf.butler")
    except ImportError as error:
        raise UsageError(
            f"from-butler: lsst.daf.butler cannot be imported ({error}); run it in an LSST environment (setup "
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


def _file(butler: Any, ref: Any, asked: str, *, dimensions: Sequence[str]) -> ButlerFile:
    """Return the file and data id of one dataset."""
    try:
        data_id = {name: str(ref.dataId[name]) for name in dimensions}
    except LookupError as error:
        raise UsageError(
            f"{asked}: its datasets have no {error}; datasets with {', '.join(dimensions)} are needed"
        ) from None
    try:
        uri = butler.getURI(ref)
    except RuntimeError as error:  # a dataset in several files
        named = " ".join(f"{name} {value}" for name, value in data_id.items())
        raise UsageError(f"{asked}: {named} is not one file: {error}") from error
    if uri.scheme in ("file", "") and not uri.fragment:
        return ButlerFile(str(uri.ospath), data_id)
    if uri.scheme == "s3" and not uri.fragment:
        # The Butler writes s3://profile@bucket/..; galbatch takes the profile from AWS_PROFILE.
        bucket = str(uri.netloc).rpartition("@")[2]
        return ButlerFile(f"s3://{bucket}/{str(uri.path).lstrip('/')}", data_id)
    raise UsageError(
        f"{asked}: {uri} is neither a file nor on S3; fetch the files with butler retrieve-artifacts and give their folder"
    )

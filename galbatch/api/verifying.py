"""Verifying a catalog from Python, and from the command line, which calls the same function."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from galbatch import catalog, cluster, execution
from galbatch.config import RunConfig, read_config
from galbatch.core.texts import counted, html_card
from galbatch.errors import UsageError

__all__ = ["Verification", "verify"]


@dataclass(frozen=True, repr=False)
class Verification:
    """The findings of a check of a catalog.

    Attributes
    ----------
    catalog_path : str
        Path of the catalog; of the cutout store where that alone was checked.
    problems : tuple of str
        What is wrong, in sentences; empty if all is good.
    audits : mapping of str to str
        Of a good catalog whose passes were adaptive, what the audit of each model found.
    doubts : tuple of str
        Of a good catalog, what its properties say that a user should know before he trusts its errors.
    """

    catalog_path: str
    problems: tuple[str, ...]
    audits: Mapping[str, str]
    doubts: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __repr__(self) -> str:
        found = "good" if self.is_good else counted(len(self.problems), "problem")
        return f"<Verification of {self.catalog_path}: {found}>"

    def _repr_html_(self) -> str:
        audits = [(f"audit of {model}", text) for model, text in self.audits.items()]
        rows = [("catalog", self.catalog_path), ("found", "good" if self.is_good else "problems"), *audits]
        return html_card("galbatch verify", rows, notes=[*self.problems, *self.doubts])


def verify(
    catalog_path: str | os.PathLike[str] | None = None,
    *,
    against: str | os.PathLike[str] | RunConfig | None = None,
    store: str | os.PathLike[str] | None = None,
) -> Verification:
    """Check a catalog, a cutout store, or both: valid HATS, every file as it was written, sorted, every object once, fingerprints, pass outputs.

    Every byte is read. Damage is recorded beside the output, so that `galbatch.run` makes it again.

    Parameters
    ----------
    catalog_path : str, path or None
        Folder of the catalog, on a disk or S3. None: the store alone is checked.
    against : path of a run.toml, RunConfig or None
        Also compare with this run: its objects, each once, and its fingerprints.
    store : str, path or None
        Read every file of this cutout store.

    Raises
    ------
    UsageError
        The config is wrong, or neither catalog nor store is given.

    Examples
    --------
    >>> import galbatch
    >>> found = galbatch.verify("catalog", against="run.toml")  # doctest: +SKIP
    >>> found.is_good, found.problems  # doctest: +SKIP
    (True, ())
    """
    config = against if isinstance(against, RunConfig) or against is None else read_config(os.fspath(against))
    if catalog_path is None:
        if store is None:
            raise UsageError("verify: name a catalog, or with --store the cutout store to check")
        return _verify_store(os.fspath(store), config)
    path = os.fspath(catalog_path)
    problems = execution.verify_outputs(path, None if store is None else os.fspath(store))
    # A damaged catalog is not compared with the run: the differences would only repeat the damage.
    if config is not None and not problems:
        with cluster.to_look(config.cluster) as workers:
            problems = execution.verify_against(config, path, workers)
    if problems:
        return Verification(path, tuple(problems), {}, ())
    prefix = catalog.model_property("audit")
    properties = catalog.read_properties(path)
    audits = {key.removeprefix(prefix): text for key, text in properties.items() if key.startswith(prefix)}
    return Verification(path, (), audits, tuple(catalog.doubts(path)))


def _verify_store(store: str, against: RunConfig | None) -> Verification:
    if against is None:
        problems = execution.verify_store(store)
    else:
        with cluster.to_look(against.cluster) as workers:
            problems = execution.verify_store(store, against, workers)
    return Verification(store, tuple(problems), {}, ())

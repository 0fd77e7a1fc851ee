"""A Butler that plays the part of lsst.daf.butler."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


class ButlerUserError(Exception):
    """What the Butler raises for mistakes of its users."""


@dataclass(frozen=True)
class Ref:
    dataId: dict  # noqa: N815  (the Butler's name)
    uri: str


class Uri:
    """As lsst.resources.ResourcePath."""

    def __init__(self, uri):
        parts = urlsplit(uri)
        self.scheme, self.netloc, self.path, self.fragment = (
            parts.scheme,
            parts.netloc,
            parts.path,
            parts.fragment,
        )
        self.ospath = parts.path
        self.text = uri

    def __str__(self):
        return self.text


class Butler:
    """Answers with the refs given, and notes what it was asked."""

    refs: tuple = ()
    asked: tuple = ()

    def __init__(self, repo, collections):
        if repo == "nowhere":
            raise FileNotFoundError("no butler.yaml")
        self.opened = (repo, collections)

    @classmethod
    def from_config(cls, repo, *, collections):
        return cls(repo, collections)

    def query_datasets(self, dataset_type, collections, *, find_first, where, limit, explain):
        if dataset_type == "deep_coad":
            raise ButlerUserError("dataset type deep_coad does not exist")
        type(self).asked = (self.opened, dataset_type, collections, where)
        assert (find_first, limit, explain) == (True, None, False)
        return list(self.refs)

    def getURI(self, ref):
        if ref.uri == "several":
            raise RuntimeError("includes distinct URIs for components")
        return Uri(ref.uri)


class OldButler:
    """Before query_datasets and from_config."""

    def __init__(self, repo, collections):
        self.registry = self

    def queryDatasets(self, dataset_type, *, collections, findFirst, where):
        assert findFirst
        return iter(Butler.refs)

    def getURI(self, ref):
        return Uri(ref.uri)


def ref(uri, band="i", tract=10463, patch=62, *, data_id=None):
    return Ref(data_id or {"band": band, "tract": tract, "patch": patch, "skymap": "lsst_cells_v1"}, uri)

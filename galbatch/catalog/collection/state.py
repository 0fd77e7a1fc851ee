"""The contents of a collection, and the state of the catalog that each part was made from."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from galbatch import storage
from galbatch.catalog import layout
from galbatch.catalog.tree_checks import hats_problems
from galbatch.core.columns import ID
from galbatch.errors import CatalogError, DamagedError

__all__ = [
    "INDEX",
    "STATE",
    "collection_path",
    "collection_problems",
    "is_current",
    "margins",
    "part_path",
    "publish_part",
    "state_of",
    "write_collection",
]

COLLECTION_SUFFIX = "_collection"
COLLECTION_PROPERTIES = "collection.properties"
CHECKSUMS_SUFFIX = ".checksums.json"
INDEX = f"{ID.name}_index"
MARGIN_PREFIX = "margin_"

STATE = "galbatch_catalog_state"
"""Property of a part: the state of the catalog that it was made from."""

STATED_BY = ("galbatch_fingerprint", "hats_nrows", "hats_estsize", "hats_order")
"""Properties of a catalog that tell its rows from those of another run, or of a run that has not done all partitions."""


def collection_path(catalog_path: str) -> str:
    """Return the path of the collection of a catalog, beside it: ``catalog_collection``."""
    return catalog_path.rstrip("/") + COLLECTION_SUFFIX


def part_path(catalog_path: str, part: str) -> str:
    """Return the path of a part of the collection, such as ``object_id_index``."""
    return storage.join(collection_path(catalog_path), part)


def properties_of(path: str, names: Iterable[str]) -> dict[str, str]:
    """Return those of the named properties that a HATS catalog has; empty if it has none, as it is not finished.

    Without hats, which takes seconds to import: values are read as they stand in the file, with any escapes.
    """
    try:
        text = storage.read_bytes(storage.join(path, layout.PROPERTIES[-1])).decode(errors="replace")
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=")[::2] for line in text.splitlines())
    wanted = set(names)
    return {key: value for key, value in pairs if key in wanted}


def state_of(catalog_path: str) -> str:
    """Return a digest of what a catalog holds, which is another one after a run that changed its rows.

    Raises
    ------
    CatalogError
        The catalog is not finished.
    """
    stated = properties_of(catalog_path, STATED_BY)
    if not stated:
        raise CatalogError(
            f"{catalog_path}: no hats.properties: no catalog, or one that is not finished; galbatch run finishes it"
        )
    partitions = storage.read_bytes(storage.join(catalog_path, layout.PARTITION_INFO))
    return hashlib.sha256(storage.json_bytes(dict(stated)) + partitions).hexdigest()


def is_current(catalog_path: str, part: str, state: str) -> bool:
    """Return whether a part of the collection exists and was made from this state of the catalog."""
    return properties_of(part_path(catalog_path, part), [STATE]).get(STATE) == state


def parts_of(catalog_path: str) -> list[str]:
    """Return the names of the parts of the collection that are catalogs in HATS's format, sorted."""
    files = storage.list_files(collection_path(catalog_path), suffix=layout.PROPERTIES[-1])
    return sorted(path.rpartition("/")[0] for path in files if path.count("/") == 1)


def margins(catalog_path: str) -> dict[str, float]:
    """Return the radius in arcsec of each margin of the collection, by its name, the largest first."""
    key = "hats_margin_threshold"
    found = {
        part: float(properties_of(part_path(catalog_path, part), [key])[key])
        for part in parts_of(catalog_path)
        if part.startswith(MARGIN_PREFIX)
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def publish_part(catalog_path: str, part: str, files: Mapping[str, bytes | Path]) -> None:
    """Replace a part of the collection by files, its properties last, and enter it into the collection's properties.

    Parameters
    ----------
    catalog_path : str
    part : str
        Name of the part, such as ``margin_10arcsec``.
    files : mapping of str to bytes or Path
        The content of each file, or the local file that has it, by its path in the part.

    Raises
    ------
    OutputError
        There is no space, or no permission to write.
    """
    path = part_path(catalog_path, part)
    # As in a catalog, no reader opens a part that has no properties.
    for name in layout.PROPERTIES[::-1]:
        storage.remove(storage.join(path, name))
    storage.remove(path)
    storage.remove(_checksums_path(catalog_path, part))
    checksums = {}
    for name in sorted(files, key=lambda name: name in layout.PROPERTIES):
        content = files[name]
        data = content.read_bytes() if isinstance(content, Path) else content
        storage.publish(storage.join(path, name), data)
        checksums[f"{part}/{name}"] = storage.Checksum.of([data])
    _record(catalog_path, part, checksums)
    write_collection(catalog_path)


def _checksums_path(catalog_path: str, what: str) -> str:
    """Return the path of the checksums of a part of the collection, or of the file of its properties."""
    return storage.join(collection_path(catalog_path), what + CHECKSUMS_SUFFIX)


def _record(catalog_path: str, what: str, checksums: Mapping[str, storage.Checksum]) -> None:
    """Write the checksums of files, given by their paths in the collection."""
    files = {name: [one.size_bytes, one.crc32c] for name, one in checksums.items()}
    storage.publish(_checksums_path(catalog_path, what), storage.sealed_bytes({"files": files}))


def write_collection(catalog_path: str) -> None:
    """Write ``collection.properties``, which names the catalog, its margins (the widest is the default) and its index."""
    from hats.catalog.dataset.collection_properties import CollectionProperties

    widths = margins(catalog_path)
    name = properties_of(catalog_path, ["obs_collection"])["obs_collection"]
    values = {"obs_collection": name, "hats_primary_table_url": primary_url(catalog_path)}
    if widths:
        values |= {"all_margins": " ".join(widths), "default_margin": next(iter(widths))}
    if INDEX in parts_of(catalog_path):
        values |= {"all_indexes": f"{ID.name} {INDEX}", "default_index": ID.name}
    with tempfile.TemporaryDirectory() as folder:
        CollectionProperties(**values).to_properties_file(folder)
        data = Path(folder, COLLECTION_PROPERTIES).read_bytes()
    storage.publish(storage.join(collection_path(catalog_path), COLLECTION_PROPERTIES), data)
    _record(catalog_path, COLLECTION_PROPERTIES, {COLLECTION_PROPERTIES: storage.Checksum.of([data])})


def primary_url(catalog_path: str, *, levels: int = 1) -> str:
    """Return how a file `levels` folders below the catalog's own folder names the catalog.

    On a disk the path is relative, so that both can be moved together. On S3, where no path has ``..``, it is the URL.
    """
    if not storage.has_local_path(catalog_path):
        return storage.absolute(catalog_path)
    return "../" * levels + storage.absolute(catalog_path).rpartition("/")[2]


def collection_problems(catalog_path: str) -> list[str]:
    """Return human-readable problems of the collection beside a catalog: stale parts, damage, or what hats finds; [] if there is none.

    Every byte of the collection is read, unless it was made by a version that wrote no checksums of it.
    """
    try:
        state = state_of(catalog_path)
    except (CatalogError, FileNotFoundError):
        return []  # The check of the catalog tells that it is not finished.
    parts = parts_of(catalog_path)
    problems = [
        f"{part_path(catalog_path, part)}: made from an earlier state of the catalog; make it again by {_maker(part)}"
        for part in parts
        if not is_current(catalog_path, part, state)
    ]
    problems = problems or [
        f"{problem}; make it again by {_maker(what)}"
        for what in (*parts, COLLECTION_PROPERTIES)
        for problem in _damage(catalog_path, what)
    ]
    return problems or [
        f"{path}: {problem}"
        for path in (part_path(catalog_path, part) for part in parts)
        for problem in hats_problems(path)
    ]


def _maker(what: str) -> str:
    """Return the command that makes a part of the collection, or its properties with a part."""
    if what.startswith(MARGIN_PREFIX):
        return f"galbatch catalog margin --radius {what.removeprefix(MARGIN_PREFIX)}"
    return "galbatch catalog index"


def _damage(catalog_path: str, what: str) -> list[str]:
    """Return how files of the collection differ from what was written, by their recorded checksums."""
    path = collection_path(catalog_path)
    try:
        recorded = storage.read_sealed(_checksums_path(catalog_path, what)) or {"files": {}}
    except DamagedError as error:
        return [f"{error.path} {error.problem}"]
    found = []
    for name, (size_bytes, crc32c) in recorded["files"].items():
        file = storage.join(path, name)
        try:
            problem = storage.Checksum(size_bytes, crc32c).problem(storage.read_bytes(file))
        except FileNotFoundError:
            problem = "is gone"
        if problem:
            found.append(f"{file} {problem}")
    return found

"""Bundle files: TorchScript with the metadata inside. The sha256 of the file is the model's identity.

A bundle is loaded once per process; it never travels through Dask.
"""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from typing import Any

import torch

from galbatch import storage
from galbatch.errors import BundleError
from galbatch.models.bundle.checks import check_behavior
from galbatch.models.bundle.network import Bundle, set_modes
from galbatch.models.bundle.paths import demo_bundles
from galbatch.models.heads import read_metadata
from galbatch.models.metadata import BundleMetadata, write_metadata

__all__ = ["load_bundle", "rewrite_bundle", "save_bundle"]

METADATA_FILE = "galbatch.json"

_loaded: dict[str, Bundle] = {}
_loading = threading.Lock()


def save_bundle(path: str, script: Any, metadata: BundleMetadata) -> str:
    """Write a bundle, after the checks that loading makes, and return its sha256.

    Parameters
    ----------
    path : local or ``s3://``
    script : scripted module in eval mode
    metadata : goes into the file

    Raises
    ------
    BundleError
        The metadata contradict themselves, or the script does not behave as they say.
    """
    text = write_metadata(metadata)
    read_metadata(text, str(path))
    check_behavior(script, metadata, source=str(path))
    buffer = io.BytesIO()
    torch.jit.save(script, buffer, _extra_files={METADATA_FILE: text})
    data = _without_debug_info(buffer.getvalue())
    storage.publish(str(path), data)
    return hashlib.sha256(data).hexdigest()


def _without_debug_info(archive: bytes) -> bytes:
    """Return the archive without what tells where and when it was written.

    TorchScript keeps the paths of all sources, and an id that follows from them: the identity of a bundle must
    not depend on the folder that galbatch is installed in.
    """
    slim = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(slim, "w") as new:
        for name in old.namelist():
            if not name.endswith((".debug_pkl", "/.data/serialization_id")):
                new.writestr(zipfile.ZipInfo(name), old.read(name))
    return slim.getvalue()


def rewrite_bundle(source: str, output: str, metadata: BundleMetadata) -> str:
    """Write the script of one bundle with other metadata, and return the new file's sha256.

    The same script and metadata give the same bytes. A run that was made with `source` is not resumed with `output`:
    the sha256 is the model's identity, and the passes' draws follow from it.

    Parameters
    ----------
    source, output : local or ``s3://``; they may be the same
    metadata : goes into the file instead of what the source has

    Raises
    ------
    BundleError
        The source is no bundle, or its script does not behave as the metadata says.
    """
    return save_bundle(output, load_bundle(source).script, metadata)


def load_bundle(path: str, *, sha256: str | None = None, keep: bool = True) -> Bundle:
    """Load a bundle, once per process and sha256.

    Parameters
    ----------
    path : local or ``s3://``
    sha256 : the identity it must have; None: any
    keep : whether it stays in memory for the next call; a full GaMPEN is 570 MB

    Raises
    ------
    BundleError
        There is no such file, it is no bundle, it is damaged, it is another than `sha256` says, or it does
        not behave as its metadata says.
    """
    with _loading:
        if sha256 is not None and sha256 in _loaded:
            return _loaded[sha256]
        file = _on_this_machine(str(path), sha256)
        before = storage.identity(file)
        found = storage.sha256_of(file)
        if sha256 is not None and found != sha256:
            raise BundleError(
                f"{path}: sha256 is {found[:12]}.., expected {sha256[:12]}..: the file has changed"
            )
        # From the file: out of memory, torch takes two more copies of all weights.
        bundle = _loaded.get(found) or _load(file, str(path), found)
        if storage.identity(file) != before:
            raise BundleError(f"{path}: the file was written while it was read; try again")
        if keep:
            _loaded[found] = bundle
        return bundle


def _on_this_machine(path: str, sha256: str | None) -> str:
    """Return the path of the bundle's file, or of its copy on this machine."""
    try:
        # Local files are hashed once, by the caller.
        file = str(storage.local_copy(path, sha256=None if storage.has_local_path(path) else sha256))
        storage.open_file(file).close()
    except (FileNotFoundError, IsADirectoryError):
        raise BundleError(
            f"{path}: there is no such bundle; those shipped are {', '.join(demo_bundles())}"
        ) from None
    return file


def _load(file: str, path: str, sha256: str) -> Bundle:
    extra = {METADATA_FILE: ""}
    try:
        load: Any = torch.jit.load
        script = load(file, map_location="cpu", _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "empty file"
        raise BundleError(
            f"{path}: is no TorchScript file, or is damaged: {reason}; fetch it again"
        ) from None
    text = extra[METADATA_FILE]
    if not text:
        raise BundleError(
            f"{path}: holds no {METADATA_FILE}, so it is TorchScript but no galbatch bundle; "
            "save it with galbatch.models.save_bundle and its metadata"
        )
    metadata = read_metadata(text, path)
    set_modes(script)
    check_behavior(script, metadata, source=path)
    return Bundle(metadata, sha256, script)

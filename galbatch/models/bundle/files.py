"""Bundle files: TorchScript archives with the metadata inside. The sha256 of the file is the model's identity.

Each process loads a bundle from the file, once: a full GaMPEN has 540 MB, too much to be sent to workers by Dask.
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
from galbatch.models.bundle.archive import METADATA_FILE, read_metadata_text
from galbatch.models.bundle.checks import SCRIPT_FAULTS, check_behavior
from galbatch.models.bundle.info import file_on_this_machine
from galbatch.models.bundle.network import Bundle, set_modes
from galbatch.models.bundle.opinion import with_shipped_disagreement
from galbatch.models.heads import read_metadata
from galbatch.models.metadata import BundleMetadata, write_metadata

__all__ = ["load_bundle", "rewrite_bundle", "save_bundle"]

_loaded: dict[str, Bundle] = {}
_loading = threading.Lock()


def save_bundle(path: str, script: Any, metadata: BundleMetadata) -> str:
    """Write a bundle, after the same checks as when it is loaded, and return the sha256 of the file.

    Parameters
    ----------
    path : local path or ``s3://`` URL
    script : scripted module in eval mode
    metadata : metadata, which are stored inside the file

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
    # TorchScript stores the paths of all source files, and an id that follows from them: with these, the sha256 of a bundle
    # would depend on the folder that galbatch is installed in.
    slim = io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(slim, "w") as new:
        for name in old.namelist():
            if not name.endswith((".debug_pkl", "/.data/serialization_id")):
                # A ZipInfo made from the name alone has a fixed date, so that equal content gives equal bytes.
                new.writestr(zipfile.ZipInfo(name), old.read(name))
    storage.publish(str(path), slim.getvalue())
    return hashlib.sha256(slim.getvalue()).hexdigest()


def rewrite_bundle(source: str, output: str, metadata: BundleMetadata) -> str:
    """Write the script of one bundle with other metadata, and return the new file's sha256.

    The same script and metadata give the same bytes. A run that was started with `source` cannot be resumed with
    `output`: the sha256 is the model's identity, and the random numbers of the passes depend on it.

    Parameters
    ----------
    source, output : local paths or ``s3://`` URLs; they may be the same
    metadata : metadata that replace those of the source

    Raises
    ------
    BundleError
        The source is no bundle, or its script does not behave as the metadata say.
    """
    return save_bundle(output, load_bundle(source).script, metadata)


def load_bundle(path: str, *, sha256: str | None = None, keep: bool = True) -> Bundle:
    """Load a bundle, once per process and sha256.

    Parameters
    ----------
    path : local path, ``s3://`` URL, or ``demo:NAME`` for a bundle that is shipped with galbatch
    sha256 : hash that the file must have; None: any
    keep : whether the bundle stays in memory for the next call; a full GaMPEN takes 570 MB

    Raises
    ------
    BundleError
        The file does not exist, is no bundle, is damaged, has another hash than `sha256`, or its script does not behave as
        its metadata say.

    Examples
    --------
    >>> import galbatch
    >>> galbatch.load_bundle("demo:gampen").bands
    ('g',)
    """
    with _loading:
        if sha256 is not None and sha256 in _loaded:
            return _loaded[sha256]
        file = file_on_this_machine(str(path), sha256)
        before = storage.identity(file)
        found = storage.sha256_of(file)
        if sha256 is not None and found != sha256:
            raise BundleError(
                f"{path}: sha256 is {found[:12]}.., expected {sha256[:12]}..: the file has changed"
            )
        # Read from the file, not from bytes in memory: from these torch makes two more copies of all weights.
        bundle = _loaded.get(found) or _load(file, str(path), found)
        if storage.identity(file) != before:
            raise BundleError(f"{path}: the file was written while it was read; try again")
        if keep:
            _loaded[found] = bundle
        return bundle


def _load(file: str, path: str, sha256: str) -> Bundle:
    """Read a bundle's file and check its behavior; `path` is its original path, for messages."""
    # Metadata are read first: what cannot be a bundle is refused before anything in it runs.
    with storage.open_file(file) as opened:
        text = read_metadata_text(opened, path)
    metadata = read_metadata(text, path)
    extra = {METADATA_FILE: ""}  # Filled in by torch.
    try:
        load: Any = torch.jit.load  # Untyped in torch.
        script = load(file, map_location="cpu", _extra_files=extra)
    except SCRIPT_FAULTS as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "empty file"
        raise BundleError(
            f"{path}: is no TorchScript file, or is damaged: {reason}; fetch it again"
        ) from None
    # An archive can be made so that two readers find different entries of one name in it.
    seen = extra[METADATA_FILE]
    if (seen if isinstance(seen, bytes) else seen.encode()) != text:
        raise BundleError(f"{path}: torch finds another {METADATA_FILE} in it; the archive was tampered with")
    set_modes(script)
    check_behavior(script, metadata, source=path)
    return Bundle(with_shipped_disagreement(metadata, sha256), sha256, script)

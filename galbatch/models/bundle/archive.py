"""The metadata of a bundle, taken out of its file as bytes: nothing in the file is run.

A TorchScript file is a zip archive ``<name>/data.pkl``, ``<name>/code/...``, ``<name>/extra/galbatch.json``. Torch reads the
extra file only while it loads the network, and that runs code: attributes are made by the script's own ``__setstate__``.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import BinaryIO

from galbatch.errors import BundleError

__all__ = ["METADATA_FILE", "read_metadata_text"]

METADATA_FILE = "galbatch.json"

# The shipped bundles have 60 kB, a history of 1,000 epochs and a covariance of 512 features 6 MB.
MOST_METADATA_BYTES = 16 * 2**20
IS_ENCRYPTED = 0x1  # a bit of an entry's flags
KNOWN_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # all that torch writes
# What zipfile ends in, where an archive is damaged or made to harm.
UNREADABLE = (
    zipfile.BadZipFile,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    struct.error,
    zlib.error,
)


def read_metadata_text(file: BinaryIO, source: str) -> bytes:
    """Return the content of a bundle's ``galbatch.json``, as bytes, without running anything of the bundle.

    Parameters
    ----------
    file : the bundle's file, open for reading and seekable
    source : text that messages begin with, such as the bundle's path

    Raises
    ------
    BundleError
        The file is no TorchScript archive or is damaged, has no metadata, has them twice, or has more of them than any
        network needs.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            # Torch takes everything from the folder of the first entry, and what torch.save writes has no constants.
            folder = names[0].partition("/")[0] if names else ""
            if f"{folder}/data.pkl" not in names or f"{folder}/constants.pkl" not in names:
                raise zipfile.BadZipFile("it holds no network")
            found = [entry for entry in entries if entry.filename == f"{folder}/extra/{METADATA_FILE}"]
            if not found:
                raise BundleError(
                    f"{source}: holds no {METADATA_FILE}, so it is TorchScript but no galbatch bundle; "
                    "save it with galbatch.models.save_bundle and its metadata"
                )
            if len(found) > 1:
                raise BundleError(
                    f"{source}: holds {METADATA_FILE} {len(found)} times; which one is valid cannot be known"
                )
            if found[0].header_offset < 0:
                raise zipfile.BadZipFile("its directory points to a place before its beginning")
            if found[0].flag_bits & IS_ENCRYPTED or found[0].compress_type not in KNOWN_COMPRESSION:
                raise BundleError(
                    f"{source}: {METADATA_FILE} is encrypted, or packed in a way that torch does not write"
                )
            with archive.open(found[0]) as opened:
                # Never more than this, whatever size is stated: a small entry can unpack to gigabytes.
                text = opened.read(MOST_METADATA_BYTES + 1)
    except UNREADABLE as error:
        raise BundleError(
            f"{source}: is no TorchScript file, or is damaged: {error}; fetch it again"
        ) from None
    if len(text) > MOST_METADATA_BYTES:
        raise BundleError(
            f"{source}: {METADATA_FILE} has more than {MOST_METADATA_BYTES // 2**20} MiB; metadata of a network are far smaller"
        )
    return text

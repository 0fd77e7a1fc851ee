"""The rates of disks and object stores: bytes that galbatch itself wrote and removed."""

from __future__ import annotations

import time
import uuid

from galbatch import storage
from galbatch.doctor.findings import Finding

__all__ = ["storage_rate"]

MB = 1e6
PIECE_BYTES = 8_000_000
"""The size of a file: a shard of the store has some MB."""

PIECES = 8


def storage_rate(folder: str, label: str) -> Finding:
    """Return the rates at which files of a few MB are written into a folder and read again; they are removed."""
    content = bytes(bytearray(range(256))) * (PIECE_BYTES // 256)
    paths = [storage.join(folder, f".galbatch-doctor-{uuid.uuid4().hex}") for _ in range(PIECES)]
    total = len(content) * PIECES
    try:
        started_s = time.perf_counter()
        for path in paths:
            storage.publish(path, content)
        written_s = time.perf_counter() - started_s
        for path in paths:
            storage.read_bytes(path)
        read_s = time.perf_counter() - started_s - written_s
    finally:
        for path in paths:
            storage.remove(path)
    write, read = total / written_s, total / read_s
    # A disk answers from the memory of the system what was written a moment ago.
    hint = "; just written, so perhaps from memory" if storage.has_local_path(folder) else ""
    text = f"writes {write / MB:.0f} MB/s, reads {read / MB:.0f} MB/s{hint}"
    data = {"path": folder, "label": label, "write_bytes_per_s": write, "read_bytes_per_s": read}
    return Finding(((label, text), ("", folder)), data)

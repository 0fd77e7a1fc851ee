"""Checksums of what galbatch writes: of files, of JSON files of its own, and the record of files that are damaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import google_crc32c

from galbatch.errors import DamagedError
from galbatch.storage import files
from galbatch.storage.base import Piece

__all__ = [
    "Checksum",
    "damage_path",
    "parse_sealed",
    "read_damage",
    "read_sealed",
    "record_damage",
    "sealed_bytes",
]

SEAL = "crc32c"
"""Key of a sealed JSON file: the CRC-32C of the same file without this key."""

# google-crc32c takes bytes only. Copies of this size stay in the processor's cache, and cost a tenth of the sum itself.
COPY_BYTES = 2**18

DAMAGE_SUFFIX = "_damaged.json"


@dataclass(frozen=True, slots=True)
class Checksum:
    """The size of a file in bytes and the CRC-32C of its content, as 8 hex digits."""

    size_bytes: int
    crc32c: str

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Checksum:
        """Return the checksum of a file that is given in pieces."""
        size, crc = 0, 0
        for piece in pieces:
            view = memoryview(piece)
            size += view.nbytes
            for start in range(0, view.nbytes, COPY_BYTES):
                crc = google_crc32c.extend(crc, bytes(view[start : start + COPY_BYTES]))
        return cls(size, f"{crc:08x}")

    def problem(self, data: Piece) -> str:
        """Say how a file differs from the one that this is the checksum of; "" if it does not."""
        if len(data) != self.size_bytes:
            return f"holds {len(data)} bytes, {self.size_bytes} were written" if len(data) else "is empty"
        found = Checksum.of([data]).crc32c
        return "" if found == self.crc32c else f"has the checksum {found}, {self.crc32c} was written"


# --- sealed JSON files -------------------------------------------------------------------------------------


def sealed_bytes(value: Mapping[str, Any]) -> bytes:
    """Return a JSON file that holds a checksum of its own text."""
    return files.json_bytes({**value, SEAL: Checksum.of([files.json_bytes(dict(value))]).crc32c})


def parse_sealed(data: bytes) -> dict[str, Any] | None:
    """Return what `sealed_bytes` was given; None if a single byte differs from what it made."""
    value = files.parse_json(data)
    if value is None:
        return None
    value.pop(SEAL, None)
    # The text is made once more: a space that became a tab is the same JSON, and still damage.
    return value if sealed_bytes(value) == data else None


def read_sealed(path: str) -> dict[str, Any] | None:
    """Return what a sealed JSON file holds; None if there is no such file.

    Raises
    ------
    DamagedError
        The file is not as it was written.
    """
    try:
        data = files.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    value = parse_sealed(data)
    if value is None:
        problem = "is not as it was written" if data else "is empty"
        raise DamagedError(path, problem)
    return value


# --- the record of damage ----------------------------------------------------------------------------------


def damage_path(output: str) -> str:
    """Return the path of the record of what is damaged in an output: beside it, as its lock is."""
    return output.rstrip("/") + DAMAGE_SUFFIX


def record_damage(output: str, found: Mapping[str, str]) -> None:
    """Record what is damaged in an output; what was recorded before goes, and without any damage the file too.

    Parameters
    ----------
    found : what is wrong, by the path below the output
    """
    if found:
        files.publish(damage_path(output), sealed_bytes({"damaged": dict(found)}))
    else:
        files.remove(damage_path(output))


def read_damage(output: str) -> dict[str, str]:
    """Return what `record_damage` was given last; nothing if there is no record, or one that is itself damaged."""
    try:
        value = read_sealed(damage_path(output)) or {}
    except DamagedError:
        return {}  # verify finds it all again
    return dict(value.get("damaged", {}))

"""Fingerprints of outputs: digests (sha256) of the settings and inputs that an output depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galbatch.errors import FingerprintError

__all__ = ["PER_LEAF_PARTS", "Fingerprint", "differences", "digest", "refuse_difference", "shown"]


PER_LEAF_PARTS = frozenset(
    {"division", "objects", "tiles", "kept columns", "columns fed", "selected objects"}
)
"""Parts of a leaf's fingerprint that differ between the leaves of a run. All other parts are equal."""

CHANGES = {
    "tiles": "a file of a tile that covers these objects was replaced or touched, or another tile covers them",
    "objects": "these objects are others, or have other ids, positions or flags of the list",
    "kept columns": "the values of columns to keep have changed",
    "columns fed": "the values of columns that a network takes have changed",
    "selected objects": "a network takes other ones of these objects",
}
"""The meaning of a difference in parts whose values are digests, which say nothing by themselves."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The settings and inputs that an output depends on, by name, so that an error can name what differs."""

    parts: Mapping[str, str]

    @property
    def digest(self) -> str:
        """The sha256 of all parts, 64 hexadecimal digits."""
        return digest(dict(self.parts))

    def as_json(self) -> dict[str, Any]:
        """Return the fingerprint as a JSON object, which ``_done.json`` and the footers of the catalog's Parquet files store."""
        return {"digest": self.digest, "parts": dict(self.parts)}


def digest(value: Any) -> str:
    """Return the sha256 of a JSON value, a numpy array or a pyarrow table, as 64 hexadecimal digits.

    The digest of an array or table depends on its types and values, not on its chunks, slices or memory layout.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return _digest_texts([str(item) for item in value])
        # The dtype is hashed too: zeros of int64 and of float64 are the same bytes.
        return _sha256(str(value.dtype).encode(), np.ascontiguousarray(value).data)
    if isinstance(value, pa.Table):
        return digest([[f.name, str(f.type), _digest_column(value.column(f.name))] for f in value.schema])
    # Keys are sorted, so that the order in which a dict was filled does not change its digest.
    return _sha256(json.dumps(value, sort_keys=True, default=str).encode())


def _sha256(*parts: Any) -> str:
    result = hashlib.sha256()
    for part in parts:
        result.update(part)
    return result.hexdigest()


def _digest_texts(texts: list[str]) -> str:
    """Return the digest of texts and their lengths. Without the lengths ["a", "bc"] and ["ab", "c"] would be equal."""
    encoded = [text.encode() for text in texts]
    return _sha256(np.array([len(text) for text in encoded], np.int64).data, b"".join(encoded))


def _digest_column(column: pa.ChunkedArray) -> str:
    null = np.asarray(column.is_null().to_numpy(), np.bool_)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        content = _digest_texts(pc.fill_null(column, "").to_pylist())
    elif pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        # Arrow leaves the bytes under a null undefined, so they are set before they are hashed.
        content = digest(pc.fill_null(column, pa.scalar(0).cast(kind)).to_numpy())
    else:  # Dates, decimals and lists are rare in object lists, so one Python object per row is fast enough.
        content = _digest_texts([repr(item) for item in column.to_pylist()])
    # A null and a 0, or a null and an empty text, differ in the first part only.
    return digest([digest(null), content])


def refuse_difference(where: str, found: Mapping[str, Any] | None, expected: Fingerprint) -> None:
    """Raise if an existing output was written with another fingerprint.

    Parameters
    ----------
    where : str
        The output, as the message names it.
    found : mapping or None
        The output's fingerprint in the form of `Fingerprint.as_json`; None if it has none.
    expected : Fingerprint
        The fingerprint of this run.

    Notes
    -----
    Of a section of run.toml only the keys that differ are listed; one that an older version did not have was written with
    "(nothing)".

    Raises
    ------
    FingerprintError
        They differ. The message lists each part that differs, with both values.
    """
    if found is not None and found.get("digest") == expected.digest:
        return
    parts = (found or {}).get("parts", {})
    lines = [
        f"{where} was written with {what} {shown(old)}; this run uses {shown(new)}"
        + (f": {CHANGES[what]}" if what in CHANGES else "")
        for what, old, new in differences(parts, expected.parts)
    ]
    advice = (
        "choose another output path in run.toml, where [cutouts] base and [catalog] base take over what is unchanged, or run "
        "galbatch clean"
    )
    raise FingerprintError("\n".join([*lines, advice]) if lines else f"{where} has no fingerprint; {advice}")


def differences(
    found: Mapping[str, str], expected: Mapping[str, str]
) -> list[tuple[str, str | None, str | None]]:
    """Return what differs between the parts of two fingerprints: its name, and both values as text; None is no value.

    Of parts that are JSON objects, such as a section of run.toml, only the keys that differ are named: ``posterior tolerance``.
    """
    lines = []
    for name in sorted({*found, *expected}):
        old, new = found.get(name), expected.get(name)
        if old != new:
            lines += [(f"{name} {key}".rstrip(), *pair) for key, pair in _differing_keys(old, new).items()]
    return lines


def _differing_keys(old: str | None, new: str | None) -> dict[str, tuple[str | None, str | None]]:
    """Return both values of each key that differs; the key is "" where one of the parts has none."""
    if old is None or new is None or not (old[:1] in "{[" and new[:1] in "{["):
        return {"": (old, new)}
    flat = [_flattened(json.loads(text)) for text in (old, new)]
    keys = [key for key in dict.fromkeys([*flat[0], *flat[1]]) if flat[0].get(key) != flat[1].get(key)]
    return {key: (flat[0].get(key), flat[1].get(key)) for key in keys} or {"": (old, new)}


def _flattened(value: Any, place: str = "") -> dict[str, str]:
    """Return the single values of a JSON value as text, by their place such as ``generic.mask_planes.SAT``.

    Places in a list are numbered from 1 where it has several entries: run.toml mostly has one [survey].
    """
    items: Mapping[str, Any] = {}
    if isinstance(value, Mapping):
        items = value
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = {"" if len(value) == 1 else str(n): item for n, item in enumerate(value, 1)}
    if not items:
        return {place: value if isinstance(value, str) else json.dumps(value)}
    flat: dict[str, str] = {}
    for key, item in items.items():
        flat |= _flattened(item, ".".join(part for part in (place, key) if part))
    return flat


def shown(value: str | None) -> str:
    """Return a part of a fingerprint as messages show it: of a sha256 its first 12 digits, "(nothing)" for None."""
    if value is None:
        return "(nothing)"
    return ", ".join(f"{part[:12]}.." if _is_digest(part) else part for part in value.split(", "))


def _is_digest(text: str) -> bool:
    # A sha256 has 64 hexadecimal digits; messages show the first 12, which are enough to tell two digests apart.
    return len(text) == 64 and set(text) <= set("0123456789abcdef")

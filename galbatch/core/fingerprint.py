"""Fingerprints of outputs: digests of all that they depend on, of values, arrays and tables."""

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

__all__ = ["Fingerprint", "digest", "refuse_difference"]


@dataclass(frozen=True)
class Fingerprint:
    """All that an output depends on, part by part, so that a refusal can say what differs."""

    parts: Mapping[str, str]

    @property
    def digest(self) -> str:
        """sha256 of the parts, in hexadecimal."""
        return digest(dict(self.parts))

    def as_json(self) -> dict[str, Any]:
        """Return the form that is stored in ``_done.json`` and, as text, in a leaf's footer."""
        return {"digest": self.digest, "parts": dict(self.parts)}


def digest(value: Any) -> str:
    """Return the sha256 of a JSON value, of an array or of a table, in hexadecimal.

    Arrays and tables count by type and content: not by how they are cut into chunks, sliced or laid out.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return _digest_texts([str(item) for item in value])
        return _sha256(str(value.dtype).encode(), np.ascontiguousarray(value).data)
    if isinstance(value, pa.Table):
        return digest([[f.name, str(f.type), _digest_column(value.column(f.name))] for f in value.schema])
    return _sha256(json.dumps(value, sort_keys=True, default=str).encode())


def _sha256(*parts: Any) -> str:
    result = hashlib.sha256()
    for part in parts:
        result.update(part)
    return result.hexdigest()


def _digest_texts(texts: list[str]) -> str:
    """Return the digest of texts and of their lengths: ["a", "bc"] is not ["ab", "c"]."""
    encoded = [text.encode() for text in texts]
    return _sha256(np.array([len(text) for text in encoded], np.int64).data, b"".join(encoded))


def _digest_column(column: pa.ChunkedArray) -> str:
    null = np.asarray(column.is_null().to_numpy(), np.bool_)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        content = _digest_texts(pc.fill_null(column, "").to_pylist())
    elif pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        # What lies below a null is arbitrary.
        content = digest(pc.fill_null(column, pa.scalar(0).cast(kind)).to_numpy())
    else:  # dates, decimals, lists: seldom kept, one Python object each
        content = _digest_texts([repr(item) for item in column.to_pylist()])
    return digest([digest(null), content])


def refuse_difference(where: str, found: Mapping[str, Any] | None, expected: Fingerprint) -> None:
    """Refuse an output that was written with another fingerprint.

    Raises
    ------
    FingerprintError
        With the parts that differ, the value found and the value of this run.
    """
    if found is not None and found.get("digest") == expected.digest:
        return
    parts = (found or {}).get("parts", {})
    differing = sorted(key for key in {*parts, *expected.parts} if parts.get(key) != expected.parts.get(key))
    lines = [
        f"{where} was written with {key} {_short(parts.get(key))}; this run uses {_short(expected.parts.get(key))}"
        for key in differing
    ]
    advice = "choose another output path in run.toml, or run galbatch clean"
    raise FingerprintError("\n".join([*lines, advice]) if lines else f"{where} has no fingerprint; {advice}")


def _short(value: str | None) -> str:
    if value is None:
        return "(nothing)"
    return ", ".join(f"{part[:12]}.." if _is_digest(part) else part for part in value.split(", "))


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")

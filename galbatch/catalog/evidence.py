"""The evidence of injected galaxies that lies beside a catalog, and its line in the catalog's properties."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from galbatch import storage
from galbatch.catalog import layout

__all__ = ["EVIDENCE_PROPERTY", "evidence_path", "evidence_property", "note_evidence", "read_evidence"]

EVIDENCE_PROPERTY = "galbatch_injection"


def evidence_path(catalog_path: str) -> str:
    """Return the path of the evidence beside a catalog, which ``galbatch inject`` writes."""
    # Made absolute, because the catalog's path may be "." or end with a slash, to which no suffix can be added.
    return f"{storage.absolute(catalog_path)}_injection.json"


def read_evidence(catalog_path: str) -> dict[str, Any] | None:
    """Return the evidence beside a catalog as JSON; None if there is none."""
    return storage.read_json(evidence_path(catalog_path))


def evidence_property(catalog_path: str) -> dict[str, str]:
    """Return the property that tells of the evidence beside a catalog; empty if there is none."""
    content = read_evidence(catalog_path)
    return {} if content is None else {EVIDENCE_PROPERTY: content["text"]}


def note_evidence(catalog_path: str) -> None:
    """Write the line on the evidence into the properties of a catalog that is finished; do nothing to one that is not."""
    from hats.catalog import TableProperties

    try:
        found = TableProperties.read_from_dir(layout.hats_path(catalog_path))
    except FileNotFoundError:
        return
    values = found.model_dump(by_alias=True, exclude_none=True) | evidence_property(catalog_path)
    with tempfile.TemporaryDirectory() as folder:
        TableProperties(**values).to_properties_file(folder)
        for name in layout.PROPERTIES:
            storage.publish(storage.join(catalog_path, name), Path(folder, name).read_bytes())

"""Names of the fields of a bundle's metadata: what older bundles call them, and what they are called now.

New bundles write the new names. Files that are written already never change, as their sha256 is the model's identity and
every draw follows from it; so what they say is read through the table here.
"""

from __future__ import annotations

from typing import Any

__all__ = ["RENAMED_FIELDS", "with_current_names"]

RENAMED_FIELDS = {
    ("calibration", "spread_factors"): "inflation_factors",
    ("input", "columns"): "auxiliary_inputs",
}
"""New name of each field that was renamed, by the section it is in and its old name."""


def with_current_names(data: Any) -> Any:
    """Return the content of a bundle's ``galbatch.json`` with today's names of its fields.

    Parameters
    ----------
    data : what the JSON holds; what is not as expected is returned as it is, for the schema to refuse
    """
    if not isinstance(data, dict):
        return data
    renamed = dict(data)
    for (section, old), new in RENAMED_FIELDS.items():
        fields = renamed.get(section)
        # A file with both names contradicts itself: the old one stays and is an unknown key.
        if isinstance(fields, dict) and old in fields and new not in fields:
            renamed[section] = {new if name == old else name: value for name, value in fields.items()}
    return renamed

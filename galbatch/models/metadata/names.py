"""Fields of a bundle's metadata that were renamed.

New bundles are written with the new names. Older files cannot be changed, as their sha256 is the model's identity and the
random numbers of every pass depend on it; so their metadata are read through the table here.
"""

from __future__ import annotations

from typing import Any

__all__ = ["RENAMED_FIELDS", "with_current_names"]

RENAMED_FIELDS = {
    ("calibration", "spread_factors"): "inflation_factors",
    ("input", "columns"): "auxiliary_inputs",
}
"""The new name of each renamed field, by (section, old name)."""


def with_current_names(data: Any) -> Any:
    """Return the content of a bundle's ``galbatch.json``, with renamed fields under their new names.

    Parameters
    ----------
    data : parsed JSON; anything that is not an object with sections is returned unchanged, for the schema to refuse
    """
    if not isinstance(data, dict):
        return data
    # Copied, section by section, where something changes: the caller keeps what the file says.
    renamed = dict(data)
    for (section, old), new in RENAMED_FIELDS.items():
        fields = renamed.get(section)
        # A file with both names contradicts itself: the old one stays and is an unknown key.
        if isinstance(fields, dict) and old in fields and new not in fields:
            renamed[section] = {new if name == old else name: value for name, value in fields.items()}
    return renamed

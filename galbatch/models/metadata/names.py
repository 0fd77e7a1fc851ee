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
    # The records of how a network was converted: from SFNet, and from a foreign network.
    ("origin", "stretch"): "intensity_stretch",
    ("origin.preprocessing", "stretch"): "intensity_stretch",
}
"""The new name of each renamed field, by (section, old name); a dot leads into a section of a section."""


def with_current_names(data: Any, *, section: str = "") -> Any:
    """Return the content of a bundle's ``galbatch.json``, with renamed fields under their new names.

    Parameters
    ----------
    data : parsed JSON; anything that is not an object with sections is returned unchanged, for the schema to refuse
    section : the section that `data` is, where it is not the whole
    """
    if not isinstance(data, dict):
        return data
    # Copied, section by section: the caller keeps what the file says.
    renamed: dict[str, Any] = {}
    for name, value in data.items():
        new = RENAMED_FIELDS.get((section, name), "")
        # A file with both names contradicts itself: the old one stays and is an unknown key.
        current = new if new and new not in data else name
        renamed[current] = with_current_names(value, section=f"{section}.{name}" if section else name)
    return renamed

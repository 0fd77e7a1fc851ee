"""Cards of the gallery: the picture of an object with its flags, medians and 68 % intervals."""

from __future__ import annotations

import base64
import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from galbatch.core.columns import ID
from galbatch.core.flags import ModelFlag, PixelFlag
from galbatch.reporting.contents import Contents, Quantity
from galbatch.reporting.gallery import Picture

__all__ = ["embedded", "object_card", "shown_decimals"]


def object_card(contents: Contents, picture: Picture, truth: pa.Table | None) -> dict[str, Any]:
    """Return the template's values for one card.

    Parameters
    ----------
    contents : Contents
    picture : Picture
    truth : pyarrow.Table or None
        Table of known values, such as the truth of a simulated survey; None if there is none.

    Returns
    -------
    dict
        ``id``; ``image``, a data URL; ``marks``, SVG that lies over it; ``flags``, a list of names; ``lines``, a list of captions as dict of str.
    """
    row = picture.row
    names = [str(flag.name) for flag in PixelFlag if contents.flags[row] & int(flag)]
    for model, flags in contents.model_flags.items():
        names += [f"{model}: {flag.name}" for flag in ModelFlag if flags[row] & int(flag)]
    identity = contents.object_id[row]
    true_rows = [] if truth is None else truth.filter(pc.equal(truth[ID.name], identity)).to_pylist()
    has_magnitude = {quantity.model for quantity in contents.quantities if quantity.parameter == "mag"}
    captions = [
        _caption(quantity, row, true_rows[0] if true_rows else {})
        for quantity in contents.quantities
        # A flux is left out where the magnitude computed from it is shown.
        if not (quantity.parameter == "flux_njy" and quantity.model in has_magnitude)
    ]
    return {
        "id": identity,
        "image": embedded(picture.png),
        "marks": picture.marks,
        "flags": names,
        "lines": [caption for caption in captions if caption is not None],
    }


def _caption(quantity: Quantity, row: int, truth: dict[str, Any]) -> dict[str, str] | None:
    """Return the median as text, with the 68 % interval and the true value if they are known; None if the median is NaN."""
    median = float(quantity.median[row])
    if not math.isfinite(median):
        return None
    caption = {"name": quantity.short_title, "unit": quantity.unit, "up": "", "down": "", "true": ""}
    ends = quantity.interval(0.6827)
    if ends is None or not math.isfinite(ends[1][row] - ends[0][row]):
        return caption | {"value": f"{median:.3g}"}
    true = truth.get(quantity.parameter)
    # The truth table of a simulated survey names magnitudes by band.
    if true is None and quantity.parameter == "mag":
        true = truth.get("mag_g")
    up, down = float(ends[1][row]) - median, median - float(ends[0][row])
    decimals = shown_decimals(up, down)
    return caption | {
        "value": f"{median:.{decimals}f}",
        "up": f"+{up:.{decimals}f}",
        "down": f"−{down:.{decimals}f}",
        "true": "" if true is None else f"{true:.{decimals}f}",
    }


def shown_decimals(up: float, down: float) -> int:
    """Return the number of decimals, 0 to 3, that show the smaller half-width of an interval with two significant figures."""
    smaller = min((width for width in (up, down) if width > 0), default=1.0)
    return min(max(1 - math.floor(math.log10(smaller)), 0), 3)


def embedded(png: bytes) -> str:
    """Return a PNG as a data URL, so that the HTML page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()

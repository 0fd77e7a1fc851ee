"""Marks on the picture of a cutout: a scale bar, and arrows to the north and the east, as SVG that lies over the picture."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["bar_arcsec", "marks_svg"]

Floats = npt.NDArray[np.float64]

MOST_OF_WIDTH = 0.4
"""The bar takes at most this share of the picture's width, and at least a fifth of that: lengths step by 2 or 2.5."""

ARROW = 11.0
"""Length of the arrows in percent of the picture's width."""

CORNER = (84.0, 84.0)
"""Where both arrows begin, in percent from the upper left."""


def bar_arcsec(width_arcsec: float) -> float:
    """Return the length of the scale bar of a picture in arcsec: 1, 2 or 5 times a power of ten, at most 40 % of the width."""
    longest = MOST_OF_WIDTH * width_arcsec
    power = 10.0 ** math.floor(math.log10(longest))
    return next(step * power for step in (5.0, 2.0, 1.0) if step * power <= longest * (1 + 1e-9))


def marks_svg(size_px: int, cd_deg: Floats) -> str:
    """Return the marks of a square picture whose first row of pixels is at the bottom.

    Parameters
    ----------
    size_px : int
        Width of the cutout.
    cd_deg : (2, 2) float64
        The cutout's CD matrix, deg per pixel; its rows are east and north.

    Returns
    -------
    str
        An ``<svg>`` that fills its parent, whose text says length and directions.
    """
    scale_arcsec = 3600 * math.sqrt(abs(float(np.linalg.det(cd_deg))))
    bar = bar_arcsec(size_px * scale_arcsec)
    length = 100 * bar / (size_px * scale_arcsec)
    # The columns of the inverse are the steps in x and y, px, that lead east and north by one degree.
    east, north = np.linalg.inv(cd_deg).T
    lines = [f'<path d="M6 92h{length:.2f}M6 90v4M{6 + length:.2f} 90v4"/>']
    letters = [f'<text x="6" y="87" text-anchor="start">{bar:g}″</text>']
    for name, step in (("E", east), ("N", north)):
        x, y = step / np.hypot(*step) * (1, -1)  # an SVG counts y from the top
        lines.append(f'<path class="{name}" d="M{CORNER[0]} {CORNER[1]}l{ARROW * x:.2f} {ARROW * y:.2f}"/>')
        letters.append(
            f'<text x="{CORNER[0] + 1.45 * ARROW * x:.2f}" y="{CORNER[1] + 1.45 * ARROW * y + 2:.2f}" text-anchor="middle">{name}</text>'
        )
    drawn = "".join(lines)
    # White on a dark rim is seen on sky and on bright galaxies.
    return (
        '<svg class="marks" viewBox="0 0 100 100" aria-hidden="true" fill="none" stroke="#fff" stroke-width="0.8">'
        f'<g stroke="#000" stroke-opacity=".55" stroke-width="2">{drawn}</g>{drawn}'
        '<g fill="#fff" stroke="#000" stroke-opacity=".55" stroke-width="1.2" paint-order="stroke" font-size="6.5" '
        f'font-family="sans-serif">{"".join(letters)}</g></svg>'
    )

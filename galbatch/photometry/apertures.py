"""Apertures: the source at a cutout's center, its Kron ellipse, and the pixels within."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import sep

from galbatch.photometry.detection import Detected

__all__ = ["KRON_FACTOR", "Aperture"]

KRON_FACTOR = 2.5
"""Kron radii of an aperture's semi-major axis: 90 to 97 percent of a galaxy's light are within (Bertin & Arnouts 1996)."""

KRON_REACH = 6.0
"""Isophotal radii within which the Kron radius is measured, as in SExtractor."""

MIN_RADIUS_ARCSEC = 1.0
"""Least mean radius of an aperture: smaller ellipses, and those of objects without a source, become a circle of it."""

CENTER_ARCSEC = 1.0
"""A source this close to the center is the object's where no source has the central pixel."""


@dataclass(frozen=True)
class Aperture:
    """The aperture of an object, in pixels of the cutout.

    Attributes
    ----------
    x, y : center
    a, b : semi-axes
    theta : angle from x to the major axis, rad
    source : number of the object's source in the map of segments; 0: none was found there
    detected : the map of segments, and what is measured from it
    """

    x: float
    y: float
    a: float
    b: float
    theta: float
    source: int
    detected: Detected

    @classmethod
    def of(cls, detected: Detected, *, center_px: int, pixel_scale_arcsec: float) -> Aperture:
        """Return the aperture of the object at the central pixel."""
        least = MIN_RADIUS_ARCSEC / pixel_scale_arcsec
        source = _central_source(detected, center_px, reach_px=CENTER_ARCSEC / pixel_scale_arcsec)
        if source == 0:
            return cls(float(center_px), float(center_px), least, least, 0.0, 0, detected)
        row = detected.sources[source - 1]
        x, y, a, b, theta = (float(row[name]) for name in ("x", "y", "a", "b", "theta"))
        # SEP's theta may exceed pi/2 by its rounding to float32, which its apertures refuse.
        theta = float(np.clip(theta, -math.pi / 2, math.pi / 2))
        known: dict[str, Any] = {"mask": detected.bad, "seg_id": [source], "segmap": detected.segments}
        kron, _ = sep.kron_radius(detected.image, [x], [y], [a], [b], [theta], KRON_REACH, **known)
        factor = KRON_FACTOR * float(kron[0])
        if not factor * math.sqrt(a * b) > least:  # also where the Kron radius is NaN
            return cls(x, y, least, least, 0.0, source, detected)
        return cls(x, y, factor * a, factor * b, theta, source, detected)

    @cached_property
    def box(self) -> tuple[slice, slice]:
        """The window (y, x) of the cutout that holds the aperture."""
        reach, (ny, nx) = self.a + 1.0, self.detected.segments.shape
        return (
            slice(max(0, math.floor(self.y - reach)), min(ny, math.ceil(self.y + reach) + 1)),
            slice(max(0, math.floor(self.x - reach)), min(nx, math.ceil(self.x + reach) + 1)),
        )

    def squared_radius(self, y: npt.NDArray[Any], x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the square of the elliptical radius of pixels in units of the aperture's: 1 on its edge."""
        dx, dy = x - self.x, y - self.y
        cosine, sine = math.cos(self.theta), math.sin(self.theta)
        along, across = (dx * cosine + dy * sine) / self.a, (dy * cosine - dx * sine) / self.b
        squared: npt.NDArray[np.float64] = along * along + across * across
        return squared

    @cached_property
    def inside(self) -> npt.NDArray[np.bool_]:
        """The pixels of `box` whose centers lie within the ellipse, (y, x) bool; those without data are none."""
        rows, columns = self.box
        y, x = np.ogrid[rows, columns]
        within: npt.NDArray[np.bool_] = self.squared_radius(y, x) <= 1.0
        bad = self.detected.bad
        return within if bad is None else within & ~bad[self.box]

    @cached_property
    def others(self) -> npt.NDArray[np.int32]:
        """The numbers of other sources in the pixels of `box`, (y, x) int32; 0 where there is none."""
        segments = self.detected.segments[self.box]
        return np.where(segments == self.source, np.int32(0), segments) * self.inside

    @cached_property
    def own(self) -> npt.NDArray[np.bool_]:
        """The pixels of `inside` that no other source has, (y, x) bool."""
        mine: npt.NDArray[np.bool_] = self.inside & (self.others == 0)
        return mine

    @cached_property
    def distance(self) -> npt.NDArray[np.float64]:
        """The distance from the center of the pixels of `box`, (y, x) float64, in pixels."""
        rows, columns = self.box
        y, x = np.ogrid[rows, columns]
        apart: npt.NDArray[np.float64] = np.hypot(y - self.y, x - self.x)
        return apart

    @cached_property
    def sides(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """The pixels of `own` whose opposite about the nearest half pixel to the center is one, too, and these: places in the flat cutout."""
        (ny, nx), (rows, columns) = self.detected.segments.shape, self.box
        own = np.zeros((ny, nx), np.bool_)
        own[rows, columns] = self.own
        y, x = np.nonzero(own)
        to_y, to_x = round(2 * self.y) - y, round(2 * self.x) - x
        within = (to_y >= 0) & (to_y < ny) & (to_x >= 0) & (to_x < nx)
        here, there = (y * nx + x)[within], (to_y * nx + to_x)[within]
        both = own.reshape(-1)[there]
        return here[both], there[both]

    @property
    def sep_arguments(self) -> dict[str, Any]:
        """The arguments by which SEP leaves out the pixels of other sources, and those without data."""
        if self.source == 0:
            # Without a source of its own the object's pixels may belong to any: none is left out.
            return {"mask": self.detected.bad}
        return {"mask": self.detected.bad, "seg_id": [self.source], "segmap": self.detected.segments}

    def half_light_circle(self, radius_px: float) -> npt.NDArray[np.bool_]:
        """Return the pixels of `box` within a circle about the center that no other source has, (y, x) bool."""
        within: npt.NDArray[np.bool_] = self.distance <= radius_px
        return within & self.own


def _central_source(detected: Detected, center_px: int, *, reach_px: float) -> int:
    """Return the number of the source at the central pixel, else of the nearest one within `reach_px`; 0: none."""
    source = int(detected.segments[center_px, center_px])
    if source or not len(detected.sources):
        return source
    apart = np.hypot(detected.sources["x"] - center_px, detected.sources["y"] - center_px)
    nearest = int(np.argmin(apart))
    return nearest + 1 if apart[nearest] <= reach_px else 0

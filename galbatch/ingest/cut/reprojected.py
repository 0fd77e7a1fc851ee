"""Images on another grid by the published algorithms of reproject, for those who must cite one.

reproject gives an image alone. Variance, mask and the pixels that count as missing are those of `resample`'s own kernel,
which reaches farther than both algorithms do.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from astropy import units
from astropy.coordinates import ICRS, SkyCoord
from astropy.wcs.wcsapi import BaseLowLevelWCS, HighLevelWCSWrapper

from galbatch.ingest.headers import SkyWCS
from galbatch.ingest.pixels import Box

__all__ = ["reprojected"]


def reprojected(
    image: npt.NDArray[np.float32],
    *,
    origin: tuple[SkyWCS, Box],
    goal: tuple[SkyWCS, Box],
    area: npt.NDArray[np.float32],
    method: Literal["adaptive", "exact"],
) -> npt.NDArray[np.float32]:
    """Return an image's fluxes on other pixels, (goal y, goal x) float32; NaN where a pixel that it needs is NaN or beyond the edge.

    Parameters
    ----------
    image : (origin y, origin x) float32
        Flux per pixel.
    origin, goal : SkyWCS and Box
        The pixels of the image and those that are wanted: windows of what has that WCS.
    area : (goal y, goal x) float32
        Area of the wanted pixels, in the image's.
    method : {"adaptive", "exact"}
        ``adaptive``: DeForest 2004, Solar Physics 219, 3, with the Gaussian kernel of reproject's defaults, fluxes
        conserved. ``exact``: the mean surface brightness over the overlap of pixels as polygons on the sphere, times
        the pixel's area.
    """
    # Here, as importing it takes 0.4 s, and few runs ask for it.
    import reproject

    data = (np.asarray(image, np.float64), _wcs_of(*origin))
    options: dict[str, Any] = {"shape_out": goal[1].shape, "return_footprint": False}
    if method == "adaptive":
        # Two transformations a pixel instead of four: windows of a tile have no place where they are not unique.
        found = reproject.reproject_adaptive(
            data, _wcs_of(*goal), conserve_flux=True, roundtrip_coords=False, **options
        )
        return np.asarray(found, np.float32)
    return np.asarray(reproject.reproject_exact(data, _wcs_of(*goal), **options) * area, np.float32)


def _wcs_of(sky: SkyWCS, box: Box) -> HighLevelWCSWrapper:
    return HighLevelWCSWrapper(_WindowWCS(sky, box))


class _WindowWCS(BaseLowLevelWCS):  # type: ignore[misc]  # astropy has no types
    """A window of a `SkyWCS` as astropy's interface for any WCS: reproject then takes its positions, in ICRS, as they are."""

    pixel_n_dim = world_n_dim = 2
    world_axis_physical_types = ("pos.eq.ra", "pos.eq.dec")
    world_axis_units = ("deg", "deg")
    world_axis_object_components = (
        ("sky", 0, "spherical.lon.degree"),
        ("sky", 1, "spherical.lat.degree"),
    )

    def __init__(self, sky: SkyWCS, box: Box) -> None:
        self._sky, self._box = sky, box

    @property
    def world_axis_object_classes(self) -> dict[str, Any]:
        """The class of positions, as the interface wants it."""
        return {"sky": (SkyCoord, (), {"frame": ICRS(), "unit": units.deg})}

    def pixel_to_world_values(self, *pixel_arrays: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], ...]:
        """Return ra and dec, deg, of pixels of the window."""
        x, y = (np.asarray(values, np.float64) for values in pixel_arrays)
        return self._sky.to_sky(x + self._box.x0, y + self._box.y0)

    def world_to_pixel_values(self, *world_arrays: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], ...]:
        """Return x and y of positions, in pixels of the window."""
        x, y = self._sky.to_pixels(*world_arrays, tolerance_px=1e-6)
        return x - self._box.x0, y - self._box.y0

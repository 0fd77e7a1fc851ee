"""Survey masks at positions: regions of ds9, MOCs, HealSparse maps, polygons of mangle."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from galbatch import storage
from galbatch.config import MaskConfig, RegionConfig
from galbatch.core import sky
from galbatch.core.process import require
from galbatch.errors import ObjectListError
from galbatch.objects.region import region_of

__all__ = ["open_mask"]

Floats = npt.NDArray[np.float64]
Mask = Callable[[Floats, Floats], npt.NDArray[np.bool_]]
"""Which positions lie inside, (position,) bool, of right ascensions and declinations (position,) in deg."""

MANGLE = (".ply", ".pol", ".mangle")
"""Endings of files of mangle's polygons, as surveys distribute them."""

WITHOUT_AREA = ("point", "line", "text", "vector", "ruler", "compass", "projection", "segment")
"""Shapes of ds9 that no position lies in, as ds9 writes them and as the names of regions' classes begin."""

FRAMES = ("icrs", "fk5", "fk4", "galactic")
"""Frames of shapes but circles, for which a tangential plane is laid at the shape, by their names in astropy."""


def open_mask(config: MaskConfig) -> Mask:
    """Return the function that says which positions lie inside a mask.

    Raises
    ------
    ObjectListError
        There is no such file, it is of no kind that is read, or a region is in pixels of an image that is not known, in a frame or of a shape
        that is not read.
    MissingPackage
        A HealSparse map without the package healsparse, or polygons of mangle without pymangle.
    """
    where = f"run.toml: [[masks]] {config.name}: {config.path}"
    lower = config.path.lower()
    if not storage.exists(config.path):
        raise ObjectListError(f"{where}: there is no such file")
    if lower.endswith(MANGLE):
        return _mangle(config.path, where)
    if lower.endswith(".reg"):
        return _ds9(config.path, where)
    if _is_healsparse(config.path):
        return _healsparse(config.path, where)
    try:
        found = region_of(RegionConfig(moc=config.path))
    except ObjectListError as error:
        reason = str(error).rpartition(f"{config.path}: ")[2]
        raise ObjectListError(
            f"{where}: {reason}; a mask is a MOC, a HealSparse map, regions of ds9 (.reg), or polygons of mangle (.ply, .pol)"
        ) from None
    assert found is not None, "a MOC is a region"
    return found.contains


def _is_healsparse(path: str) -> bool:
    try:
        with fits.open(storage.local_copy(path, sha256=None)) as hdus:
            return "SPARSE" in [hdu.name for hdu in hdus]
    except OSError:
        return False  # a MOC in JSON or ASCII


def _healsparse(path: str, where: str) -> Mask:
    healsparse = require("healsparse", where=where)
    found = healsparse.HealSparseMap.read(str(storage.local_copy(path, sha256=None)))

    def contains(ra_deg: Floats, dec_deg: Floats) -> npt.NDArray[np.bool_]:
        has_value = found.get_values_pos(ra_deg, dec_deg, lonlat=True, valid_mask=True)
        values = np.asarray(found.get_values_pos(ra_deg, dec_deg, lonlat=True))
        # A wide mask has several bytes for each position.
        nonzero = values.astype(bool) if values.ndim == 1 else values.astype(bool).any(axis=1)
        return np.asarray(has_value & nonzero)

    return contains


def _mangle(path: str, where: str) -> Mask:
    pymangle = require("pymangle", where=where)
    copy = storage.local_copy(path, sha256=None)
    try:
        found = pymangle.Mangle(str(copy))
    except OSError:
        raise ObjectListError(
            f"{where}: is no file of polygons as mangle writes it, in text with the caps of each; write it so with mangle's poly2poly -op"
        ) from None

    def contains(ra_deg: Floats, dec_deg: Floats) -> npt.NDArray[np.bool_]:
        # pymangle refuses to look up no position at all.
        if not len(ra_deg):
            return np.zeros(0, np.bool_)
        return np.asarray(found.weight(ra_deg, dec_deg) != 0)

    return contains


def _ds9(path: str, where: str) -> Mask:
    import regions

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = regions.Regions.parse(storage.read_bytes(path).decode(errors="replace"), format="ds9")
        except (ValueError, TypeError, KeyError) as error:
            raise ObjectListError(f"{where}: is no region file of ds9: {error}") from None
    _require_all_read([str(one.message) for one in caught], where)
    shapes = [one for one in found if not type(one).__name__.lower().startswith(WITHOUT_AREA)]
    if in_pixels := [one for one in shapes if isinstance(one, regions.PixelRegion)]:
        raise ObjectListError(
            f"{where}: {len(in_pixels)} of its {len(shapes)} regions are in pixels of an image; save them in sky coordinates (fk5, icrs or galactic)"
        )
    if not shapes:
        raise ObjectListError(f"{where}: holds no region with an area")
    on_planes = [one for one in shapes if not hasattr(one, "radius")]
    if others := {name for one in on_planes if (name := _frame_of(one).name) not in FRAMES}:
        raise ObjectListError(
            f"{where}: has regions in {', '.join(sorted(others))} coordinates; save it in fk5, icrs or galactic"
        )
    parts = [(*_circle_around(one), _contains(one), one.meta.get("include", True)) for one in shapes]

    def contains(ra_deg: Floats, dec_deg: Floats) -> npt.NDArray[np.bool_]:
        tree = scipy.spatial.cKDTree(sky.unit_vectors(ra_deg, dec_deg))
        inside = np.zeros(len(ra_deg), np.bool_)
        # In the order of the file: a region with a minus takes away from those before it.
        for center, radius_deg, holds, is_included in parts:
            chord = 2 * np.sin(np.radians(min(radius_deg, 180.0)) / 2) * (1 + 1e-9)
            near = np.array(tree.query_ball_point(center, chord), np.intp)
            inside[near[holds(ra_deg[near], dec_deg[near])]] = is_included
        return inside

    return contains


def _require_all_read(messages: Sequence[str], where: str) -> None:
    """Refuse a file of which regions passes over a line with an area, such as a panda or a shape without a frame: its mask would lack it."""
    skipped = [message for message in messages if message.rstrip().endswith("skipping.")]
    if lost := [one for one in skipped if not one.startswith(tuple(f'"{name}"' for name in WITHOUT_AREA))]:
        raise ObjectListError(
            f"{where}: {len(lost)} of its lines cannot be read: {lost[0]} Write it as circles, ellipses, boxes, polygons or annuli in fk5, icrs or galactic"
        )


def _circle_around(shape: Any) -> tuple[Floats, float]:
    """Return a circle that holds a shape: its center as a unit vector (xyz,) and its radius in deg."""
    if hasattr(shape, "vertices"):
        corners = shape.vertices.icrs
        vectors = sky.unit_vectors(corners.ra.deg, corners.dec.deg)
        center = vectors.sum(axis=0) / np.linalg.norm(vectors.sum(axis=0))
        return center, float(np.degrees(np.arccos(np.clip(vectors @ center, -1, 1))).max()) + 1e-6
    at = shape.center.icrs
    (center,) = sky.unit_vectors([at.ra.deg], [at.dec.deg])
    sizes = [
        factor * getattr(shape, name).to_value("deg")
        for name, factor in (
            ("radius", 1.0),
            ("outer_radius", 1.0),
            ("width", 0.75),
            ("height", 0.75),
            ("outer_width", 0.75),
            ("outer_height", 0.75),
        )
        if hasattr(shape, name)
    ]
    # The corner of a square is 0.71 of its side from the center, and the projection of a large shape adds a little.
    return center, float(np.hypot.reduce(sorted(sizes)[-2:])) + 1e-6


def _frame_of(shape: Any) -> Any:
    """Return the astropy frame that a shape is stated in."""
    return shape.vertices.frame if hasattr(shape, "vertices") else shape.center.frame


def _contains(shape: Any) -> Mask:
    """Return the function of one shape: circles by the angle from their center, others on the tangential plane at it, on which great circles are lines."""
    if hasattr(shape, "radius"):
        at, radius_arcsec = shape.center.icrs, shape.radius.to_value("arcsec")
        return lambda ra, dec: sky.separation_arcsec(ra, dec, at.ra.deg, at.dec.deg) <= radius_arcsec
    wcs = WCS(naxis=2)
    frame = _frame_of(shape)
    middle, _ = _circle_around(shape)
    ra_deg, dec_deg = sky.position_deg(middle)
    center = SkyCoord(ra_deg, dec_deg, unit="deg").transform_to(frame).spherical
    is_galactic = frame.name == "galactic"
    wcs.wcs.ctype = ("GLON-TAN", "GLAT-TAN") if is_galactic else ("RA---TAN", "DEC--TAN")
    wcs.wcs.crval = (center.lon.deg, center.lat.deg)
    wcs.wcs.cdelt = (-1 / 3600, 1 / 3600)
    if not is_galactic:
        wcs.wcs.radesys = frame.name.upper()
    return lambda ra, dec: np.asarray(shape.contains(SkyCoord(ra, dec, unit="deg"), wcs))

"""Tiles without files, for what is worked out from their place on the sky alone."""

import sys
import types

import numpy as np
import pytest

from galbatch.core.types import FileIdentity, Plane, Tile
from tests.unit import fake_butler


def _tile_at(
    ra_deg, dec_deg, *, size_deg=0.196, band="g", name=None, angle_deg=0.0, root="/survey", compressed=False
):
    """A square tile of 4200 x 4200 px with image, mask and variance, as HSC's patches are 0.196 deg wide."""
    name = name or f"{ra_deg:.4f},{dec_deg:.4f}"
    path = f"{root}/{band}/{name}.fits"
    ra, dec = np.radians([ra_deg, dec_deg])
    center = np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    north = np.array([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
    half = np.tan(np.radians(size_deg / 2))
    turn = np.radians(angle_deg)
    corners = []
    for x, y in ((-half, -half), (half, -half), (half, half), (-half, half)):
        u, v = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
        vector = center + u * east + v * north
        vector /= np.linalg.norm(vector)
        corners.append(
            (
                float(np.degrees(np.arctan2(vector[1], vector[0])) % 360.0),
                float(np.degrees(np.arcsin(vector[2]))),
            )
        )
    packed = {"block_px": (1, 4200), "stored_bytes": 20_000_000} if compressed else {}
    return Tile(
        tile_id=name,
        band=band,
        image=Plane(path, 1, **packed),
        shape_px=(4200, 4200),
        wcs_header="",
        grid_key="tract",
        njy_per_unit=57.544,
        pixel_scale_arcsec=0.168,
        corners_deg=tuple(corners),
        mask=Plane(path, 2, **packed),
        weight=Plane(path, 3, **packed),
        identity=FileIdentity(211_680_000, "1"),
    )


@pytest.fixture(scope="session")
def tile_at():
    return _tile_at


@pytest.fixture
def daf_butler(monkeypatch):
    """Set what the Butler holds."""
    module = types.ModuleType("lsst.daf.butler")
    module.Butler, module.ButlerUserError = fake_butler.Butler, fake_butler.ButlerUserError
    monkeypatch.setitem(sys.modules, "lsst", types.ModuleType("lsst"))
    monkeypatch.setitem(sys.modules, "lsst.daf", types.ModuleType("lsst.daf"))
    monkeypatch.setitem(sys.modules, "lsst.daf.butler", module)

    def hold(*refs):
        monkeypatch.setattr(fake_butler.Butler, "refs", refs)
        return module

    return hold

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData
from PIL import Image

import galbatch
from galbatch.core.flags import MaskBit
from galbatch.errors import CatalogError, UsageError
from tests.unit.api.conftest import ANGLE_DEG, GRID, IDS


@pytest.fixture
def first(small: str) -> galbatch.CatalogObject:
    return galbatch.open_catalog(small).object(IDS[0])


def test_values_have_units(first: galbatch.CatalogObject) -> None:
    assert (first.id, first["object_id"], type(first["object_id"])) == (IDS[0], IDS[0], int)
    assert first["net_re_arcsec_q500"] == 1.25 * u.arcsec
    assert first["net_re_arcsec_label"] == "small"
    assert first.position.separation(SkyCoord(150.1, -2.2, unit="deg")) < 1e-6 * u.arcsec
    lower, upper = first.interval("re_arcsec")
    assert [lower.value, upper.value] == pytest.approx([1.219, 1.281])
    with pytest.raises(CatalogError, match=r"no column z_bst; did you mean z_best\?"):
        first["z_bst"]


def test_flags_have_texts(first: galbatch.CatalogObject) -> None:
    assert [flag.name for flag in first.flags["flags"]] == ["BAD_CENTER", "MOSAICKED"]
    assert first.flags["net_flags"] == ()
    assert repr(first).endswith("10:00:24.00 -02:12:00.0, BAD_CENTER, MOSAICKED>")


def test_a_cutout_of_one_band_is_ccddata(first: galbatch.CatalogObject, tmp_path: Path) -> None:
    image = first.cutout("r")
    assert isinstance(image, CCDData)
    # The object lies at the center, in the frame that the store turned.
    assert (image.shape, image.unit, image.data[12, 12]) == ((24, 24), u.nJy, 200.0)
    x, y = image.wcs.world_to_pixel(first.position)
    assert (float(x), float(y)) == pytest.approx((12.0, 12.0), abs=1e-6)
    north_of = image.wcs.world_to_pixel(first.position.directional_offset_by(0 * u.deg, 1 * u.arcsec))
    turned = np.degrees(np.arctan2(float(north_of[0]) - 12.0, float(north_of[1]) - 12.0))
    assert abs(turned) == pytest.approx(ANGLE_DEG, abs=1e-3)
    assert np.argwhere(image.mask).tolist() == [[12, 12]]
    assert image.flags[12, 12] == int(MaskBit.SAT)
    assert (image.uncertainty.uncertainty_type, image.uncertainty.unit) == ("var", u.nJy**2)
    assert (image.meta["FILTER"], image.meta["PSFFWHM"]) == ("r", pytest.approx(0.7))
    path = tmp_path / "cutout.fits"
    image.write(path)
    back = CCDData.read(path)
    assert (back.shape, back.unit, back.data[12, 12]) == ((24, 24), u.nJy, 200.0)


def test_a_cutout_of_all_bands_is_a_cube_that_can_be_cut(first: galbatch.CatalogObject) -> None:
    cube = first.cutout()
    assert (cube.shape, list(cube.meta), cube.flags.shape) == ((2, 24, 24), ["g", "r"], (2, 24, 24))
    red = cube[1]
    assert (red.shape, red.data[12, 12], bool(red.mask[12, 12])) == ((24, 24), 200.0, True)
    x, y = red.wcs.world_to_pixel(first.position)
    assert (float(x), float(y)) == pytest.approx((12.0, 12.0), abs=1e-6)
    scale = np.sqrt(abs(np.linalg.det(cube.wcs.celestial.wcs.cd))) * 3600
    assert scale == pytest.approx(GRID.pixel_scale_arcsec)


def test_a_cutout_that_is_not_there(small: str, tmp_path: Path, first: galbatch.CatalogObject) -> None:
    with pytest.raises(UsageError, match="no band q; there are g, r"):
        first.cutout("q")
    without = galbatch.open_catalog(small, store=str(tmp_path / "none.zarr")).object(IDS[0])
    with pytest.raises(UsageError, match=r"none.zarr: no cutout store; .* open_catalog\(.., store=..\)"):
        without.cutout()
    assert "<img" not in without._repr_html_()


def test_draws_that_were_not_kept(first: galbatch.CatalogObject) -> None:
    with pytest.raises(CatalogError, match=r"made without .* keep_pass_outputs = true"):
        first.draws()


def test_notebooks_show_values_flags_and_the_picture(first: galbatch.CatalogObject) -> None:
    html = first._repr_html_()
    for text in ("BAD_CENTER (quality): Bad", "1.219 to 1.281", "<dd>64 passes, Monte Carlo error 0.05"):
        assert text in html
    png = base64.b64decode(re.search(r'base64,([^"]+)"', html).group(1))
    pixels = np.asarray(Image.open(io.BytesIO(png)))
    # Three pixels of the picture for one of the cutout; r has twice the flux of g.
    assert pixels.shape == (72, 72, 3)
    assert pixels[34, 37, 0] > pixels[34, 37, 2]


def test_notebooks_show_flags_in_words(first: galbatch.CatalogObject) -> None:
    html = first.flags._repr_html_()
    assert "<dt>flags</dt><dd>BAD_CENTER (quality): Bad" in html
    assert "<dt>net_flags</dt><dd>none</dd>" in html
    assert first.flags == dict(first.flags)

"""Flags that follow from the photometry, on simulated galaxies and stars, spoiled in the ways that they are for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from galbatch import photometry, simulation
from galbatch.config import FlagsConfig, PhotometryConfig
from galbatch.core.columns import photometry_columns
from galbatch.core.flags import PixelFlag
from galbatch.core.types import CutoutBlock
from galbatch.simulation import Sky
from galbatch.simulation.stamps import stamp_psf_fwhm_arcsec
from tests.unit.photometry.scenes import SCALE, block_of, gaussian

BANDS = ("g", "i")
SIZE_PX = 96
N = 60
ALONE = Sky(correlated=True)


def drawn(truth: pa.Table, sky: Sky = ALONE) -> CutoutBlock:
    images = simulation.draw_stamps(truth, bands=BANDS, size_px=SIZE_PX, seed=4, sky=sky)
    widths = stamp_psf_fwhm_arcsec(truth, bands=BANDS, seed=4)
    return dataclasses.replace(block_of(images, BANDS), psf_fwhm_arcsec=widths)


@pytest.fixture(scope="module")
def truth() -> pa.Table:
    drawn_truth = simulation.draw_population(4 * N, bands=BANDS, population="survey", seed=4)
    # Galaxies that the PSF does not hide, as "clean" means.
    resolved = np.flatnonzero(np.asarray(drawn_truth["re_arcsec"]) > 0.35)[:N]
    return drawn_truth.take(pa.array(resolved))


@pytest.fixture(scope="module")
def clean(truth: pa.Table) -> CutoutBlock:
    return drawn(truth)


@pytest.fixture(scope="module")
def stars(truth: pa.Table) -> CutoutBlock:
    """The same light from points."""
    columns = truth.to_pydict()
    for part in ("disk", "bulge"):
        columns[f"{part}_re_arcsec"] = [
            None if one is None else 0.005 for one in columns[f"{part}_re_arcsec"]
        ]
        columns[f"{part}_n"] = [None if one is None else 1.0 for one in columns[f"{part}_n"]]
    points = pa.table({name: pa.array(one, truth.schema.field(name).type) for name, one in columns.items()})
    return drawn(points)


def flagged(block: CutoutBlock, flag: PixelFlag, *, known: int = 0, **thresholds: float) -> np.ndarray:
    """Whether each object has the flag."""
    return (all_flags(block, known=known, **thresholds) & flag) != 0


def all_flags(block: CutoutBlock, *, known: int = 0, **thresholds: float) -> np.ndarray:
    return photometry.photometry_flags(
        photometry.measure_photometry(block, PhotometryConfig()),
        dataclasses.replace(block, flags=np.full(len(block), known, np.int32)),
        thresholds=FlagsConfig(**thresholds),
    )


def changed(block: CutoutBlock, images: np.ndarray) -> CutoutBlock:
    return dataclasses.replace(block, image=images.astype(np.float32))


def test_clean_galaxies_have_none_but_three_percent(clean: CutoutBlock) -> None:
    assert np.mean(all_flags(clean) != 0) <= 0.034  # two of sixty


def test_stars_are_point_like(stars: CutoutBlock, clean: CutoutBlock) -> None:
    bright = photometry.measure_photometry(stars, PhotometryConfig())
    snr = np.maximum.reduce([bright[f"phot_flux_njy_{b}"] / bright[f"phot_flux_err_njy_{b}"] for b in BANDS])
    assert (snr > 20).sum() > 50
    assert flagged(stars, PixelFlag.POINT_LIKE)[snr > 20].mean() >= 0.95
    assert flagged(clean, PixelFlag.POINT_LIKE).mean() <= 0.034


def test_without_a_psf_no_object_is_point_like(stars: CutoutBlock) -> None:
    unknown = np.full_like(stars.psf_fwhm_arcsec, np.nan)
    assert not flagged(dataclasses.replace(stars, psf_fwhm_arcsec=unknown), PixelFlag.POINT_LIKE).any()


def test_neighbors_that_no_list_holds_are_blended(clean: CutoutBlock) -> None:
    """A neighbor 2 arcsec away with as much light."""
    there = SIZE_PX // 2 + 2.0 / SCALE
    light = clean.image.sum(axis=(2, 3), keepdims=True)
    neighbor = gaussian(SIZE_PX, flux=1.0, sigma_px=1.9, at=(there, SIZE_PX // 2))
    blended = flagged(changed(clean, clean.image + light * neighbor), PixelFlag.BLENDED)
    assert blended.mean() > 0.8
    assert not flagged(clean, PixelFlag.BLENDED).any()


def test_cut_off_cores_without_a_mask_bit(stars: CutoutBlock) -> None:
    level = 0.4 * stars.image.max(axis=(2, 3), keepdims=True)
    bright = (stars.image.max(axis=(2, 3)) > 500).any(axis=1)
    assert bright.sum() >= 5
    flat = changed(stars, np.minimum(stars.image, level))
    assert flagged(flat, PixelFlag.SATURATED_CORE)[bright].all()
    assert not flagged(stars, PixelFlag.SATURATED_CORE).any()
    # A core that the mask marks is SATURATED, and no more.
    assert not flagged(flat, PixelFlag.SATURATED_CORE, known=PixelFlag.SATURATED).any()


@pytest.mark.parametrize(
    ("offset_njy", "least", "most"), [(5.0, 0.6, 1.0), (-5.0, 0.6, 1.0), (0.1, 0.0, 0.1)]
)
def test_a_sky_that_moves_the_flux(clean: CutoutBlock, offset_njy: float, least: float, most: float) -> None:
    share = flagged(changed(clean, clean.image + offset_njy), PixelFlag.SKY_OFFSET).mean()
    assert least <= share <= most


def test_thresholds_are_keys(clean: CutoutBlock) -> None:
    assert flagged(clean, PixelFlag.POINT_LIKE, point_like_ratio=2.0).mean() > 0.8
    assert flagged(clean, PixelFlag.SATURATED_CORE, flat_core_share=0.0).any()
    assert not flagged(clean, PixelFlag.SKY_OFFSET, sky_offset_share=10.0).any()


QUIET = {
    "phot_radius_arcsec": 1.68,
    "phot_axis_ratio": 0.5,
    "phot_flux_njy_r": 1000.0,
    "phot_flux_err_njy_r": 10.0,
    "phot_others_share_r": 0.0,
    "phot_flat_share_r": 0.05,
    "phot_sky_njy_r": 0.0,
    "phot_sky_err_njy_r": 0.1,
    "phot_core_ratio_r": 0.7,
}
"""An object without flags, whose aperture has the area 100 px pi / 2 = 157 px."""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0),
        ({"phot_others_share_r": 0.049}, 0),
        ({"phot_others_share_r": 0.051}, PixelFlag.BLENDED),
        ({"phot_flat_share_r": 0.29}, 0),
        ({"phot_flat_share_r": 0.31}, PixelFlag.SATURATED_CORE),
        ({"phot_asymmetric_share_r": 0.129}, 0),
        ({"phot_asymmetric_share_r": 0.131}, PixelFlag.BLENDED),
        # 0.08 of the flux are 80 nJy, of the sky 0.509 nJy a pixel.
        ({"phot_sky_njy_r": -0.50}, 0),
        ({"phot_sky_njy_r": -0.52}, PixelFlag.SKY_OFFSET),
        ({"phot_sky_njy_r": 0.97, "phot_sky_err_njy_r": 0.33}, 0),
        ({"phot_sky_njy_r": 0.97, "phot_sky_err_njy_r": 0.32}, PixelFlag.SKY_OFFSET),
        ({"phot_core_ratio_r": 0.596}, 0),
        ({"phot_core_ratio_r": 0.594}, PixelFlag.POINT_LIKE),
        ({"phot_core_ratio_r": 0.594, "phot_flux_err_njy_r": 49.0}, PixelFlag.POINT_LIKE),
        ({"phot_core_ratio_r": 0.594, "phot_flux_err_njy_r": 51.0}, 0),
        (dict.fromkeys(QUIET, np.nan), 0),
    ],
)
def test_each_flag_begins_at_its_threshold(changes: dict[str, float], expected: int) -> None:
    values = {name: np.array([value], np.float32) for name, value in (QUIET | changes).items()}
    values |= {
        column.name: np.array([np.nan], np.float32)
        for column in photometry_columns(("r",))
        if column.name not in values
    }
    cutouts = block_of(np.zeros((1, 1, 4, 4)), ("r",))
    found = photometry.photometry_flags(values, cutouts, thresholds=FlagsConfig())
    assert found.tolist() == [expected]


@pytest.mark.parametrize(
    ("stars", "is_unlike"), [(0.91, False), (0.93, True), (0.69, False), (0.67, True), (np.nan, False)]
)
def test_stars_that_are_unlike_the_stated_psf(stars: float, is_unlike: bool) -> None:
    """Of 0.8 arcsec, in the second band of two, in which nothing is measured."""
    values = {column.name: column.empty(1) for column in photometry_columns(("g", "r"))}
    cutouts = block_of(np.zeros((1, 2, 4, 4)), ("g", "r"), fwhm=0.8)
    assert photometry.photometry_flags(values, cutouts, thresholds=FlagsConfig()).tolist() == [0]
    known = dataclasses.replace(cutouts, psf_fwhm_stars_arcsec=np.array([[0.8, stars]], np.float32))
    found = photometry.photometry_flags(values, known, thresholds=FlagsConfig())
    assert found.tolist() == [PixelFlag.PSF_UNLIKE if is_unlike else 0]


@pytest.mark.parametrize(
    ("level", "error", "changes", "is_off"),
    [
        # 0.01 of the flux are 10 nJy: of the 16 pixels of the cutout 0.625 nJy each, of the aperture's 157 two errors of the flux are 20 nJy.
        (0.62, 0.1, {}, False),
        (0.63, 0.1, {}, True),
        (-0.63, 0.1, {}, True),
        (0.63, 0.22, {}, False),
        (0.63, 0.1, {"phot_flux_err_njy_r": 49.0}, True),
        (0.63, 0.1, {"phot_flux_err_njy_r": 50.0}, False),
        (np.nan, np.nan, {}, False),
        (0.63, np.nan, {}, False),
        (0.63, 0.1, {"phot_flux_njy_r": np.nan}, False),
    ],
)
def test_a_level_of_the_tiles_sky(
    level: float, error: float, changes: dict[str, float], is_off: bool
) -> None:
    """The cutout's own sky is known to be 0, or unknown."""
    for own in (0.0, np.nan):
        quiet = QUIET | {"phot_sky_njy_r": own} | changes
        values = {column.name: column.empty(1) for column in photometry_columns(("g", "r"))}
        values |= {name: np.array([value], np.float32) for name, value in quiet.items()}
        cutouts = block_of(np.zeros((1, 2, 4, 4)), ("g", "r"))
        assert photometry.photometry_flags(values, cutouts, thresholds=FlagsConfig()).tolist() == [0]
        known = dataclasses.replace(
            cutouts,
            sky_level_njy=np.array([[0.0, level]], np.float32),
            sky_level_err_njy=np.array([[0.1, error]], np.float32),
        )
        found = photometry.photometry_flags(values, known, thresholds=FlagsConfig())
        assert found.tolist() == [PixelFlag.SKY_OFFSET if is_off else 0]
        none = photometry.photometry_flags(values, known, thresholds=FlagsConfig(sky_level_share=10.0))
        assert none.tolist() == [0]

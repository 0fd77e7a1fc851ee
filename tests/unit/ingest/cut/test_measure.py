"""Each number and each bit against loops over pixels that cannot be misread."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from galbatch.config import FlagsConfig, parse_strictly
from galbatch.core.flags import MaskBit, PixelFlag
from galbatch.core.types import Grid
from galbatch.errors import ConfigError
from galbatch.ingest.cut.measure import KnownNoise, Measured, measure

SIZE = 41
GRID = Grid(SIZE, 0.2)
CENTER = GRID.center_px
FLAGS = FlagsConfig()
SIGMA = 10.0


class Block:
    """A block of noise with a bright center: no flag at all."""

    def __init__(self, n_objects: int = 3, n_bands: int = 2, size: int = SIZE) -> None:
        rng = np.random.default_rng(1)
        shape = (n_objects, n_bands, size, size)
        self.grid = Grid(size, 0.2)
        self.image = rng.normal(scale=SIGMA, size=shape).astype(np.float32)
        self.image[:, :, size // 2, size // 2] = 2000.0
        self.mask = np.zeros(shape, np.uint16)
        self.variance = np.full(shape, SIGMA**2, np.float32)

    def measured(self, **changes: Any) -> Measured:
        noise_correlation = changes.pop("noise_correlation", None)
        return measure(
            self.image,
            self.mask,
            variance=self.variance,
            grid=self.grid,
            flags=FlagsConfig(**changes),
            noise=KnownNoise(noise_correlation),
        )


def flags_of(block: Block, **changes: Any) -> list[PixelFlag]:
    return [PixelFlag(int(value)) for value in block.measured(**changes).flags]


def reference_sky(image: npt.NDArray[Any], mask: npt.NDArray[Any], size: int) -> float:
    """1.4826 MAD of every k-th pixel of the frame that is neither detected nor missing."""
    width = max(1, int(size * 0.125))
    frame = [
        (y, x) for y in range(size) for x in range(size) if min(y, x, size - 1 - y, size - 1 - x) < width
    ]
    frame = frame[:: max(1, len(frame) // 1000)]
    detected = int(MaskBit.DETECTED | MaskBit.NEGATIVE)
    values = [image[at] for at in frame if np.isfinite(image[at]) and not mask[at] & detected]
    if len(values) < 32:
        return float("nan")
    return float(1.482602218505602 * np.median(np.abs(values - np.median(values))))


# --- coverage and sky ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 41, 96, 143])
def test_sky_and_coverage_equal_the_slow_reference(size: int) -> None:
    # More planes than are passed over at once, so that all chunks are in the comparison.
    block = Block(n_objects=6, n_bands=3, size=size)
    rng = np.random.default_rng(2)
    block.image[0, 0, :, : size // 3] = np.nan
    block.image[1, 1] = np.nan
    block.image[2, 0, 0, 0], block.image[2, 1, 0, 0] = np.inf, -np.inf
    block.image[3, 2] += np.float32(3e37)  # finite, though its sum is not
    block.mask[4, 0] = np.where(rng.random((size, size)) < 0.3, int(MaskBit.DETECTED), 0)
    block.mask[4, 1] = np.where(rng.random((size, size)) < 0.3, int(MaskBit.NEGATIVE), 0)
    block.image[5, 0, 1:] = np.nan  # one row: too few pixels where the cutout is small
    measured = block.measured()
    for index in np.ndindex(6, 3):
        image = block.image[index]
        assert measured.coverage[index] == np.float32(np.isfinite(image).sum() / size**2)
        assert measured.sky_sigma_njy[index] == pytest.approx(
            reference_sky(image, block.mask[index], size), rel=1e-5, nan_ok=True
        )


def test_the_sky_scatter_is_that_of_the_noise() -> None:
    block = Block(n_objects=8, n_bands=1, size=239)
    sigma = block.measured().sky_sigma_njy
    # About 1000 pixels: 3.7 percent each, 1.3 percent the mean of eight.
    assert sigma.mean() == pytest.approx(SIGMA, rel=0.04)
    assert np.abs(sigma / SIGMA - 1).max() < 0.12


def test_too_few_sky_pixels_give_no_scatter() -> None:
    block = Block(n_objects=1)
    block.mask[:] = int(MaskBit.DETECTED)
    block.mask[0, 0, 0, :32] = 0
    block.mask[0, 1, 0, :31] = 0
    sigma = block.measured().sky_sigma_njy[0]
    assert np.isfinite(sigma[0])
    assert np.isnan(sigma[1])


# --- flags -----------------------------------------------------------------------------------------------


def test_a_good_cutout_has_no_flag() -> None:
    assert flags_of(Block()) == [PixelFlag(0)] * 3


def test_outside_is_a_center_without_pixels_in_any_band() -> None:
    block = Block()
    block.image[1, :, CENTER, CENTER] = np.nan  # in both bands
    block.image[2, 0, CENTER, CENTER] = np.nan  # in one
    assert flags_of(block) == [
        PixelFlag(0),
        PixelFlag.OUTSIDE_FOOTPRINT | PixelFlag.PARTIAL_COVERAGE | PixelFlag.LOW_SNR,
        PixelFlag.PARTIAL_COVERAGE,
    ]


def test_missing_is_a_band_without_pixels_partial_one_with_some() -> None:
    block = Block()
    block.image[0, 0] = np.nan
    block.image[1, 1, 0, 0] = np.nan
    block.image[2] = np.nan
    assert flags_of(block) == [
        PixelFlag.MISSING_BAND,
        PixelFlag.PARTIAL_COVERAGE,
        PixelFlag.MISSING_BAND | PixelFlag.OUTSIDE_FOOTPRINT,
    ]


@pytest.mark.parametrize(
    ("bit", "flag"),
    [
        (MaskBit.BAD, PixelFlag.BAD_CENTER),
        (MaskBit.INTRP, PixelFlag.BAD_CENTER),
        (MaskBit.CR, PixelFlag.BAD_CENTER),
        (MaskBit.SAT, PixelFlag.SATURATED),
        (MaskBit.BRIGHT_OBJECT, PixelFlag.BRIGHT_OBJECT),
        (MaskBit.SUSPECT, PixelFlag(0)),
        (MaskBit.EDGE, PixelFlag(0)),
        (MaskBit.CLIPPED, PixelFlag(0)),
    ],
)
def test_mask_bits_count_within_the_radius_in_any_band(bit: MaskBit, flag: PixelFlag) -> None:
    block = Block(n_objects=4)
    # 1 arcsec are 5 px of 0.2: (3, 4) lies on the circle, (4, 4) outside it.
    block.mask[0, 0, CENTER, CENTER] = int(bit)
    block.mask[1, 1, CENTER + 3, CENTER - 4] = int(bit)
    block.mask[2, 0, CENTER - 4, CENTER + 4] = int(bit)
    assert flags_of(block) == [flag, flag, PixelFlag(0), PixelFlag(0)]


def test_the_center_is_the_disc_of_the_slow_reference() -> None:
    for radius_arcsec in (0.05, 0.2, 0.75, 1.3, 3.0, 100.0):
        block = Block(n_objects=SIZE * SIZE, n_bands=1)
        flat = block.mask.reshape(SIZE * SIZE, SIZE * SIZE)
        np.fill_diagonal(flat, int(MaskBit.SAT))  # object k has its k-th pixel saturated
        found = (block.measured(center_radius_arcsec=radius_arcsec).flags & PixelFlag.SATURATED) != 0
        expected = [
            bool(np.hypot(y - CENTER, x - CENTER) * 0.2 <= radius_arcsec + 1e-9)
            for y in range(SIZE)
            for x in range(SIZE)
        ]
        assert found.tolist() == expected


def test_the_planes_that_count_as_bad_are_chosen_by_name() -> None:
    block = Block()
    block.mask[0, 0, CENTER, CENTER] = int(MaskBit.INTRP)
    block.mask[1, 0, CENTER, CENTER] = int(MaskBit.SUSPECT)
    chosen = flags_of(block, bad_planes=("BAD", "SUSPECT"))
    assert chosen == [PixelFlag(0), PixelFlag.BAD_CENTER, PixelFlag(0)]
    assert flags_of(block, bad_planes=()) == [PixelFlag(0)] * 3


def test_a_plane_of_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[bad_planes\].*'BAD', 'INTRP'.*found 'SATURATED'"):
        parse_strictly(FlagsConfig, {"bad_planes": ["SATURATED"]}, "run.toml")


# --- signal to noise -------------------------------------------------------------------------------------


def low(block: Block, **changes: Any) -> list[bool]:
    return [bool(flag & PixelFlag.LOW_SNR) for flag in flags_of(block, **changes)]


def disc_pixels(radius_px: int = 5) -> int:
    offset = range(-radius_px, radius_px + 1)
    return sum(y * y + x * x <= radius_px**2 for y in offset for x in offset)


def with_snr(*snr: float) -> Block:
    """One object each, one band, whose flux within the center over the variance's noise is exactly this."""
    block = Block(n_objects=len(snr), n_bands=1)
    n = disc_pixels()
    for index, value in enumerate(snr):
        block.image[index, 0, CENTER - 5 : CENTER + 6, CENTER - 5 : CENTER + 6] = value * SIGMA / np.sqrt(n)
    return block


def test_low_snr_is_below_the_threshold_by_the_variance() -> None:
    assert low(with_snr(4.9, 5.1, -20.0)) == [True, False, True]
    assert low(with_snr(4.9, 5.1, 8.0), low_snr=7.0) == [True, True, False]


def test_one_band_above_the_threshold_is_enough() -> None:
    block = Block(n_objects=1)
    block.image[0, 0, CENTER, CENTER] = 0.0
    assert low(block) == [False]


def test_correlated_noise_lowers_the_signal_to_noise() -> None:
    block = with_snr(5.1, 5.1, 5.1, 9.9)
    correlation = np.array([[1.0], [np.nan], [2.0], [2.0]], np.float32)
    assert low(block, noise_correlation=correlation) == [False, False, True, True]
    assert low(block) == [False] * 4


def test_without_a_variance_the_sky_scatter_decides() -> None:
    block = with_snr(3.0, 8.0)
    block.variance[:] = np.nan
    # Scatter over a frame of some 1000 pixels: good to some percent.
    assert low(block) == [True, False]
    # As if the noise was ten times what it is in one of them.
    block.image[1, 0, :5] *= 20.0
    block.image[1, 0, -5:] *= 20.0
    block.image[1, 0, :, :5] *= 20.0
    block.image[1, 0, :, -5:] *= 20.0
    assert low(block) == [True, True]


def test_noise_that_is_zero_or_unknown_makes_no_signal_to_noise() -> None:
    """A simulation without noise, and a cutout whose pixels are all of a detected source: nothing says how faint it is."""
    block = with_snr(8.0, 8.0, 8.0, 8.0)
    block.variance[:2] = 0.0
    block.image[1, 0, :5], block.image[1, 0, -5:] = 0.0, 0.0
    block.image[1, 0, :, :5], block.image[1, 0, :, -5:] = 0.0, 0.0
    block.variance[2:] = np.nan
    block.mask[2] = int(MaskBit.DETECTED)
    # The first and the last have the scatter of their sky.
    assert low(block) == [False, True, True, False]


def test_one_band_of_known_noise_is_enough() -> None:
    block = Block(n_objects=1)
    block.variance[0, 0], block.mask[0, 0] = np.nan, int(MaskBit.DETECTED)
    assert low(block) == [False]


def test_a_center_that_cannot_be_measured_is_not_low() -> None:
    block = Block(n_objects=1, n_bands=1)
    block.image[:] = np.nan
    block.variance[:] = np.nan
    assert flags_of(block) == [PixelFlag.OUTSIDE_FOOTPRINT | PixelFlag.MISSING_BAND]

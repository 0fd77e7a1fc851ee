"""The kernel of resampling: its weights within a pixel, and what it gives each tile pixel over a whole lattice."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from galbatch.ingest.cut.pixel_map import Positions

__all__ = ["PHASES", "PHASE_BITS", "REACH_PX", "kernel_weights", "received_weight"]

# The kernel along an axis: a low-pass filter of this cutoff (the tile's Nyquist frequency is 0.5 a pixel) under a Kaiser
# window that reaches so far and ends at 0. Gaussians of 0.8 arcsec FWHM come out within 0.3 percent of their peak from
# pixels of 0.168 or 0.2 arcsec, 1 percent from 0.262; of 0.6 arcsec within 0.4, 1 and 6 percent. Cutoff and window were
# chosen among 6 px kernels for the smallest correction by `share`: 0.3 percent; Lanczos 3 needs 1.3. 8 px would need
# 0.1 percent and distribute every bad pixel over 64.
REACH_PX = 3
CUTOFF = 0.46
KAISER_BETA = 6.0

# Weights are tabulated at 65536 places within a pixel: positions are off by at most 1/131072 px.
PHASE_BITS = 16
PHASES = 1 << PHASE_BITS

# Multiples of the cutout lattice's frequencies, one of each pair of opposite ones, at which the kernel's transform
# matters. Without the other multiples, and amplitudes below MIN_AMPLITUDE, fluxes are within 1e-4.
N_HARMONICS = 16
HARMONICS = np.array(
    [(x, y) for y in range(N_HARMONICS + 1) for x in range(-N_HARMONICS, N_HARMONICS + 1) if y > 0 or x > 0],
    dtype=np.float64,
)
MIN_AMPLITUDE = 2e-6

# The kernel's transform is tabulated so finely that between two places a straight line is within 1e-6.
FREQUENCIES_PER_ONE = 1024


@functools.lru_cache(maxsize=8)
def kernel_weights(width_factor: float) -> npt.NDArray[np.float32]:
    """Return (tap, phase) float32: the kernel, `width_factor` times as wide, by place within a pixel; the taps sum to 1."""
    half_taps = math.ceil(REACH_PX * width_factor)  # 3 where scales are alike: 6 taps
    taps = np.arange(1 - half_taps, 1 + half_taps)
    distance = (taps[:, None] - np.arange(PHASES) / PHASES) / width_factor
    within = np.clip(1.0 - (distance / REACH_PX) ** 2, 0.0, None)
    window = np.i0(KAISER_BETA * np.sqrt(within)) - 1.0  # 0 at the ends
    kernel = np.sinc(2.0 * CUTOFF * distance) * window
    return (kernel / kernel.sum(axis=0)).astype(np.float32)


def received_weight(
    back: Positions, steps: npt.NDArray[np.float64], *, width_factor: float
) -> npt.NDArray[np.float32]:
    """Return (window y, window x) float32: the sum of each tile pixel's weights over all cutout pixels, also beyond the edge.

    It is near 1, and periodic in where the tile pixel falls between cutout pixels: by Poisson's sum its Fourier
    coefficients are the kernel's transform at the frequencies of the cutout's lattice.

    Parameters
    ----------
    back : tile pixels on the cutout
    steps : (x or y, along x or y) of the cutout's lattice in tile pixels
    width_factor : the kernel's width over its own
    """
    total = np.ones(back.x.shape, np.float32)
    # Place of each tile pixel within its cutout pixel, (window y, window x) in [0, 1).
    x, y = (np.nan_to_num(axis % 1.0).astype(np.float32) for axis in (back.x, back.y))
    lattice_frequencies = np.linalg.inv(steps).T @ HARMONICS.T  # (x or y, harmonic), per tile pixel
    table = _transform_table(width_factor)
    at = np.abs(lattice_frequencies) * FREQUENCIES_PER_ONE
    in_x, in_y = (np.interp(axis, np.arange(len(table)), table, right=0.0) for axis in at)
    for (x_times, y_times), amplitude in zip(HARMONICS, in_x * in_y, strict=True):
        if abs(amplitude) > MIN_AMPLITUDE:
            angle = np.float32(2.0 * np.pi * x_times) * x + np.float32(2.0 * np.pi * y_times) * y
            total += np.float32(2.0 * amplitude) * np.cos(angle)
    return total


@functools.lru_cache(maxsize=32)
def _transform_table(width_factor: float) -> npt.NDArray[np.float64]:
    """Return the kernel's Fourier transform, 1 at frequency 0, at multiples of 1 / FREQUENCIES_PER_ONE per tile pixel."""
    places = 64  # a pixel: the transform at frequency 32 is below 1e-6
    table = kernel_weights(width_factor)[:, :: PHASES // places]
    taps = np.arange(len(table)) - (len(table) // 2 - 1)
    steps = (taps[:, None] * places - np.arange(places)).ravel()
    kernel = np.zeros(places * FREQUENCIES_PER_ONE)
    kernel[steps] = table.ravel()  # negative ones from the end, where the transform wants them
    return np.fft.rfft(kernel).real / places

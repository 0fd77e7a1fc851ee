from __future__ import annotations

import numpy as np
import pytest

from galbatch.ingest.pixels import MASK_BIT_OF_PLANE, decode_mask

PLANES = {
    "BAD": 0,
    "SAT": 1,
    "DETECTED": 5,
    "NO_DATA": 8,
    "UNKNOWN": 9,
    "CLIPPED": 15,
    "BRIGHT_OBJECT": 16,
    "CR": 30,
}


def decode_slowly(stored, planes):
    """Pixel by pixel, plane by plane."""
    decoded = np.zeros(stored.shape, np.uint16)
    for place in np.ndindex(stored.shape):
        for name, number in planes.items():
            if int(stored[place]) >> number & 1 and name in MASK_BIT_OF_PLANE:
                decoded[place] |= MASK_BIT_OF_PLANE[name]
    return decoded


@pytest.mark.parametrize("dtype", [">i4", "<i4", "u4", ">i8", "f8"])
def test_masks_are_decoded_as_plane_by_plane(dtype):
    stored = np.random.default_rng(1).integers(0, 2**31 - 1, (13, 17)).astype(dtype)
    decoded = np.full(stored.shape, 7, np.uint16)
    decode_mask(stored, PLANES, out=decoded)
    np.testing.assert_array_equal(decoded, decode_slowly(stored, PLANES))


@pytest.mark.parametrize("dtype", [">i2", "u1"])
def test_narrow_masks_have_the_low_planes_alone(dtype):
    stored = np.random.default_rng(2).integers(0, 127, (5, 6)).astype(dtype)
    decoded = np.empty(stored.shape, np.uint16)
    decode_mask(stored, PLANES, out=decoded)
    np.testing.assert_array_equal(decoded, decode_slowly(stored, PLANES))


def test_the_sign_bit_is_a_plane_as_others():
    stored = np.array([[-(2**31), 2**31 - 1]], np.int32)
    decoded = np.empty(stored.shape, np.uint16)
    decode_mask(stored, {"CR": 31}, out=decoded)
    assert decoded.tolist() == [[int(MASK_BIT_OF_PLANE["CR"]), 0]]

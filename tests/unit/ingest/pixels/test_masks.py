"""Masks of every integer type, as FITS stores them."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from galbatch.core.flags import MaskBit

DTYPES = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8"]


@pytest.fixture
def read_mask(tmp_path, tan, read_tiles, objects, cut):
    """galbatch's bits of the 5 x 5 central pixels of a mask HDU, 0-based (30, 30) in the middle."""

    def run(hdu, planes):
        image = fits.ImageHDU(np.ones((61, 61), np.float32), header=tan(crpix=(31, 31)), name="SCI")
        hdu.name = "DQ"
        fits.HDUList([fits.PrimaryHDU(), image, hdu]).writeto(tmp_path / "a.fits", overwrite=True)
        generic = {"image": "SCI", "mask": "DQ", "mask_planes": planes}
        tiles = read_tiles(tmp_path / "a.fits", layout="generic", zero_point_mag=31.4, generic=generic)
        return cut(objects(150.0, 2.0), tiles, size=5)

    return run


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_lowest_and_highest_bit(read_mask, dtype, compressed):
    """BZERO = 2^15, 2^31, 2^63 and -128: astropy writes them; the sign bit of signed types is a bit as others."""
    bits = 8 * np.dtype(dtype).itemsize
    mask = np.zeros((61, 61), f"u{bits // 8}")
    mask[30, 30], mask[30, 31], mask[29, 30] = 1, 1 << (bits - 1), (1 << bits) - 1
    stored = mask.view(dtype)
    hdu = fits.CompImageHDU(stored, compression_type="GZIP_1") if compressed else fits.ImageHDU(stored)
    found = read_mask(hdu, {"SAT": 0, "CR": bits - 1, "BAD": bits // 2}).mask[0, 0]
    assert (found[2, 2], found[2, 3], found[1, 2]) == (
        MaskBit.SAT,
        MaskBit.CR,
        MaskBit.SAT | MaskBit.CR | MaskBit.BAD,
    )
    assert np.count_nonzero(found) == 3


def test_blank_pixels_have_no_data(read_mask):
    mask = np.zeros((61, 61), np.int32)
    mask[30, 30], mask[30, 31] = -99, 2
    hdu = fits.ImageHDU(mask)
    hdu.header["BLANK"] = -99
    block = read_mask(hdu, {"SAT": 1})
    assert np.isnan(block.image[0, 0, 2, 2])
    assert (block.mask[0, 0, 2, 3], np.isnan(block.image).sum()) == (MaskBit.SAT, 1)


@pytest.mark.parametrize(("word", "expected"), [("nonzero", [0, 1, 1]), ("zero", [1, 0, 0])])
@pytest.mark.parametrize("dtype", ["u1", "u8", "f4"])
def test_masks_of_one_meaning(read_mask, word, expected, dtype):
    mask = np.full((61, 61), 0 if word == "nonzero" else 1, dtype)
    mask[30, 29:32] = [0, 1, 7]
    found = read_mask(fits.ImageHDU(mask), word).mask[0, 0]
    assert found[2, 1:4].tolist() == [int(MaskBit.BAD) * value for value in expected]
    assert np.count_nonzero(found) == sum(expected)


def test_uint64_images_keep_their_values(tmp_path, tan, read_tiles, objects, cut):
    image = np.full((61, 61), 2**63 + 2**40, np.uint64)
    image[30, 30] = 3
    fits.PrimaryHDU(image, header=tan(crpix=(31, 31))).writeto(tmp_path / "a_g.fits")
    block = cut(objects(150.0, 2.0), read_tiles(tmp_path, layout="stamps", zero_point_mag=31.4), size=5)
    assert (block.image[0, 0, 2, 2], block.image[0, 0, 0, 0]) == (3.0, np.float32(2**63 + 2**40))


def test_names_of_pan_starrs(read_mask, tmp_path):
    """MSKNAMnn and MSKVALnn = 1 << bit; MASK.VALUE, several bits together, is no plane."""
    mask = np.zeros((61, 61), np.uint16)
    mask[30, 30], mask[30, 31], mask[30, 32] = 32, 8192, 4096
    hdu = fits.ImageHDU(mask)
    for number, (name, value) in enumerate(
        (("SAT", 32), ("CONV.BAD", 8192), ("STARCORE", 4096), ("MASK.VALUE", 8575))
    ):
        hdu.header[f"MSKNAM{number:02d}"], hdu.header[f"MSKVAL{number:02d}"] = name, value
    found = read_mask(hdu, None).mask[0, 0]
    assert found[2, 2:5].tolist() == [MaskBit.SAT, MaskBit.BAD, MaskBit.BRIGHT_OBJECT]

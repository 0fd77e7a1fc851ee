"""FITS files: found by any of their suffixes, read by their content, and told from those that are cut."""

from __future__ import annotations

import bz2
import gzip

import fsspec
import numpy as np
import pytest
from astropy.io import fits

from galbatch.core.types import njy_per_unit
from galbatch.errors import TileError
from galbatch.ingest.pixels import FITS_SUFFIXES, stem_of

PIXELS = np.random.default_rng(6).normal(size=(40, 50)).astype(np.float32)
NAMES = [
    "a.fits",
    "a.fit",
    "a.fts",
    "a.FITS",
    "a.Fit",
    "a.fits.fz",
    "a.fz",
    "a.fits.gz",
    "a.FITS.GZ",
    "a.fits.bz2",
]
PACK = {"plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}


def test_stems():
    assert {stem_of(f"/some.fits/{name}") for name in NAMES} == {"a"}
    assert [stem_of(name) for name in ("a.b.fits", "calexp-HSC-G-9813-4,4.fits.fz", "a.image", ".fits")] == [
        "a.b",
        "calexp-HSC-G-9813-4,4",
        "a.image",
        ".fits",
    ]
    assert all(suffix == suffix.lower() for suffix in FITS_SUFFIXES)


@pytest.fixture
def content(tmp_path, tan):
    """Bytes of an image in HDU 1, plain or as fpack makes it, and a mask in HDU 2."""

    def make(compressed=False):
        header = tan(crpix=(25, 20))
        mask = np.zeros(PIXELS.shape, np.int16)
        mask[19, 24] = 2
        kind = fits.ImageHDU
        options = {}
        if compressed:
            kind, options = fits.CompImageHDU, {"compression_type": "GZIP_2", "quantize_level": 0.0}
        hdus = [fits.PrimaryHDU(), kind(PIXELS, header=header, name="SCI", **options), kind(mask, name="DQ")]
        fits.HDUList(hdus).writeto(tmp_path / "made", overwrite=True)
        data = (tmp_path / "made").read_bytes()
        (tmp_path / "made").unlink()
        return data

    return make


@pytest.fixture
def read(read_tiles):
    def run(path):
        generic = {"image": "SCI", "mask": "DQ", "mask_planes": {"SAT": 1}}
        return read_tiles(path, layout="generic", zero_point_mag=27.0, generic=generic)

    return run


def is_right(block):
    expected = PIXELS[9:30, 14:35] * np.float32(njy_per_unit(27.0))
    return np.allclose(block.image[0, 0], expected, rtol=1e-6) and block.mask[0, 0, 10, 10] == 2


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("compressed", [False, True])
def test_any_content_under_any_name(tmp_path, content, read, objects, cut, packing, compressed):
    """A suffix that is wrong, added or missing changes nothing: neither what is found nor what is read."""
    data = PACK[packing](content(compressed))
    for name in NAMES:
        folder = tmp_path / f"of {name}"
        folder.mkdir()
        (folder / name).write_bytes(data)
        (folder / "a.fits.md5").write_text("no")
        for pattern in (
            folder,
            folder / name,
            folder / "a*",
            f"{folder}/*.[fFgGbB]*",
            tmp_path / "of*" / name,
        ):
            (tile,) = read(pattern)
            assert (tile.tile_id, tile.image.packed) == ("a", packing != "plain")
        assert is_right(cut(objects(150.0, 2.0), [tile], size=21)), name


@pytest.mark.parametrize("packing", PACK)
def test_the_same_from_s3(s3, tmp_path, content, read, objects, cut, packing):
    for name in NAMES[::3]:
        (tmp_path / name).write_bytes(PACK[packing](content()))
        fsspec.filesystem("s3").put(str(tmp_path / name), f"{s3}/{name}x/{name}")
        for pattern in (f"{s3}/{name}x", f"{s3}/{name}x/a*", f"{s3}/{name}x/{name}"):
            (tile,) = read(pattern)
        assert tile.image.packed == (packing != "plain")
        assert is_right(cut(objects(150.0, 2.0), [tile], size=21)), name


def test_a_file_named_without_suffix(tmp_path, content, read):
    (tmp_path / "image").write_bytes(content())
    assert read(tmp_path / "image")[0].tile_id == "image"


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_cut_file_is_told_from_one_that_is_only_packed(tmp_path, content, read, packing, compressed):
    data = PACK[packing](content(compressed))
    path = tmp_path / "a.fits"
    ends = np.linspace(len(data) // 12, len(data) - 1, 12).astype(int)
    for end in ends.tolist():
        path.write_bytes(data[:end])
        # The padding to 2880 bytes may be missing, 1760 of them behind the 4000 of the mask: then the images are whole.
        if packing == "plain" and end >= len(data) - (2879 if compressed else 1760):
            assert read(path)
            continue
        with pytest.raises(TileError, match=r"truncated|damaged at its beginning|there is no HDU"):
            read(path)


def test_a_cut_within_a_later_header_is_no_missing_plane(tmp_path, content, read_tiles):
    """astropy leaves the HDU out with a warning: a stamp's mask would be gone without a word."""
    data = content()
    start = data.index(b"XTENSION", data.index(b"XTENSION") + 8)
    (tmp_path / "x_g.fits").write_bytes(data[: start + 800])
    for layout in ("stamps", "generic"):
        with pytest.raises(TileError, match="ends within the header of HDU 2"):
            read_tiles(tmp_path / "x_g.fits", layout=layout, zero_point_mag=27.0)


def test_other_formats_are_named(tmp_path, read):
    path = tmp_path / "a.fits"
    for data, words in (
        (b"#ASDF 1.0.0\n", "ASDF file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
        (b"", "no FITS file"),
        (b"SIMPLE  =                    T", "ends within its first header"),
        (b"PK\x03\x04" + bytes(100), "packed by zip"),
    ):
        path.write_bytes(data)
        with pytest.raises(TileError, match=words):
            read(path)

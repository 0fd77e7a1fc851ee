"""Planes that a row of a table of tiles names: files of masks, weights and PSF maps, and their HDUs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits

from galbatch.core.flags import MaskBit
from galbatch.errors import TileError
from galbatch.objects import write_table

SHAPE = (60, 70)
GENERIC = {"mask_planes": {"SAT": 1}, "weight_kind": "standard_deviation"}


@pytest.fixture
def folder(tmp_path, tan):
    """Files as Euclid's MER pipeline names them: an image, its RMS and its flags differ by time stamps."""
    mask = np.zeros(SHAPE, np.int32)
    mask[29, 34] = 2
    planes = {
        "BGSUB-MOSAIC-VIS_TILE102018211-ACBD03_20241018T142710.276838Z_00.00": np.full(
            SHAPE, 5.0, np.float32
        ),
        "MOSAIC-VIS-RMS_TILE102018211-33B38E_20241018T142710.276900Z_00.00": np.full(SHAPE, 2.0, np.float32),
        "MOSAIC-VIS-FLAG_TILE102018211-73C8E7_20241018T142710.276917Z_00.00": mask,
    }
    names = []
    for name, plane in planes.items():
        hdus = [
            fits.PrimaryHDU(),
            fits.ImageHDU(np.zeros(SHAPE, np.int16), tan(crpix=(35, 30))),
            fits.ImageHDU(plane, tan(crpix=(35, 30))),
        ]
        hdus[2].name = "PLANE"
        names.append(f"EUC_MER_{name}.fits")
        fits.HDUList(hdus).writeto(tmp_path / names[-1])
    fits.PrimaryHDU(np.full(SHAPE, 0.7, np.float32)).writeto(tmp_path / "psf.fits")
    return tmp_path, names


@pytest.fixture
def read(folder, read_tiles):
    def run(name="tiles.csv", *, layout="generic", generic=GENERIC, bands=("VIS",), **columns):
        place, (image, *_) = folder
        if not (place / name).exists() or columns:
            write_table(str(place / name), pa.table({"path": [image]} | columns))
        options = {"generic": generic} if layout == "generic" else {}
        return read_tiles(place / name, layout=layout, bands=bands, zero_point_mag=23.9, **options)

    return run


def planes_of(folder, **more):
    _, (_, rms, flag) = folder
    return {"hdu": [2], "mask": [flag], "mask_hdu": [2], "weight": [rms], "weight_hdu": ["PLANE"]} | more


@pytest.mark.parametrize("name", ["tiles.csv", "tiles.parquet"])
def test_a_row_names_all_planes(folder, read, objects, cut, name):
    (tile,) = read(name, **planes_of(folder, band=["VIS"], psf=["psf.fits"]))
    block = cut(objects(150.0, 2.0), [tile], size=5, bands=("VIS",))
    njy = 1000.0  # zero point 23.9
    np.testing.assert_allclose(block.image, 5.0 * njy, rtol=1e-5)
    np.testing.assert_allclose(block.variance, (2.0 * njy) ** 2, rtol=1e-5)
    assert (block.mask[0, 0, 2, 2], np.count_nonzero(block.mask)) == (MaskBit.SAT, 1)
    assert block.psf_fwhm_arcsec[0, 0] == pytest.approx(0.7)
    # Four files, each of which changes what is cut.
    assert tile.identity.size_bytes == sum(path.stat().st_size for path in folder[0].glob("*.fits"))


def test_an_hdu_alone_is_one_of_the_image_s_file(folder, read):
    (tile,) = read(generic={"mask_planes": "nonzero"}, hdu=["PLANE"], mask_hdu=[1])
    assert (tile.mask.path, tile.mask.hdu, tile.image.hdu) == (tile.image.path, 1, 2)
    # The first image of the file is HDU 1: another choice of HDUs is another tile.
    assert tile.identity != read(hdu=[2])[0].identity


def test_a_kind_of_weight_for_each_row(folder, read, objects, cut):
    generic = {"mask_planes": {"SAT": 1}}
    (tile,) = read(generic=generic, **planes_of(folder, weight_kind=["inverse_variance"]))
    block = cut(objects(150.0, 2.0), [tile], size=5, bands=("VIS",))
    np.testing.assert_allclose(block.variance, 1e6 / 2.0, rtol=1e-5)


def test_what_cannot_be(folder, read):
    planes = planes_of(folder)
    with pytest.raises(TileError, match=r"1 of 3 files are not there: .*gone\.fits"):
        read(**planes | {"mask": ["gone.fits"]})
    with pytest.raises(TileError, match=r"mask.*: there is no HDU 7, 3 HDUs are there"):
        read(**planes | {"mask_hdu": [7]})
    with pytest.raises(TileError, match="weight_kind: 1 of 1 rows have no weight kind, such as row 0: rms"):
        read(**planes, weight_kind=["rms"])
    with pytest.raises(TileError, match="the mask has no cards MP_"):
        read(generic={}, **planes)
    fits.PrimaryHDU(np.ones((9, 9))).writeto(folder[0] / "small.fits")
    with pytest.raises(TileError, match=r"psf is \(9, 9\) px, the image"):
        read(**planes, psf=["small.fits"])


def test_other_layouts(folder, read):
    planes = planes_of(folder, band=["VIS"])
    with pytest.raises(TileError, match="column hdu is read for layout generic only"):
        read(layout="stamps", **planes)
    del planes["hdu"], planes["mask"], planes["mask_hdu"]
    with pytest.raises(TileError, match="names a weight and not what it is; add the column weight_kind"):
        read(layout="stamps", **planes)
    (tile,) = read(layout="stamps", **planes, weight_kind=["standard_deviation"])
    assert (tile.weight.hdu, tile.weight_kind) == (2, "standard_deviation")


def test_numbers_of_pandas(folder, read):
    """A column of integers with an empty cell is one of floats."""
    place, (image, rms, flag) = folder
    columns = {"band": [1.0, None], "hdu": [2.0, 2.0], "mask": [flag, None], "mask_hdu": [2.0, float("nan")]}
    write_table(
        str(place / "tiles.parquet"), pa.table({"path": [image, rms], "tile_id": ["a", "b"]} | columns)
    )
    tiles = read("tiles.parquet", bands=("1",))
    assert [(tile.tile_id, tile.mask and tile.mask.hdu) for tile in tiles] == [("a", 2), ("b", None)]

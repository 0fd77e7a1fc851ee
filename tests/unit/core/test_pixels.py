"""HEALPix pixels: their paths, names and ranges."""

import pytest

from galbatch.core.pixels import HEALPIX_ORDER, ORDER_FOLDERS, HealpixPixel, Partition, split_path


@pytest.mark.parametrize(
    "pixel", [HealpixPixel(0, 0), HealpixPixel(6, 23456), HealpixPixel(29, 12 * 4**29 - 1)]
)
def test_a_path_gives_its_pixel_back(pixel: HealpixPixel) -> None:
    assert HealpixPixel.from_path(pixel.path) == pixel
    assert split_path(f"{pixel.path}.parquet") == (pixel, ".parquet")
    assert split_path(f"{pixel.path}/12px_0.2arcsec/zarr.json") == (pixel, "/12px_0.2arcsec/zarr.json")
    assert pixel.path.split("/")[0] in ORDER_FOLDERS


@pytest.mark.parametrize(
    "path", ["", "zarr.json", "Norder=5/Dir=0", "Norder=x/Dir=0/Npix=1", "dataset/Norder=5/Dir=0/Npix=1"]
)
def test_other_paths_are_no_pixels(path: str) -> None:
    assert split_path(path) is None
    assert HealpixPixel.from_path(path) is None


def test_a_file_of_a_pixel_is_not_the_pixel() -> None:
    assert HealpixPixel.from_path("Norder=5/Dir=0/Npix=1.parquet") is None


def test_a_partition_is_a_pixel_with_rows() -> None:
    partition = Partition(6, 23456, 10, 14)
    assert partition.pixel == HealpixPixel(6, 23456)
    assert partition.path == partition.pixel.path == "Norder=6/Dir=20000/Npix=23456"
    assert partition.name == "Norder=6/Npix=23456"
    assert partition.n_objects == 4


def test_ranges_follow_the_sky() -> None:
    assert HealpixPixel(HEALPIX_ORDER, 7).index_range == (7, 8)
    assert HealpixPixel(5, 1).index_range[0] == HealpixPixel(6, 4).index_range[0]
    assert HealpixPixel(0, 11).index_range[1] == 12 * 4**29 < 2**63

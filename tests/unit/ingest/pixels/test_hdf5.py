"""Planes in HDF5 files."""

import h5py
import numpy as np
import pytest

from galbatch.core.types import Plane
from galbatch.errors import TileError
from galbatch.ingest.pixels import Box, Hdf5File, open_hdf5

STACK = np.random.default_rng(1).normal(size=(3, 2, 20, 30)).astype(">f4")  # (object, band, y, x)


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("image", data=STACK, chunks=(1, 1, 20, 30), fletcher32=True)
        file["group/deep"] = np.zeros(4)
        file.attrs["release"] = "pdr2"
    return str(tmp_path / "a.hdf5")


def test_a_window_of_one_object_in_one_band(path):
    with open_hdf5(path) as file:
        window = file.plane(Plane(path, "image", (2, 1))).read(Box(3, 9, 10, 25))
        assert file.attributes == {"release": "pdr2"}
    np.testing.assert_array_equal(window, STACK[2, 1, 3:9, 10:25])


def test_what_is_there_is_shown(path):
    with open_hdf5(path) as file:
        with pytest.raises(
            TileError,
            match=r"no dataset 'images'; there are group/deep \(4,\), image \(3, 2, 20, 30\); .* key = ",
        ):
            file.dataset("images", key="key")
        with pytest.raises(TileError, match="no dataset 'group'"):  # a group is none
            file.dataset("group", key="key")


def test_a_damaged_chunk_is_no_fault_of_the_disk(path):
    with h5py.File(path) as file:
        place = file["image"].id.get_chunk_info(5).byte_offset
    with open(path, "r+b") as raw:
        raw.seek(place + 100)
        raw.write(b"\xff\x00\xff\x00")
    with open_hdf5(path) as file:
        with pytest.raises(ValueError, match=r"[Cc]an't .*read"):
            file.plane(Plane(path, "image", (2, 1))).read(Box(0, 5, 0, 5))
        assert file.plane(Plane(path, "image", (0, 0))).read(Box(0, 5, 0, 5)).shape == (5, 5)


def test_damaged_data_are_told_from_a_disk_s_fault(path):
    with h5py.File(path) as file:
        place = file["image"].id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as raw:
        raw.seek(place + 100)
        raw.write(b"\xff\x00\xff\x00")
    with open_hdf5(path) as file:
        with pytest.raises(TileError, match=r"image cannot be read \(.*; the file is damaged"):
            file.values("image", key="image")
        assert file.values("group/deep", key="x").tolist() == [0.0] * 4


def test_no_file_and_no_hdf5_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Hdf5File(str(tmp_path / "none.h5"))
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(TileError, match=r"text\.h5: is no HDF5 file"):
        Hdf5File(str(tmp_path / "text.h5"))

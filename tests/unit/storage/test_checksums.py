"""A changed byte shows: in a file, in a sealed JSON file, in the root of a tree of groups."""

from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from galbatch import storage
from galbatch.core.pixels import HealpixPixel
from galbatch.errors import DamagedError
from galbatch.storage import zarr_groups

VALUE = {"fingerprint": {"digest": "ab", "parts": {"é": "1"}}, "n_objects": 3, "ratio": 0.1}


def test_a_checksum_does_not_depend_on_the_pieces():
    data = np.random.default_rng(1).bytes(3 * 2**18 + 7)
    whole = storage.Checksum.of([data])
    assert whole == storage.Checksum(len(data), f"{google_crc32c.value(data):08x}")
    pieces = [memoryview(data)[:5], bytearray(data[5:1000]), data[1000:], b""]
    assert storage.Checksum.of(pieces) == whole
    assert whole.problem(data) == ""
    assert whole.problem(b"") == "is empty"
    assert whole.problem(data[:-1]) == f"holds {len(data) - 1} bytes, {len(data)} were written"
    assert "has the checksum" in whole.problem(bytes(16384) + data[16384:])


def test_every_changed_byte_of_a_sealed_file_shows(tmp_path):
    path = str(tmp_path / "sealed.json")
    data = storage.sealed_bytes(VALUE)
    storage.publish(path, data)
    assert storage.read_sealed(path) == VALUE
    for place in range(len(data)):
        for change in (1, 0x20, 0x80):
            damaged = bytearray(data)
            damaged[place] ^= change
            Path(path).write_bytes(damaged)
            with pytest.raises(DamagedError, match=r"sealed\.json: is not as it was written"):
                storage.read_sealed(path)
    Path(path).write_bytes(b"")
    with pytest.raises(DamagedError, match="is empty"):
        storage.read_sealed(path)
    assert storage.read_sealed(str(tmp_path / "absent.json")) is None


def test_a_space_that_became_a_tab_is_damage(tmp_path):
    path = tmp_path / "sealed.json"
    path.write_bytes(storage.sealed_bytes(VALUE).replace(b" ", b"\t", 1))
    with pytest.raises(DamagedError):
        storage.read_sealed(str(path))


def test_the_root_of_a_tree_holds_its_own_checksum(tmp_path):
    root = str(tmp_path / "tree")
    assert zarr_groups.read_root_attributes(root) is None
    zarr_groups.write_root(root, {"unit": "nJy"}, [HealpixPixel(5, 7)])
    assert zarr_groups.read_root_attributes(root) == {"unit": "nJy"}
    path = Path(root, "zarr.json")
    path.write_bytes(path.read_bytes().replace(b"nJy", b"mJy"))
    with pytest.raises(DamagedError, match=r"tree/zarr\.json: is not as it was written"):
        zarr_groups.read_root_attributes(root)


def test_damage_is_recorded_beside_an_output(tmp_path):
    output = f"{tmp_path}/store"
    assert storage.read_damage(output) == {}
    storage.record_damage(output, {"a/b": "is gone"})
    assert storage.read_damage(output) == {"a/b": "is gone"}
    Path(storage.damage_path(output)).write_bytes(b"{")
    assert storage.read_damage(output) == {}
    storage.record_damage(output, {})
    assert list(tmp_path.iterdir()) == []

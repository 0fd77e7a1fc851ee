"""Outputs of every pass, kept beside the catalog."""

import dataclasses
import re
import tracemalloc

import numpy as np
import pytest
import xarray as xr
import zarr

from galbatch import storage
from galbatch.catalog import pass_outputs
from galbatch.catalog.pass_outputs import Origin, PassOutputsWriter, open_pass_outputs, pass_outputs_path
from galbatch.core.pixels import Partition
from galbatch.errors import DamagedError, FingerprintError

PARTITION = Partition(5, 12345, 100, 107)
FINGERPRINT = {"digest": "d" * 64, "parts": {"INFER_VERSION": "4"}}
IDS = np.array([40, 41, 7, 43, 44, 45, 2**62])
N_PASSES = {0: 3, 2: 5, 3: 1, 6: 4}  # of the objects that were run, by row


ORIGIN = Origin(
    "gampen",
    ({"sha256": "a" * 64, "factors": None}, {"sha256": "b" * 64, "factors": [1.5, 0.5]}),
    3,
    "torchscript-float32",
)
N_OUTPUTS = (5, 5)  # of each bundle


def outputs_of(row, n_passes, n_outputs=N_OUTPUTS):
    random = np.random.default_rng(row)
    return tuple(random.normal(size=(n_passes, n)).astype(np.float32) for n in n_outputs)


def writer_of(catalog_path, *, ids=IDS, origin=ORIGIN, n_outputs=N_OUTPUTS):
    return PassOutputsWriter(catalog_path, PARTITION, origin, object_id=ids, n_outputs=n_outputs)


def write(folder, *, finish=True, n_passes=N_PASSES, fingerprint=FINGERPRINT, n_outputs=N_OUTPUTS, **changes):
    catalog_path = f"{folder}/catalog"
    pass_outputs.create_groups(catalog_path, [PARTITION])
    writer = writer_of(catalog_path, n_outputs=n_outputs, **changes)
    for row, n in n_passes.items():
        writer.append(row, outputs_of(row, n, n_outputs))
    if finish:
        writer.finish(fingerprint)
    return catalog_path


def read(catalog_path, **changes):
    return open_pass_outputs(catalog_path, PARTITION, "gampen", **{"fingerprint": FINGERPRINT, **changes})


def group_of(catalog_path):
    return f"{pass_outputs_path(catalog_path)}/{PARTITION.path}/gampen"


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path):
    """Where a catalog may be."""
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("s3")


@pytest.mark.parametrize("chunk_bytes", [8 * 10**6, 60])
@pytest.mark.parametrize("ids", [IDS, np.array(["x", "M 31", "é", "d", "e", "f", "gg/h"], dtype=object)])
def test_every_object_gets_its_passes_back(folder, ids, chunk_bytes, monkeypatch):
    monkeypatch.setattr(pass_outputs, "MAX_CHUNK_BYTES", chunk_bytes)  # 60: 3 rows of 5 outputs
    kept = read(write(folder, ids=ids))
    assert kept.origin == ORIGIN
    assert kept.object_id.tolist() == ids.tolist()
    assert kept.offset.tolist() == [0, 3, 3, 8, 9, 9, 9, 13]
    for row, object_id in enumerate(ids.tolist()):
        found = kept.outputs(object_id)
        expected = outputs_of(row, N_PASSES.get(row, 0))
        assert [one.dtype for one in found] == [np.float32] * 2
        for one, other in zip(found, expected, strict=True):
            assert one.shape == other.shape
            assert (one == other).all()
    with pytest.raises(FingerprintError, match="object 5 is not in it"):
        kept.outputs(5)


def test_only_the_chunks_of_an_object_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pass_outputs, "MAX_CHUNK_BYTES", 60)
    kept = read(write(tmp_path))
    read_files, names = storage.LocalFileSystem.read_files, []
    monkeypatch.setattr(
        storage.LocalFileSystem, "read_files", lambda s, p, n: names.extend(n) or read_files(s, p, n)
    )
    kept.outputs(43)  # row 8, of chunks of 3 rows
    assert names == ["outputs_0/c/2/0", "outputs_1/c/2/0"]
    names.clear()
    kept.outputs(44)
    assert names == []


def test_objects_are_read_together_in_the_order_that_is_asked_for(tmp_path):
    kept = read(write(tmp_path))
    asked = np.array([kept.object_id[row] for row in (6, 0, 1, 2)])
    for found, object_id in zip(kept.outputs_of(asked), asked.tolist(), strict=True):
        for one, alone in zip(found, kept.outputs(object_id), strict=True):
            assert one.tobytes() == alone.tobytes()
    assert kept.outputs_of(asked[:0]) == []
    with pytest.raises(FingerprintError, match="object 5 is not in it"):
        kept.outputs_of(np.array([asked[0], 5]))


def test_the_tree_opens_with_zarr_and_xarray(tmp_path):
    catalog_path = write(tmp_path)
    assert pass_outputs_path(catalog_path) == f"{tmp_path}/catalog_pass_outputs.zarr"
    assert pass_outputs_path(catalog_path + "/") == pass_outputs_path(catalog_path)
    root = zarr.open_group(pass_outputs_path(catalog_path), mode="r")
    assert root.attrs["catalog"] == "catalog"
    group = root[f"{PARTITION.path}/gampen"]
    assert (group.attrs["seed"], group.attrs["engine"]) == (3, "torchscript-float32")
    assert [bundle["sha256"][0] for bundle in group.attrs["bundles"]] == ["a", "b"]
    opened = xr.open_zarr(group_of(catalog_path), consolidated=True)
    assert {name: array.dims for name, array in opened.items()} == {
        "object_id": ("object",),
        "offset": ("bound",),
        "outputs_0": ("row", "output_0"),
        "outputs_1": ("row", "output_1"),
    }
    assert opened.outputs_1.dtype == np.float32
    assert (opened.outputs_0.values[3:8] == outputs_of(2, 5)[0]).all()


def test_a_partition_of_which_nothing_was_run_has_pass_outputs_too(folder):
    kept = read(write(folder, n_passes={}))
    assert kept.offset.tolist() == [0] * 8
    assert [one.shape for one in kept.outputs(40)] == [(0, 5), (0, 5)]


def test_the_mark_comes_last_and_goes_first(folder):
    catalog_path = write(folder, finish=False)
    assert pass_outputs.read_done(catalog_path, PARTITION, "gampen") is None
    with pytest.raises(DamagedError, match=r"Npix=12345/gampen: .* not there or unfinished"):
        read(catalog_path)
    write(folder)
    done = pass_outputs.read_done(catalog_path, PARTITION, "gampen")
    assert done == {"fingerprint": FINGERPRINT, "n_objects": 7, "n_rows": 13}
    assert pass_outputs.list_done(catalog_path) == [(PARTITION.pixel, "gampen")]
    # Another task begins again: nothing of the first stays.
    write(folder, finish=False, n_passes={})
    assert pass_outputs.list_done(catalog_path) == []
    assert storage.list_files(group_of(catalog_path), suffix="") == []


def test_pass_outputs_of_another_run_are_refused_with_both_values(tmp_path):
    catalog_path = write(tmp_path, fingerprint={**FINGERPRINT, "digest": "e" * 64})
    with pytest.raises(
        FingerprintError, match=r"of another run \(eeeeeeeeeeee.., the leaf's is dddddddddddd..\)"
    ):
        read(catalog_path)


@pytest.mark.parametrize(
    ("lost", "content", "message"),
    [
        ("outputs_0/c/0/0", None, "outputs_0/c/0/0: is gone"),
        ("outputs_1/c/0/0", b"", "outputs_1/c/0/0: is empty"),
        ("offset/c/0", None, "offset/c/0: is gone"),
    ],
)
def test_a_lost_file_is_told_and_never_reads_as_nan(tmp_path, lost, content, message):
    catalog_path = write(tmp_path)
    path = tmp_path / group_of(catalog_path).removeprefix(f"{tmp_path}/") / lost
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DamagedError, match=f"{re.escape(message)}; galbatch run makes it again"):
        read(catalog_path).outputs(40)


def test_files_that_another_task_removed_are_noticed_before_the_mark(tmp_path, monkeypatch):
    monkeypatch.setattr(pass_outputs, "MAX_CHUNK_BYTES", 60)
    catalog_path = f"{tmp_path}/catalog"
    writer = writer_of(catalog_path)
    writer.append(0, outputs_of(0, 6))
    storage.remove(group_of(catalog_path))
    with pytest.raises(OSError, match="4 of 11 files that were written are not there"):
        writer.finish(FINGERPRINT)
    assert pass_outputs.read_done(catalog_path, PARTITION, "gampen") is None


def test_objects_come_in_order_with_as_many_passes_of_each_bundle(tmp_path):
    writer = writer_of(f"{tmp_path}/catalog")
    writer.append(3, outputs_of(3, 2))
    with pytest.raises(ValueError, match="object 3 after object 3"):
        writer.append(3, outputs_of(3, 2))
    first, second = outputs_of(4, 3)
    with pytest.raises(ValueError, match="unpack"):
        writer.append(4, (first, second[:2]))


def test_memory_does_not_grow_with_the_partition(tmp_path, monkeypatch):
    monkeypatch.setattr(pass_outputs, "MAX_CHUNK_BYTES", 10**5)
    origin = dataclasses.replace(ORIGIN, bundles=ORIGIN.bundles[:1])
    peaks = []
    outputs = (np.random.default_rng(1).normal(size=(1000, 5)).astype(np.float32),)  # 20 kB
    for n_objects in (20, 400):
        writer = writer_of(f"{tmp_path}/{n_objects}", ids=np.arange(n_objects), origin=origin, n_outputs=(5,))
        tracemalloc.start()
        for row in range(n_objects):
            writer.append(row, outputs)
        writer.finish(FINGERPRINT)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (
        peaks[1] < peaks[0] + 1_000_000
    )  # of 7.6 MB more that were kept: their files' names, and what libraries keep
    chunks = [
        f for f in storage.list_files(f"{tmp_path}/400_pass_outputs.zarr", suffix="") if "outputs_0/c/" in f
    ]
    assert len(chunks) == 80


def test_several_models_of_a_partition_are_groups_of_their_own(tmp_path):
    catalog_path = write(tmp_path)
    other = Origin("sfnet", ({"sha256": "c" * 64},), 3, "torchscript-float32")
    write(tmp_path, origin=other, n_outputs=(9,))
    assert pass_outputs.list_done(catalog_path) == [(PARTITION.pixel, "gampen"), (PARTITION.pixel, "sfnet")]
    assert read(catalog_path).outputs(40)[0].shape == (3, 5)
    kept = open_pass_outputs(catalog_path, PARTITION, "sfnet", fingerprint=FINGERPRINT)
    assert kept.outputs(40)[0].shape == (3, 9)

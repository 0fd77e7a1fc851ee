from __future__ import annotations

import dataclasses
import json
import shutil
import tracemalloc
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from astropy.units import Unit

from galbatch import ingest
from galbatch.core.flags import MaskBit, PixelFlag
from galbatch.core.pixels import Partition
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock, Grid
from galbatch.errors import ConfigError, DamagedError, FingerprintError

GRID = Grid(12, 0.168)
PARTITION = Partition(5, 7123, 1000, 1000 + 600)
FINGERPRINT = {"version": "1", "tiles": "3fa1"}


def make_blocks(n_objects, *, grid=GRID, bands=("g", "r"), text_ids=False, seed=0):
    rng = np.random.default_rng(seed)
    pixels = (len(bands), grid.size_px, grid.size_px)
    for start in range(0, n_objects, BLOCK_OBJECTS):
        n = min(BLOCK_OBJECTS, n_objects - start)
        ids = np.arange(start, start + n) + 36411452835238206
        image = rng.normal(size=(n, *pixels)).astype(np.float32)
        image[0, 0] = np.nan
        yield CutoutBlock(
            grid=grid,
            bands=bands,
            object_id=np.array([f"J{value}" for value in ids], object) if text_ids else ids,
            ra_deg=rng.uniform(0, 360, n),
            dec_deg=rng.uniform(-90, 90, n),
            image=image,
            mask=rng.integers(0, 2048, (n, *pixels)).astype(np.uint16),
            variance=rng.uniform(1, 2, (n, *pixels)).astype(np.float32),
            crpix=rng.normal(size=(n, 2)),
            crval=rng.normal(size=(n, 2)),
            cd=rng.normal(size=(n, 2, 2)),
            tile=np.array([("9813/4,4", "9813/4,5", "")[i % 3] for i in range(n)]),
            coverage=np.isfinite(image).mean(axis=(2, 3), dtype=np.float32),
            sky_sigma_njy=rng.uniform(size=(n, len(bands))).astype(np.float32),
            psf_fwhm_arcsec=np.full((n, len(bands)), np.nan, np.float32),
            noise_correlation=np.ones((n, len(bands)), np.float32),
            flags=rng.integers(0, 2048, n).astype(np.int32),
        )


def write(store, blocks, *, partition=PARTITION, grid=GRID, planes=("image",)):
    ingest.create_groups(store, attributes={"unit": "nJy"}, partitions=[partition], grids=[grid])
    ingest.write_partition(store, partition, grid, blocks, planes=planes, fingerprint=FINGERPRINT)


def group_of(store, partition=PARTITION, grid=GRID):
    return Path(store) / partition.path / grid.label


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "cutouts.zarr")


@pytest.fixture
def written(store):
    write(store, make_blocks(600), planes=("image", "mask", "variance"))
    return store


def assert_equal_blocks(found, expected):
    for field in dataclasses.fields(CutoutBlock):
        value, wanted = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(wanted, np.ndarray):
            np.testing.assert_array_equal(value, wanted, err_msg=field.name)
            assert value.dtype.kind == wanted.dtype.kind or wanted.dtype.kind == "U", field.name
        else:
            assert value == wanted, field.name


def test_what_is_read_is_what_was_written(written):
    for number, block in enumerate(make_blocks(600)):
        start = number * BLOCK_OBJECTS
        found = ingest.read_block(
            written,
            PARTITION,
            GRID,
            start=start,
            stop=start + len(block),
            planes=("image", "mask", "variance"),
        )
        assert_equal_blocks(found, block)


def test_any_range_of_objects_is_read_exactly(written):
    ids = np.concatenate([block.object_id for block in make_blocks(600)])
    images = np.concatenate([block.image for block in make_blocks(600)])
    for start, stop in ((0, 1), (255, 258), (599, 600), (10, 10)):
        found = ingest.read_block(written, PARTITION, GRID, start=start, stop=stop)
        np.testing.assert_array_equal(found.object_id, ids[start:stop])
        np.testing.assert_array_equal(found.image, images[start:stop])
        assert found.mask is None
        assert found.variance is None


def test_reading_past_the_end_is_refused(written):
    with pytest.raises(FingerprintError, match="objects 590 to 610 asked for, 600 are there"):
        ingest.read_block(written, PARTITION, GRID, start=590, stop=610)


def test_reading_what_was_never_cut(store):
    with pytest.raises(FingerprintError, match="no cutouts there"):
        ingest.read_block(store, PARTITION, GRID, start=0, stop=1)


def test_planes_are_stored_only_when_named(store):
    write(store, make_blocks(10))
    assert not (group_of(store) / "mask").exists()
    with pytest.raises(ConfigError, match=r"mask is not stored; name it in \[cutouts\] planes"):
        ingest.read_block(store, PARTITION, GRID, start=0, stop=1, planes=("image", "mask"))


def test_text_ids_come_back(store):
    write(store, make_blocks(3, text_ids=True))
    found = ingest.read_block(store, PARTITION, GRID, start=1, stop=3)
    assert found.object_id.tolist() == ["J36411452835238207", "J36411452835238208"]
    assert found.object_id.dtype == object


def test_done_tells_fingerprint_and_counts(written):
    done = ingest.read_done(written, PARTITION, GRID)
    # One shard each of image, mask and variance: cutouts this small fill it with several blocks.
    assert done == {"fingerprint": FINGERPRINT, "n_objects": 600, "shards": 3}
    assert ingest.list_done(written) == [(PARTITION.pixel, GRID)]


def test_failure_in_the_middle_leaves_it_unfinished(store):
    def failing():
        yield from list(make_blocks(600))[:2]
        raise OSError("the tile's disk is gone")

    write(store, make_blocks(600))
    assert ingest.read_done(store, PARTITION, GRID) is not None
    with pytest.raises(OSError, match="disk is gone"):
        write(store, failing())
    assert ingest.read_done(store, PARTITION, GRID) is None
    assert ingest.list_done(store) == []
    assert list(Path(store).rglob("_done.json")) == []


def test_writing_again_replaces_all_of_it(store):
    write(store, make_blocks(600), planes=("image", "mask"))
    write(store, make_blocks(300, seed=9))
    expected = next(make_blocks(300, seed=9))
    found = ingest.read_block(store, PARTITION, GRID, start=0, stop=256)
    np.testing.assert_array_equal(found.image, expected.image)
    assert ingest.read_done(store, PARTITION, GRID)["n_objects"] == 300
    assert not (group_of(store) / "mask").exists()


def test_fewer_objects_than_the_partition_has(store):
    write(store, make_blocks(300))
    assert zarr.open_group(str(group_of(store)), mode="r")["image"].shape == (300, 2, 12, 12)
    with pytest.raises(FingerprintError, match="300 are there"):
        ingest.read_block(store, PARTITION, GRID, start=256, stop=301)


def test_no_objects_on_a_grid(store):
    write(store, [])
    assert ingest.read_done(store, PARTITION, GRID) == {
        "fingerprint": FINGERPRINT,
        "n_objects": 0,
        "shards": 0,
    }


def test_blocks_but_the_last_are_whole(store):
    short, *_ = make_blocks(100)
    with pytest.raises(ValueError, match="a block of 100 after 100"):
        write(store, [short, short])
    assert ingest.read_done(store, PARTITION, GRID) is None


def test_more_objects_than_the_partition_has(store):
    with pytest.raises(ValueError, match="of 600 objects"):
        write(store, make_blocks(601))


SHARDS = [
    (24, "g", 4096),
    (32, "g", 2048),
    (64, "g", 512),
    (96, "gr", 256),
    (239, "g", 128),
    (239, "gri", 32),
    (239, "grizy", 16),
]


@pytest.mark.parametrize(("size_px", "bands", "shard"), SHARDS)
def test_shards_hold_5_to_64_mb_in_whole_blocks(store, size_px, bands, shard):
    grid, partition = Grid(size_px, 0.168), Partition(5, 7, 0, shard + 10)
    blocks = list(make_blocks(shard + 10, grid=grid, bands=tuple(bands)))
    write(store, blocks, partition=partition, grid=grid)
    image = zarr.open_group(str(group_of(store, partition, grid)), mode="r")["image"]
    assert image.shards == (shard, *blocks[0].image.shape[1:])
    assert shard % image.chunks[0] == 0
    assert image.chunks[0] == 1 or image.chunks[0] * blocks[0].image[0].nbytes <= 1e6
    assert image.chunks[1:] == blocks[0].image.shape[1:]
    sizes = shard_sizes(group_of(store, partition, grid) / "image")
    assert len(sizes) == 2
    assert 5e6 < sizes[0] < 64e6
    assert sizes[1] < sizes[0]
    for start in range(0, shard + 10, BLOCK_OBJECTS):
        stop = min(start + BLOCK_OBJECTS, shard + 10)
        found = ingest.read_block(store, partition, grid, start=start, stop=stop)
        np.testing.assert_array_equal(found.image, blocks[start // BLOCK_OBJECTS].image)


def shard_sizes(array):
    """Bytes of the files of an array's shards, in order."""
    files = [path for path in (array / "c").rglob("*") if path.is_file()]
    return [
        path.stat().st_size
        for path in sorted(files, key=lambda p: [int(i) for i in p.relative_to(array / "c").parts])
    ]


@pytest.mark.parametrize(
    ("size_px", "bands", "shard", "n_shards"),
    [(1900, "grizy", (1, 4, 1900, 1900), 2), (4200, "g", (1, 1, 2100, 4200), 2)],
)
def test_a_cutout_above_64_mb_is_divided(store, size_px, bands, shard, n_shards):
    grid, partition = Grid(size_px, 0.168), Partition(5, 7, 0, 1)
    (block,) = make_blocks(1, grid=grid, bands=tuple(bands))
    write(store, [block], partition=partition, grid=grid)
    image = group_of(store, partition, grid) / "image"
    assert zarr.open_array(image, mode="r").shards == shard
    sizes = shard_sizes(image)
    assert len(sizes) == n_shards == ingest.read_done(store, partition, grid)["shards"]
    assert all(5e6 < size < 64e6 for size in sizes)
    found = ingest.read_block(store, partition, grid, start=0, stop=1)
    np.testing.assert_array_equal(found.image, block.image)


def test_a_small_partition_takes_little_more_than_its_pixels(store):
    grid, partition = Grid(239, 0.168), Partition(5, 7, 0, 20)
    (block,) = make_blocks(20, grid=grid)
    write(store, [block], partition=partition, grid=grid)
    (size,) = shard_sizes(group_of(store, partition, grid) / "image")
    assert block.image.nbytes < size < 1.12 * block.image.nbytes


def test_zarr_writes_the_same_shard(store, tmp_path):
    """The shards that are not coded are laid out here; Zarr, writing its own way, must give the same bytes."""
    grid, partition = Grid(96, 0.168), Partition(5, 7, 0, 200)
    (block,) = make_blocks(200, grid=grid)
    write(store, [block], partition=partition, grid=grid)
    ours = zarr.open_array(group_of(store, partition, grid) / "image", mode="r")
    theirs = zarr.from_array(tmp_path / "theirs.zarr", data=ours, write_data=False, fill_value=np.nan)
    theirs[...] = block.image
    found, expected = (
        (Path(a.store_path.store.root) / a.path / "c/0/0/0/0").read_bytes() for a in (ours, theirs)
    )
    n_places = ours.shards[0] // ours.chunks[0]
    assert len(found) == len(expected)
    index, index_of_theirs = (
        np.frombuffer(data[-16 * n_places - 4 : -4], "<u8").reshape(-1, 2) for data in (found, expected)
    )
    np.testing.assert_array_equal(index[:, 1], index_of_theirs[:, 1])
    for (at, n_bytes), (at_theirs, _) in zip(index.tolist(), index_of_theirs.tolist(), strict=True):
        if at < 2**63:
            assert found[at : at + n_bytes] == expected[at_theirs : at_theirs + n_bytes]


def test_empty_cutouts_are_written(store):
    grid, partition = Grid(64, 0.168), Partition(5, 7, 0, 600)
    blocks = [
        dataclasses.replace(
            block, image=np.full_like(block.image, np.nan), coverage=np.zeros_like(block.coverage)
        )
        for block in make_blocks(600, grid=grid)
    ]
    write(store, blocks, partition=partition, grid=grid)
    assert len(shard_sizes(group_of(store, partition, grid) / "image")) == 3
    assert ingest.read_done(store, partition, grid)["shards"] == 3
    assert np.isnan(ingest.read_block(store, partition, grid, start=0, stop=256).image).all()


@pytest.mark.parametrize("fault", ["gone", "empty"])
def test_a_lost_shard_shows(store, fault):
    """What a power cut can leave: Zarr itself reads both as NaN, without a word."""
    grid, partition = Grid(64, 0.168), Partition(5, 7, 0, 600)
    write(store, make_blocks(600, grid=grid), partition=partition, grid=grid)
    shard = group_of(store, partition, grid) / "image/c/1/0/0/0"
    shard.unlink() if fault == "gone" else shard.write_bytes(b"")
    ingest.read_block(store, partition, grid, start=0, stop=256)
    with pytest.raises(DamagedError, match=r"c/1/0/0/0: is (gone|empty); galbatch run makes it again"):
        ingest.read_block(store, partition, grid, start=255, stop=257)


@pytest.mark.parametrize("name", ["object_id", "coverage", "flags"])
def test_a_lost_small_array_shows(written, name):
    shutil.rmtree(group_of(written) / name / "c")
    with pytest.raises(DamagedError, match=rf"{name}/c/0(/0)?: is gone; galbatch run makes it again"):
        ingest.read_block(written, PARTITION, GRID, start=0, stop=1)


def test_blocks_are_read_one_after_another(written):
    found = list(ingest.read_blocks(written, PARTITION, GRID, planes=("image", "mask", "variance")))
    for block, expected in zip(found, make_blocks(600), strict=True):
        assert_equal_blocks(block, expected)


@pytest.fixture
def without_cluster():
    """Dask computes in this thread, whatever clusters other tests have made its default."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.usefixtures("without_cluster")
def test_xarray_opens_a_group_without_a_warning(written):
    with xr.open_zarr(group_of(written)) as data:
        assert data["image"].dims == ("object", "band", "y", "x")
        assert data["image"].shape == (600, 2, 12, 12)
        assert data["image"].dtype == np.float32
        assert data["image"].attrs["units"] == "nJy"
        assert data.attrs["bands"] == ["g", "r"]
        assert data.attrs["unit"] == "nJy"
        assert data["cd"].dims == ("object", "world_axis", "pixel_axis")
        expected = next(make_blocks(600))
        np.testing.assert_array_equal(data["object_id"].values[:256], expected.object_id)
        np.testing.assert_array_equal(data["image"].values[:256], expected.image)


@pytest.mark.usefixtures("without_cluster")
def test_xarray_selects_by_band_and_knows_units_names_and_bits(written):
    with xr.open_zarr(group_of(written)) as data:
        assert set(data.coords) == {"band", "object_id", "ra_deg", "dec_deg"}
        assert data.coords["band"].values.tolist() == ["g", "r"]
        expected = next(make_blocks(600))
        np.testing.assert_array_equal(data["image"].sel(band="r").values[:256], expected.image[:, 1])
        one = data.set_index(object="object_id").sel(object=expected.object_id[7], band="g")
        np.testing.assert_array_equal(one["image"].values, expected.image[7, 0])
        assert all("long_name" in data[name].attrs for name in data.variables)
        # The unit of every array is one that astropy knows.
        assert {
            str(Unit(found.attrs.get("units", "")).physical_type) for found in data.variables.values()
        } >= {
            "spectral flux density",
            "angle",
        }
        for name, flags in (("flags", PixelFlag), ("mask", MaskBit)):
            attributes = data[name].attrs
            assert attributes["flag_masks"] == [flag.value for flag in flags]
            assert attributes["flag_meanings"].split() == [flag.name for flag in flags]


@pytest.mark.parametrize("method", ["low_pass", "exact"])
def test_how_pixels_were_resampled_is_said_and_read_back(tmp_path, method):
    """reproject gives neither variance nor mask: what stands for them is marked as approximate."""
    store = str(tmp_path / "store.zarr")
    blocks = (dataclasses.replace(block, resampling=method) for block in make_blocks(600))
    write(store, blocks, planes=("image", "mask", "variance"))
    assert ingest.read_block(store, PARTITION, GRID, start=0, stop=2).resampling == method
    with xr.open_zarr(group_of(store)) as data:
        assert data.attrs["resampling"] == method
        said = {
            name: "approximate" in data[name].attrs.get("comment", "")
            for name in ("image", "mask", "variance")
        }
    approximate = method != "low_pass"
    assert said == {"image": False, "mask": approximate, "variance": approximate}


def test_the_whole_store_can_be_walked(written):
    root = zarr.open_group(written, mode="r")
    assert dict(root.attrs)["unit"] == "nJy"
    names = [name for name, _ in root.members(max_depth=None)]
    assert "Norder=5/Dir=0/Npix=7123/12px_0.168arcsec/image" in names


def test_groups_can_be_made_again(written):
    before = ingest.read_done(written, PARTITION, GRID)
    ingest.create_groups(written, attributes={"survey": "hsc"}, partitions=[PARTITION], grids=[GRID])
    assert ingest.read_done(written, PARTITION, GRID) == before
    assert dict(zarr.open_group(written, mode="r").attrs)["survey"] == "hsc"


def test_removing_a_partition_leaves_the_others(written):
    other = Partition(5, 7124, 0, 5)
    write(written, make_blocks(5), partition=other)
    ingest.remove_partition(written, PARTITION)
    ingest.remove_partition(written, PARTITION)
    assert ingest.list_done(written) == [(other.pixel, GRID)]
    assert not (Path(written) / PARTITION.path).exists()


def test_projected_bytes_are_what_lies_on_disk(store):
    grid, partition = Grid(96, 0.168), Partition(5, 7, 0, 256)
    planes = ("image",)
    write(store, make_blocks(256, grid=grid), partition=partition, grid=grid, planes=planes)
    on_disk = sum(path.stat().st_size for path in Path(store).rglob("*") if path.is_file())
    assert on_disk == pytest.approx(256 * ingest.bytes_per_object(grid, ("g", "r"), planes), rel=0.01)


def test_done_is_plain_json(written):
    (path,) = Path(written).rglob("_done.json")
    assert json.loads(path.read_text())["n_objects"] == 600


@pytest.mark.parametrize(("size_px", "bands"), [(64, ("g",)), (128, ("g", "r")), (128, tuple("grizy"))])
def test_reading_takes_the_memory_that_is_told_whatever_the_shards(store, size_px, bands):
    """Shards of more than a block, of one block, and of part of one; of three blocks no more than of one."""
    grid = Grid(size_px, 0.168)
    write(store, make_blocks(600, grid=grid, bands=bands), grid=grid)
    projected = ingest.reading_bytes(grid, bands)
    list(ingest.read_blocks(store, PARTITION, grid))  # what is imported and made once
    tracemalloc.start()
    peaks = []
    for block in ingest.read_blocks(store, PARTITION, grid):
        peaks.append(tracemalloc.get_traced_memory()[1])
        del block
        tracemalloc.reset_peak()
    tracemalloc.stop()
    assert len(peaks) == 3
    assert 0.5 * projected < max(peaks) < 1.1 * projected


def test_files_are_let_go_once_they_are_read(store):
    """A block of 33 MB in two shards: afterwards its cutouts alone are in memory."""
    grid, bands = Grid(128, 0.168), ("g", "r")
    write(store, make_blocks(600, grid=grid, bands=bands), grid=grid)
    blocks = ingest.read_blocks(store, PARTITION, grid)
    tracemalloc.start()
    block = next(blocks)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 1.1 * block.image.nbytes

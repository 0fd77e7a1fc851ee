"""What reading windows of a tile on S3 fetches, counted by the server."""

from __future__ import annotations

import dataclasses
import gzip
import io

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch import storage
from galbatch.core.types import Plane, Tile
from galbatch.errors import TileError
from galbatch.ingest.cut.tile import dense
from galbatch.ingest.pixels import Box, ExpectedReads, TileReader, read_cost, tile_read_cost
from galbatch.ingest.pixels.planes import CompressedPlane, MappedPlane, RangedPlane, merged

WINDOW_BYTES = 239 * 239 * 4


def written(*hdus):
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(buffer)
    return buffer.getvalue()


def tile_at(path, shape, **planes):
    planes = {"image": Plane(path, 1)} | planes
    return Tile("t", "g", planes.pop("image"), shape, "", "", 1.0, 0.168, (), **planes)


def expectations(tile, n_windows, size_px=239):
    planes = [plane for plane in (tile.image, tile.mask, tile.weight) if plane is not None]
    return dict.fromkeys(planes, ExpectedReads(n_windows, size_px))


def test_sparse_and_dense_cutouts_of_a_full_tile(serve):
    put, server = serve
    rng = np.random.default_rng(1)
    image = rng.normal(size=(4200, 4200)).astype(np.float32)
    content = written(fits.ImageHDU(image))
    path = put("calexp.fits", content)
    tile = tile_at(path, image.shape)
    # On a grid of 4 x 5, so that none touches another.
    sparse = [Box(y, y + 239, x, x + 239) for y in range(300, 4200, 1000) for x in range(100, 4200, 850)]
    own_bytes = len(sparse) * WINDOW_BYTES
    with TileReader(expected=expectations(tile, len(sparse))) as reader:
        reader.prefetch(tile, sparse)
        for box in sparse:
            np.testing.assert_array_equal(reader.read(tile, box).image, image[box.slices])
    assert len(sparse) == 20
    assert own_bytes < server.bytes_ <= own_bytes + 2 * storage.BLOCK_BYTES <= 2 * own_bytes
    assert server.bytes_ < 0.15 * len(content)
    expected = tile_read_cost(tile, n_windows=20, size_px=239)
    assert (server.bytes_, server.gets + server.heads) == pytest.approx(
        (expected.bytes_, expected.requests), rel=0.02
    )

    server.reset()
    dense = [Box(y, y + 239, x, x + 239) for y, x in rng.integers(0, 4200 - 239, (400, 2)).tolist()]
    with TileReader(expected=expectations(tile, len(dense))) as reader:
        for start in range(0, 400, 100):
            reader.prefetch(tile, dense[start : start + 100])
            for box in dense[start : start + 100]:
                np.testing.assert_array_equal(reader.read(tile, box).image, image[box.slices])
    assert image.nbytes < server.bytes_ <= len(content) + 2 * storage.BLOCK_BYTES
    assert server.gets + server.heads <= 9


@pytest.mark.parametrize(
    ("options", "times_own"), [({"tile_shape": (100, 100)}, 0.5), ({"tile_shape": (1, 1500)}, 2.0)]
)
def test_sparse_windows_of_a_compressed_plane_fetch_their_blocks(serve, options, times_own):
    put, server = serve
    rng = np.random.default_rng(2)
    image = rng.normal(size=(1500, 1500)).astype(np.float32)
    content = written(fits.CompImageHDU(image, compression_type="RICE_1", **options))
    stored = fits.open(io.BytesIO(content))[1].data
    tile = tile_at(put("brick.fits.fz", content), image.shape)
    boxes = [Box(0, 239, 0, 239), Box(700, 939, 500, 739), Box(1400, 1500, 1261, 1500)]
    with TileReader() as reader:
        reader.prefetch(tile, boxes)
        n_gets = server.gets
        for box in boxes:
            np.testing.assert_array_equal(reader.read(tile, box).image, stored[box.slices])
        assert server.gets == n_gets  # all was there before it was asked for
    own_bytes = sum(4 * box.shape[0] * box.shape[1] for box in boxes)
    assert server.bytes_ < times_own * own_bytes + storage.BLOCK_BYTES


def test_compressed_planes_of_one_file_keep_each_others_blocks(serve):
    """Image, mask and variance as the LSST pipelines write them."""
    put, server = serve
    image = np.random.default_rng(2).normal(size=(1500, 1500)).astype(np.float32)
    hdus = [
        fits.CompImageHDU(plane, tile_shape=(100, 100)) for plane in (image, image.astype("i4"), image**2)
    ]
    path = put("coadd.fits", written(*hdus))
    tile = tile_at(path, image.shape, mask=Plane(path, 2), weight=Plane(path, 3))
    boxes = [Box(0, 239, 0, 239), Box(700, 939, 500, 739)]
    with TileReader() as reader:
        reader.prefetch(tile, boxes)
        n_gets = server.gets
        for box in boxes:
            reader.read(tile, box)
        assert server.gets == n_gets
        reader.prefetch(tile, boxes[:1])
        n_gets = server.gets
        reader.read(tile, boxes[1])  # forgotten
        assert server.gets > n_gets


def test_a_dense_list_fetches_a_compressed_plane_once(serve):
    put, server = serve
    image = np.random.default_rng(3).normal(size=(600, 600)).astype(np.float32)
    content = written(fits.CompImageHDU(image, tile_shape=(100, 100)), fits.ImageHDU(image.astype("i4")))
    stored = fits.open(io.BytesIO(content))[1].data
    path = put("brick.fits.fz", content)
    tile = tile_at(path, image.shape, mask=Plane(path, 2))
    boxes = [Box(y, y + 96, x, x + 96) for y in range(0, 500, 50) for x in range(0, 500, 50)]
    with TileReader(expected=expectations(tile, len(boxes), 96)) as reader:
        for box in boxes:
            np.testing.assert_array_equal(reader.read(tile, box).image, stored[box.slices])
    assert server.bytes_ < len(content) + 3 * storage.BLOCK_BYTES


def scaled_integers():
    """A file of int16 with BSCALE, BZERO and BLANK, and its physical values."""
    stored = (np.arange(90 * 110).reshape(90, 110) % 100).astype(np.int16)
    hdu = fits.ImageHDU(stored)
    # Written under other names: astropy drops these cards where it writes unscaled data.
    hdu.header["XSCALE"], hdu.header["XZERO"], hdu.header["XBLANK"] = 0.5, 3.0, 7
    content = written(hdu).replace(b"XSCALE  ", b"BSCALE  ").replace(b"XZERO   ", b"BZERO   ")
    return content.replace(b"XBLANK  ", b"BLANK   "), np.where(stored == 7, np.nan, 0.5 * stored + 3.0)


def unsigned_integers():
    """A file of uint16, stored as int16 with BZERO = 32768, and its values."""
    values = np.arange(90 * 110).reshape(90, 110).astype(np.uint16) + np.uint16(40_000)
    return written(fits.ImageHDU(values)), values


@pytest.mark.parametrize("n_windows", [1, 10_000])
@pytest.mark.parametrize("make", [unsigned_integers, scaled_integers])
def test_integers_are_scaled_however_they_are_read(serve, tmp_path, make, n_windows):
    put, _ = serve
    content, values = make()
    (tmp_path / "local.fits").write_bytes(content)
    box = Box(5, 80, 3, 100)
    for path in (put("remote.fits", content), str(tmp_path / "local.fits")):
        tile = tile_at(path, values.shape)
        with TileReader(expected=expectations(tile, n_windows, 97)) as reader:
            found = reader.read(tile, box).image
        np.testing.assert_array_equal(found, values[box.slices].astype(np.float32))


@pytest.mark.parametrize("remote", [True, False])
def test_packed_files_are_unpacked_once(serve, tmp_path, remote):
    put, server = serve
    image = np.random.default_rng(4).normal(size=(300, 300)).astype(np.float32)
    content = gzip.compress(written(fits.ImageHDU(image)), 1)
    (tmp_path / "stamp.fits.gz").write_bytes(content)
    path = put("stamp.fits.gz", content) if remote else str(tmp_path / "stamp.fits.gz")
    tile = tile_at(path, image.shape)
    with TileReader() as reader:
        for box in (Box(200, 296, 3, 99), Box(0, 96, 100, 196)):
            np.testing.assert_array_equal(reader.read(tile, box).image, image[box.slices])
    assert server.bytes_ == remote * len(content)
    if not remote:
        (tmp_path / "stamp.fits.gz").write_bytes(content[:-2000])
        with (
            pytest.raises(TileError, match=r"stamp.fits.gz: ends within its gzip stream"),
            TileReader() as reader,
        ):
            reader.read(tile, Box(0, 96, 0, 96))


def test_cube_planes_are_read_at_their_index(serve):
    put, _ = serve
    cube = np.random.default_rng(5).normal(size=(3, 200, 1300)).astype(np.float32)
    path = put("cube.fits", written(fits.ImageHDU(cube)))
    tile = tile_at(path, cube.shape[1:], image=Plane(path, 1, (2,)))
    box = Box(10, 60, 20, 90)
    for n_windows in (1, 1000):
        with TileReader(expected=expectations(tile, n_windows, 70)) as reader:
            np.testing.assert_array_equal(reader.read(tile, box).image, cube[2][box.slices])


def test_what_was_not_told_of_is_read_all_the_same(serve):
    put, server = serve
    image = np.random.default_rng(6).normal(size=(500, 2500)).astype(np.float32)
    tile = tile_at(put("tile.fits", written(fits.ImageHDU(image))), image.shape)
    with TileReader() as reader:
        reader.prefetch(tile, [Box(0, 96, 0, 96)])
        for box in (Box(0, 96, 0, 96), Box(10, 20, 50, 120), Box(400, 500, 2400, 2500)):
            np.testing.assert_array_equal(reader.read(tile, box).image, image[box.slices])
        n_gets = server.gets
        reader.read(tile, Box(5, 90, 5, 90))
        assert server.gets == n_gets
        reader.prefetch(tile, [Box(400, 500, 2400, 2500)])
        assert server.gets == n_gets + 100
        reader.read(tile, Box(5, 90, 5, 90))  # forgotten
        assert server.gets == n_gets + 100 + 85


def test_a_file_that_was_cut_is_told_of(serve):
    put, _ = serve
    image = np.zeros((500, 2500), np.float32)
    content = written(fits.ImageHDU(image))
    tile = tile_at(put("tile.fits", content[:-2_000_000]), image.shape)
    with TileReader() as reader, pytest.raises(TileError, match=r"image is 3\d\d x 2500 px"):
        reader.prefetch(tile, [Box(0, 96, 0, 96)])


@pytest.mark.parametrize("kind", [PermissionError, TimeoutError, OSError])
@pytest.mark.parametrize("name", ["tile.fits", "tile.h5"])
def test_a_refused_request_is_no_damaged_file(serve, monkeypatch, name, kind):
    """As s3fs raises ExpiredToken and RequestTimeout: without a number. The run tries again what is an OSError."""
    put, _ = serve
    tile = tile_at(put(name, written(fits.ImageHDU(np.zeros((50, 50), np.float32)))), (50, 50))

    class Refusing:
        def info(self, _):
            return {"size": 10_000, "ETag": "x"}

        def cat_ranges(self, *_, **__):
            raise kind("ExpiredToken")

    monkeypatch.setattr(storage.S3FileSystem, "_client", lambda _: Refusing())
    with TileReader() as reader, pytest.raises(kind, match="ExpiredToken"):
        reader.read(tile, Box(0, 10, 0, 10))


def test_readers_are_what_the_cost_says(serve):
    put, _ = serve
    image = np.zeros((800, 3000), np.float32)
    path = put("tile.fits", written(fits.ImageHDU(image), fits.CompImageHDU(image)))
    plain, packed = tile_at(path, image.shape), tile_at(path, image.shape, image=Plane(path, 2))
    for n_windows, kind in ((5, RangedPlane), (500, MappedPlane)):
        with TileReader(expected=expectations(plain, n_windows, 96)) as reader:
            assert isinstance(reader._reader(plain, plain.image), kind)
            whole = read_cost(plain, plain.image, n_windows=n_windows, size_px=96).whole
            assert whole == (kind is MappedPlane)
            assert reader._reader(plain, plain.image).held_bytes == whole * image.nbytes
    with TileReader() as reader:
        assert isinstance(reader._reader(packed, packed.image), CompressedPlane)


def test_only_so_much_is_held_on_this_machine(serve, monkeypatch):
    put, server = serve
    image = np.zeros((300, 300), np.float32)
    tiles = [tile_at(put(f"{n}.fits", written(fits.ImageHDU(image))), image.shape) for n in range(4)]
    monkeypatch.setattr("galbatch.ingest.pixels.reader.MAX_HELD_BYTES", 2 * image.nbytes)
    expected = {tile.image: ExpectedReads(1000, 96) for tile in tiles}
    with TileReader(expected=expected) as reader:
        for tile in tiles:
            reader.read(tile, Box(0, 96, 0, 96))
            assert reader._held_bytes() <= 2 * image.nbytes
        n_bytes = server.bytes_
        reader.read(tiles[3], Box(0, 96, 0, 96))
        assert server.bytes_ == n_bytes
        reader.read(tiles[0], Box(0, 96, 0, 96))
        assert server.bytes_ > n_bytes + image.nbytes


@pytest.mark.parametrize("scale", [0.168, 0.2])
def test_a_block_is_cut_from_one_fetch_of_each_plane(
    serve, tmp_path, tan, write_calexp, read_tiles, objects, cut, monkeypatch, scale
):
    """Copied and resampled alike: ten objects on one tile, as many rounds of requests as it has planes."""
    image = np.random.default_rng(8).normal(size=(900, 5000)).astype(np.float32)
    local_path = write_calexp(tmp_path, image=image, wcs=tan(crpix=(2500, 450)))
    local = read_tiles(tmp_path)[0]
    put, _ = serve
    path = put("calexp.fits", local_path.read_bytes())
    moved = {
        name: dataclasses.replace(getattr(local, name), path=path) for name in ("image", "mask", "weight")
    }
    psf = np.random.default_rng(7).uniform(0.5, 1.0, image.shape).astype(np.float32)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(psf)]).writeto(tmp_path / "psf.fits")
    local = dataclasses.replace(local, psf=Plane(str(tmp_path / "psf.fits"), 1))
    map_path = put("psf.fits", (tmp_path / "psf.fits").read_bytes())
    remote = dataclasses.replace(local, **moved, psf=Plane(map_path, 1))
    x, y = np.random.default_rng(9).uniform((100, 100), (4900, 800), (10, 2)).T
    table = objects(*WCS(tan(crpix=(2500, 450))).all_pix2world(x, y, 0))
    rounds = []
    read_ranges = storage.S3FileSystem.read_ranges

    def counted(system, path, ranges):
        rounds.append(len(ranges))
        return read_ranges(system, path, ranges)

    monkeypatch.setattr(storage.S3FileSystem, "read_ranges", counted)
    # Windows and strips in which the tile's sky is measured, and its stars are looked for, are read once a tile, not with its blocks.
    monkeypatch.setattr(dense, "MIN_TILE_PX", 1000)
    found, expected = (cut(table, [tile], size=48, scale=scale) for tile in (remote, local))
    for name in ("image", "mask", "variance", "flags", "psf_fwhm_arcsec"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert len(np.unique(found.psf_fwhm_arcsec)) == 10
    # The ten pixels of the PSF map, too; the others are of headers.
    assert [n for n in rounds if n > 1] == [max(rounds)] * 3 + [10]
    assert len(rounds) <= 10


def test_ranges_that_overlap_or_are_close_are_joined():
    assert merged([(50, 60), (0, 10), (5, 20), (24, 30)], gap_bytes=4) == [(0, 30), (50, 60)]
    assert merged([(0, 10), (2, 4), (10, 12)], gap_bytes=0) == [(0, 12)]
    assert merged([], gap_bytes=4) == []

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits

from galbatch import ingest
from galbatch.config import FlagsConfig, SurveyConfig
from galbatch.core import sky
from galbatch.core.types import CutoutSpec, Grid, ObjectTable

HSC_FLUXMAG0 = 10 ** (27.0 / 2.5)
HSC_PLANES = {"BAD": 0, "SAT": 1, "INTRP": 2, "CR": 3, "DETECTED": 5, "NO_DATA": 8, "BRIGHT_OBJECT": 9}


def tan_header(*, crpix, crval=(150.0, 2.0), scale_arcsec=0.168, angle_deg=0.0):
    """Cards of a TAN WCS, turned by `angle_deg`."""
    scale, angle = scale_arcsec / 3600.0, np.deg2rad(angle_deg)
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = crval
    header["CRPIX1"], header["CRPIX2"] = crpix
    header["CD1_1"], header["CD1_2"] = -scale * np.cos(angle), scale * np.sin(angle)
    header["CD2_1"], header["CD2_2"] = scale * np.sin(angle), scale * np.cos(angle)
    return header


def _write_calexp(
    root, *, band="G", tract=9813, patch="4,4", image, mask=None, variance=None, wcs, fluxmag0=HSC_FLUXMAG0
):
    folder = Path(root) / f"deepCoadd-results/HSC-{band}/{tract}/{patch}"
    folder.mkdir(parents=True, exist_ok=True)
    image = np.asarray(image, np.float32)
    mask = np.zeros(image.shape, np.int32) if mask is None else mask
    variance = np.ones(image.shape, np.float32) if variance is None else variance
    primary = fits.PrimaryHDU()
    if fluxmag0 is not None:
        primary.header["FLUXMAG0"] = fluxmag0
    hdus = [primary, *(fits.ImageHDU(plane, header=wcs) for plane in (image, mask, variance))]
    for name, number in HSC_PLANES.items():
        hdus[2].header[f"HIERARCH MP_{name}"] = number
    archive = fits.BinTableHDU(np.zeros(3, dtype=[("id", "i4")]))
    path = folder / f"calexp-HSC-{band}-{tract}-{patch}.fits"
    fits.HDUList([*hdus, archive]).writeto(path, overwrite=True)
    return path


@pytest.fixture
def write_calexp():
    return _write_calexp


@pytest.fixture
def tan():
    return tan_header


@pytest.fixture
def objects():
    def make(ra, dec, ids=None):
        ra, dec = np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
        ids = np.arange(len(ra)) + 36411452835238206 if ids is None else ids
        return ObjectTable(ids, ra, dec, sky.healpix_29(ra, dec), pa.table({"z": np.zeros(len(ra))}))

    return make


@pytest.fixture
def read_tiles():
    def read(path, *, layout="hsc", bands=("g",), **survey):
        return ingest.read_tiles(SurveyConfig(layout=layout, tiles=str(path), bands=bands, **survey))

    return read


@pytest.fixture
def cut():
    def run(
        table,
        tiles,
        *,
        size=32,
        scale=0.168,
        bands=("g",),
        resampling="low_pass",
        flags=None,
        object_flags=None,
    ):
        return ingest.cut_block(
            table,
            tiles,
            spec=CutoutSpec(Grid(size, scale), tuple(bands), resampling),
            flags=flags or FlagsConfig(),
            object_flags=np.zeros(len(table), np.int32) if object_flags is None else object_flags,
        )

    return run


# One host of S3 objects in memory that counts what goes out: moto takes 54 ms for a range of a large object.


class Counted:
    """What is served, and the requests and body bytes that went out."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.gets, self.heads, self.bytes_ = 0, 0, 0

    def add(self, command: str, n_bytes: int) -> None:
        with self.lock:
            self.gets += command == "GET"
            self.heads += command == "HEAD"
            self.bytes_ += n_bytes


@contextmanager
def serving(objects: dict[str, bytes]):
    """Serve `objects` ("/bucket/key" -> content); yields (endpoint URL, Counted)."""
    counted = Counted(objects)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            content = counted.objects.get(self.path.partition("?")[0])
            part, status = memoryview(content or b""), 404 if content is None else 200
            if found := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                part, status = part[int(found[1]) : int(found[2]) + 1], 206
            self.send_response(status)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("ETag", '"0"')
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            sent = part if self.command == "GET" else b""
            counted.add(self.command, len(sent))  # before the client can go on
            self.wfile.write(sent)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", counted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def serve(monkeypatch):
    """(put, counted): ``put(name, content)`` gives the path on S3; counted are the requests after the last put."""
    with serving({}) as (url, counted):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        fsspec.get_filesystem_class("s3").clear_instance_cache()

        def put(name, content):
            counted.objects[f"/bucket/{name}"] = content
            counted.reset()
            return f"s3://bucket/{name}"

        yield put, counted
        fsspec.get_filesystem_class("s3").clear_instance_cache()

"""S3."""

from __future__ import annotations

import errno
import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aiohttp
import pytest
import s3fs

from galbatch import storage
from galbatch.core.types import FileIdentity
from galbatch.errors import OutputError


def test_s3_files_go_come_back_and_are_found(s3: str) -> None:
    x, y = f"{s3}/a/4,4/x.fits", f"{s3}/a/y.fits"
    storage.check_writable(s3)
    for path in (x, y, f"{s3}/a/notes.txt"):
        storage.publish(path, path.encode())
    assert storage.read_bytes(x) == x.encode()
    assert storage.find_files(f"{s3}/**/*.fits", suffixes=()) == [x, y]
    assert storage.find_files(f"{s3}/a", suffixes=(".fits",)) == [x, y]
    assert storage.find_files(y, suffixes=()) == [y]
    assert storage.find_files(f"{s3}/none", suffixes=(".fits",)) == []
    assert storage.list_files(f"{s3}/a", suffix=".fits") == ["4,4/x.fits", "y.fits"]
    assert storage.list_files(f"{s3}/none", suffix="") == []
    storage.remove(f"{s3}/a")
    storage.remove(f"{s3}/a")
    assert not storage.exists(f"{s3}/a")
    assert storage.read_json(f"{s3}/a/x.json") is None


def test_s3_identity_is_the_etag(s3: str) -> None:
    storage.publish(f"{s3}/x", b"abc")
    found = storage.identity(f"{s3}/x")
    assert (found.size_bytes, found.version) == (3, hashlib.md5(b"abc").hexdigest())


def test_s3_without_its_bucket(s3: str) -> None:
    with pytest.raises(OutputError, match="there is no such bucket"):
        storage.check_writable("s3://no-such-bucket-here/out")


def test_many_identities_on_s3_come_from_one_listing(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [f"{s3}/a/{number}/x" for number in range(storage.LISTED_FROM)]
    for path in paths[1:]:
        storage.publish(path, path.encode())
    monkeypatch.setattr(storage.S3FileSystem, "identity", None)  # would fail
    found = storage.identities(paths)
    assert found[paths[0]] is None
    assert found[paths[1]] == FileIdentity(len(paths[1]), hashlib.md5(paths[1].encode()).hexdigest())


def test_a_body_that_was_cut_off_is_an_io_error(s3, monkeypatch):
    """Worth another try, as other faults of the network."""

    def cut_off(*_, **__):
        raise aiohttp.ClientPayloadError("Response payload is not completed")

    monkeypatch.setattr(s3fs.S3FileSystem, "cat_file", cut_off)
    with pytest.raises(OSError, match=r"a\.bin: Response payload is not completed") as raised:
        storage.read_bytes(f"{s3}/a.bin")
    assert raised.value.errno == errno.EIO


class SlowDown(BaseHTTPRequestHandler):
    """Answers 503 SlowDown while `n_refused` is not 0, then with the object."""

    n_refused, n_asked = 0, 0

    def do_GET(self) -> None:
        kind = type(self)
        kind.n_asked += 1
        is_refused = kind.n_refused > 0
        kind.n_refused -= 1
        body = b"<Error><Code>SlowDown</Code><Message>Reduce it</Message></Error>" if is_refused else b"abc"
        self.send_response(503 if is_refused else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def slow_down(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[SlowDown]]:
    """A server that is asked instead of S3, without waits between attempts."""
    kind = type("Handler", (SlowDown,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    yield kind
    server.shutdown()
    server.server_close()


def test_a_store_that_asks_to_slow_down_is_asked_again(slow_down: type[SlowDown]) -> None:
    slow_down.n_refused = 4
    assert storage.read_bytes("s3://bucket/key") == b"abc"
    assert slow_down.n_asked == 5


def test_a_store_that_goes_on_refusing_is_busy_and_attempts_do_not_multiply(
    slow_down: type[SlowDown],
) -> None:
    slow_down.n_refused = 1000
    with pytest.raises(OSError, match="Reduce it") as raised:
        storage.read_bytes("s3://bucket/key")
    assert raised.value.errno == errno.EBUSY
    # botocore's five, twice: s3fs and botocore with their defaults make 25 of them.
    assert slow_down.n_asked == 10


def test_a_store_that_is_not_there_refuses_the_connection(
    slow_down: type[SlowDown], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(ConnectionRefusedError, match="Could not connect"):
        storage.read_bytes("s3://bucket/key")

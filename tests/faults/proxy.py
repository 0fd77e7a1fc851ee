"""An HTTP proxy before an S3 server that refuses, delays, resets or cuts off what it is told to."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"

Trouble = Literal["slow down", "internal error", "reset", "cut off", "slow"]


@dataclass(frozen=True)
class Fault:
    """What the proxy does with the requests that `hits` (method, path) is true of."""

    trouble: Trouble
    hits: Callable[[str, str], bool] = lambda method, path: True
    delay_s: float = 0.0


class Proxy(ThreadingHTTPServer):
    """Passes requests on to `endpoint`, but for those that `fault` hits."""

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.target = urlsplit(endpoint).netloc
        self.fault: Fault | None = None
        self.n_hit = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients that are killed reset their connections."""


class Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault
        if fault is not None and fault.hits(self.command, self.path):
            self.server.n_hit += 1
        else:
            fault = None
        if fault is not None and fault.trouble == "reset":
            # A linger of 0 s makes the kernel send RST instead of an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        if fault is not None and fault.trouble == "slow down":
            self.answer(503, {}, SLOW_DOWN)
            return
        if fault is not None and fault.trouble == "internal error":
            self.answer(500, {}, INTERNAL)
            return
        if fault is not None and fault.trouble == "slow":
            time.sleep(fault.delay_s)
        connection = http.client.HTTPConnection(self.server.target)
        connection.request(self.command, self.path, body, dict(self.headers))
        found = connection.getresponse()
        is_cut = fault is not None and fault.trouble == "cut off"
        self.answer(found.status, dict(found.getheaders()), found.read(), is_cut=is_cut)
        connection.close()

    def answer(self, status: int, headers: dict[str, str], body: bytes, *, is_cut: bool = False) -> None:
        self.send_response(status)
        own = ("content-length", "transfer-encoding", "connection", "date", "server")
        for name, value in headers.items():
            if name.lower() not in own:
                self.send_header(name, value)
        length = {k.lower(): v for k, v in headers.items()}.get("content-length", "0")
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if is_cut else body)
        if is_cut:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
    setattr(Passing, f"do_{method}", Passing.pass_on)


@contextlib.contextmanager
def proxy_before(endpoint: str) -> Iterator[Proxy]:
    """A running proxy before the server at `endpoint`."""
    server = Proxy(endpoint)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""The server of the page: on the loopback interface only, below an address that nobody can guess."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.util import bind_sockets
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop, PeriodicCallback

from galbatch import api
from galbatch.core.process import deferred_signals
from galbatch.errors import UsageError
from galbatch.objects import check_table_suffix
from galbatch.reporting.browsing.page import BrowsePage
from galbatch.reporting.browsing.rows import BrowsedRows

__all__ = ["PageServer", "serve_catalog"]

HOST = "127.0.0.1"

LOOK_S = 0.1
"""A signal that asks the server to end is looked for this often, in seconds."""


class PageServer:
    """A server of one catalog's page. It answers while `run` runs.

    Attributes
    ----------
    url : str
        The page's address.
    """

    def __init__(self, server: Any, url: str) -> None:
        self._server, self.url = server, url

    def run(self, opened: Callable[[str], object] = lambda url: None) -> None:
        """Serve until SIGINT or SIGTERM; `opened` is called with the address once the page can be loaded.

        An answer that is being made is ended first. A second signal does not wait for it.
        """
        loop = self._server.io_loop
        self._server.start()
        loop.add_callback(opened, self.url)
        with deferred_signals() as asking:
            watch = PeriodicCallback(lambda: loop.stop() if asking() else None, 1000 * LOOK_S)
            loop.add_callback(watch.start)
            try:
                loop.start()
            finally:
                watch.stop()
                self._server.stop()


def serve_catalog(
    catalog: api.Catalog, *, store: str | None = None, selection: str = "selection.csv", port: int = 0
) -> PageServer:
    """Read a catalog's positions and flags, and return a server of its page.

    Parameters
    ----------
    catalog : galbatch.api.Catalog
        Its rows, narrowed or not.
    store : str or None
        Cutout store; None: that of the run.
    selection : str
        File for selections, by its suffix Parquet, FITS, VOTable, ECSV or CSV; later ones get a number.
    port : int
        0: any free port.

    Raises
    ------
    UsageError
        The port is in use, or the catalog has no rows.
    OutputError
        No table can be written to such a file.
    """
    check_table_suffix(selection)
    rows = BrowsedRows.read(catalog)
    if not len(rows):
        raise UsageError(f"{catalog.path}: no rows to browse")
    place = store or api.store_of(catalog.path)
    application = Application(
        FunctionHandler(lambda document: BrowsePage(rows, place, selection).add_to(document))
    )
    try:
        sockets, port = bind_sockets(HOST, port)
    except OSError as error:
        raise UsageError(f"--port {port}: {error.strerror}; choose another, or 0 for any free one") from None
    # Every user of this machine can connect to its loopback interface, and so can pages of other sites that a browser shows:
    # the first do not know the path, the second are refused by the origin of their connection.
    origins = [f"{name}:{port}" for name in (HOST, "localhost")]
    pages = BokehTornado(
        {"/": application}, prefix=secrets.token_urlsafe(16), extra_websocket_origins=origins
    )
    http = HTTPServer(pages)
    http.add_sockets(sockets)
    return PageServer(BaseServer(IOLoop.current(), pages, http), f"http://{HOST}:{port}{pages.prefix}/")

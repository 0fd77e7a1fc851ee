"""The page's server: how it ends."""

import signal
from types import SimpleNamespace

import pytest
from tornado.ioloop import IOLoop

from galbatch.reporting import PageServer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_an_answer_ends_the_server(number):
    """Tornado logs exceptions of what it calls, such as a library's own in place of KeyboardInterrupt, and goes on."""
    told = []

    def answer(url):
        told.append(url)
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise ValueError("interrupted") from None
        told.append("answered")

    before = signal.getsignal(number)
    loop = IOLoop(make_current=False)
    server = SimpleNamespace(start=lambda: None, stop=lambda: told.append("stopped"), io_loop=loop)
    PageServer(server, "http://127.0.0.1:1/").run(answer)
    loop.close()
    assert told == ["http://127.0.0.1:1/", "answered", "stopped"]
    assert signal.getsignal(number) == before

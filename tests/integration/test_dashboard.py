"""The page on the Dask dashboard and its numbers: undocumented API of distributed, so guarded here."""

import time
import urllib.request

from galbatch import dashboard
from galbatch.dashboard import count, page, totals, totals_of


def read(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.status, answer.read().decode()


def test_the_page_and_the_counters(client):
    url = dashboard.watch(client)
    assert url.endswith("/galaxies")
    assert url.startswith("http://127.0.0.1:")
    status, page = read(url)
    assert status == 200
    assert "galbatch: galaxies" in page

    # The workers ran other tests' runs before, whose counts come with their next heartbeat.
    client.run(count, cutouts=5, galaxies=3, passes=192)
    counted = client.run(totals).values()
    expected = {name: sum(of_worker[name] for of_worker in counted) for name in totals()}
    assert all(expected[name] >= n for name, n in {"cutouts": 10, "galaxies": 6, "passes": 384}.items())
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        now = client.run_on_scheduler(lambda dask_scheduler: totals_of(dask_scheduler))
        if now == expected:
            break
        time.sleep(0.2)
    assert now == expected


def test_prometheus_exports_the_counters():
    from prometheus_client import generate_latest

    count(galaxies=2)
    text = generate_latest().decode()
    assert "galbatch_galaxies_total" in text


def test_rates_are_per_second_and_never_negative():
    rates = page._Rates()
    assert rates(10.0, {"galaxies": 0}) == {"galaxies": 0.0}
    assert rates(12.0, {"galaxies": 30}) == {"galaxies": 15.0}
    assert rates(13.0, {"galaxies": 0}) == {"galaxies": 0.0}

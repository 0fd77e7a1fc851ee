"""The page on the Dask dashboard and its numbers: undocumented API of distributed, so guarded here."""

import re
import time
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from galbatch import dashboard
from galbatch.dashboard import count, totals
from galbatch.dashboard.broadcast import RunNews, StageNews, send

WAIT_S = 600
"""A ceiling for slow machines; all that is waited for comes within seconds."""


def read(url):
    with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
        return answer.status, answer.read().decode()


def exported(url):
    """The metrics of galbatch at /metrics, by name and labels."""
    _, text = read(url.replace("/galaxies", "/metrics"))
    return {name: float(value) for name, value in re.findall(r"^(galbatch_\S+) (\S+)$", text, re.MULTILINE)}


def until(condition):
    """Wait until the condition holds; return its value."""
    end = time.monotonic() + WAIT_S
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return value


def stamp(time):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def shown(html, name):
    return re.search(rf'data-name="{name}">([^<]*)', html)[1].strip()


def test_the_page_is_there_and_in_the_menu_of_dask(client):
    url = dashboard.watch(client)
    assert url.startswith("http://127.0.0.1:")
    status, page = read(url)
    assert status == 200
    assert 'href="status"' in page
    _, of_dask = read(url.replace("/galaxies", "/status"))
    assert 'href="galaxies"' in of_dask
    # Without a proxy that removes it, the prefix of --dashboard-prefix is a part of the path.
    assert read(url.replace("/galaxies", "/user/anna/galaxies"))[0] == 200


def test_the_schedulers_port_exports_the_sums_of_all_workers(client):
    url = dashboard.watch(client)
    # The workers ran other tests' runs before, whose counts are in their totals.
    client.run(count, cutouts=5, galaxies=3, passes=192)
    counted = client.run(totals).values()
    expected = {name: sum(of_worker[name] for of_worker in counted) for name in totals()}
    assert all(expected[name] >= n for name, n in {"cutouts": 10, "galaxies": 6, "passes": 384}.items())

    def are_there():
        # Workers of other tests that have ended since stay in the sums.
        now = exported(url)
        return all(now[f"galbatch_{name}_total"] >= n for name, n in expected.items())

    assert until(are_there)


def test_a_late_look_sees_the_run_and_the_page_is_of_the_last_one(client):
    url = dashboard.watch(client)
    stages = (StageNews("infer", 1234, 2000, 0),)
    # The page is of the run that began last, of all on this scheduler: other tests' runs are there, too.
    began = datetime.now(UTC)
    news = RunNews("first", "wide field", "running", stamp(began), stages, n_failed=3, n_retries=2)
    send(client, news)
    client.run(count, galaxies=50)

    def with_all_galaxies():
        # What the test before counted may have come after this run began.
        text = read(f"{url}/now")[1]
        return text if int(shown(text, "galaxies").replace(",", "")) >= 100 else ""

    html = until(with_all_galaxies)
    assert "wide field" in html
    assert (shown(html, "infer-done"), shown(html, "failed")) == ("1,234", "3")
    assert float(shown(html, "galaxies-per-s")) > 0
    now = exported(url)
    assert now['galbatch_objects{stage="infer",state="done"}'] == 1234
    assert (now["galbatch_failed_partitions"], now["galbatch_retries_total"]) == (3, 2)
    # A run that began later has a course of its own, and the earlier one does not take the page back.
    send(client, replace(news, run="second", name="deep", started=stamp(began + timedelta(seconds=1))))
    send(client, news)
    html = read(f"{url}/now")[1]
    assert "deep" in html
    assert shown(html, "galaxies") == "0"

"""The state that the scheduler keeps: what runs tell, and what workers count."""

from types import SimpleNamespace

import pytest

from galbatch import dashboard
from galbatch.dashboard.broadcast import RunNews
from galbatch.dashboard.counts import METRIC


def worker(process, cutouts, *, under_way=0.0):
    nothing = {"galaxies": 0, "passes": 0}
    counts = {"cutouts": cutouts} | nothing
    metric = {
        "process": process,
        "before": {"cutouts": 0} | nothing,
        "under_way": {"cutouts": under_way} | nothing,
        **counts,
    }
    state = {METRIC: metric}
    return SimpleNamespace(name=process, address=process, metrics=state, memory_limit=0, last_seen=0.0)


class Scheduler:
    """A page on a scheduler whose workers and clock are made up."""

    def __init__(self):
        self.now_s, self.workers = 0.0, {}
        self.page = dashboard.GalaxiesPage(lambda: self.now_s)
        self.page._scheduler = self

    def look(self, now_s, *workers):
        self.now_s, self.workers = now_s, {one.name: one for one in workers}
        self.page.look()

    def shown(self, name):
        text = self.page.rendered().decode()
        return text.split(f'data-name="{name}">')[1].split("<")[0].strip()

    def exported(self):
        return {one.name: one.samples[0].value for one in self.page.metrics() if one.samples}


NEWS = RunNews("first", "wide", "running", "2026-11-29T01:00:00Z")


def test_tasks_that_are_under_way_are_in_the_rates_and_not_in_prometheus():
    scheduler = Scheduler()
    scheduler.look(0.0, worker("a", 0))
    scheduler.page.take(NEWS)
    scheduler.look(10.0, worker("a", 0, under_way=40.0))
    assert (scheduler.shown("cutouts-per-s"), scheduler.shown("cutouts")) == ("4.0", "40")
    assert scheduler.exported()["galbatch_cutouts"] == 0
    scheduler.look(20.0, worker("a", 80))
    assert (scheduler.shown("cutouts-per-s"), scheduler.shown("cutouts")) == ("4.0", "80")
    assert scheduler.exported()["galbatch_cutouts"] == 80


def test_the_tasks_of_a_worker_that_is_gone_are_not_under_way():
    scheduler = Scheduler()
    scheduler.look(0.0, worker("a", 0), worker("b", 0))
    scheduler.page.take(NEWS)
    scheduler.look(10.0, worker("a", 30, under_way=10.0), worker("b", 0, under_way=20.0))
    assert scheduler.shown("cutouts") == "60"
    scheduler.look(11.0, worker("b", 0, under_way=22.0))
    assert scheduler.shown("cutouts") == "52"


def test_what_a_run_has_done_before_its_first_news_is_of_no_run():
    scheduler = Scheduler()
    scheduler.look(5.0, worker("a", 50))
    scheduler.page.take(NEWS)
    scheduler.look(15.0, worker("a", 80))
    assert scheduler.shown("cutouts") == "30"


@pytest.mark.parametrize("state", ["finished", "ended: stopped by SIGTERM"])
def test_the_last_counts_come_after_the_end(state):
    scheduler = Scheduler()
    scheduler.look(0.0, worker("a", 0))
    scheduler.page.take(NEWS)
    scheduler.look(10.0, worker("a", 0, under_way=40.0))
    scheduler.page.take(RunNews("first", "wide", state, NEWS.started))
    scheduler.look(12.0, worker("a", 50))
    assert (scheduler.shown("cutouts-per-s"), scheduler.shown("cutouts")) == ("5.0", "50")


def test_the_page_is_of_the_run_that_was_heard_of_last_whatever_its_clock_says():
    scheduler = Scheduler()
    scheduler.look(0.0, worker("a", 0))
    scheduler.page.take(NEWS)
    scheduler.look(10.0, worker("a", 30))
    # The clock of its machine is a year behind.
    scheduler.page.take(RunNews("second", "deep", "running", "2025-11-29T01:00:00Z"))
    scheduler.look(20.0, worker("a", 50))
    assert scheduler.shown("cutouts") == "20"
    # The first one is still there, and does not take the page back.
    scheduler.page.take(NEWS)
    scheduler.look(21.0, worker("a", 51))
    assert scheduler.shown("cutouts") == "21"
    assert "deep" in scheduler.page.rendered().decode()


def test_a_watched_cluster_gets_the_page_the_counts_and_the_use_of_gpus():
    plugins = []
    client = SimpleNamespace(register_plugin=plugins.append, dashboard_link="http://10.0.0.1:8787/status")
    assert dashboard.watch(client) == "http://10.0.0.1:8787/galaxies"
    assert [plugin.name for plugin in plugins] == ["galbatch-page", "galbatch-counts", "galbatch-gpu"]

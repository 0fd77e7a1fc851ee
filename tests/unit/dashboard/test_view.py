"""The dashboard's page as HTML, without a browser: what stands there, and what is left out."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from galbatch import dashboard
from galbatch.dashboard import view
from galbatch.dashboard.broadcast import Failure, RunNews, StageNews
from galbatch.dashboard.history import Course

NEWS = RunNews(
    run="1",
    name="hsc_wide <2>",
    state="running",
    started="2026-11-29T01:02:03Z",
    stages=(StageNews("ingest", 1500, 2000, 500), StageNews("infer", 1234, 2000, 0)),
    left_s=3700.0,
    n_failed=51,
    n_retries=7,
    failures=(Failure("Norder=5/Npix=9", "ingest: tile 9813/4,4 <gone>", "2026-11-29T01:03:00Z"),),
    n_inferred=1000,
    flags=(("flags MOSAICKED", 300), ("gampen_flags OUT_OF_DOMAIN", 20), ("flags LOW_SNR", 5)),
    samples=(dashboard.Sample("42", b"\x89PNG", (("gampen bt", "0.42 ± 0.05"),), ("LOW_SNR",)),),
    notes=(("2026-11-29T01:04:00Z", "the run pauses"),),
)


def course():
    made = Course(0.0, (0, 0, 0))
    for second in range(1, 61):
        made.add(float(second), (20 * second, 10 * second, 640 * second))
    return made


def worker(name, **changes):
    values = {
        "name": name,
        "address": "tcp://10.0.0.7:1",
        "rates": (20.0, 10.0, 640.0),
        "cpu_percent": 99.0,
        "memory_bytes": 2.0**31,
        "memory_limit_bytes": 2.0**32,
        "silent_s": 0.2,
    }
    return view.WorkerView(**(values | changes))


def value(html, name):
    """The text of what is named in the page."""
    return re.search(rf'data-name="{name}">([^<]*)', html)[1].strip()


def test_the_numbers_stand_on_the_page():
    html = view.render_state(NEWS, course(), [worker("0"), worker("1")])
    expected = {
        "step": "cutting and inferring",
        "ingest-done": "1,500",
        "ingest-total": "2,000",
        "infer-done": "1,234",
        # 600 of 2,000 galaxies in a minute.
        "left": "2 min",
        "galaxies-per-s": "10.0",
        "cutouts-per-s": "20.0",
        "passes-per-s": "640",
        "galaxies": "600",
        "passes": "38,400",
        "failed": "51",
        "retries": "7",
        "workers": "2",
    }
    assert {name: value(html, name) for name in expected} == expected
    assert "75.0 %, 500 by earlier runs" in html
    assert "50 more failed earlier" in html
    assert "2.0 GiB of 4.0 GiB" in html
    assert "0.42 ± 0.05" in html
    assert "data:image/png;base64,iVBORw==" in html


def test_names_and_reasons_are_text_whatever_they_hold():
    html = view.render_state(NEWS, course(), [worker("<b>")])
    assert "hsc_wide &lt;2&gt;" in html
    assert "tile 9813/4,4 &lt;gone&gt;" in html
    assert "<b>" not in re.sub("<b>(Norder|42)", "", html)


def test_quality_flags_come_first_with_their_share_and_text():
    rows = view.flag_rows(dict(NEWS.flags), NEWS.n_inferred)
    assert [(row["name"], row["n"], row["share"]) for row in rows] == [
        ("OUT_OF_DOMAIN", 20, 0.02),
        ("LOW_SNR", 5, 0.005),
        ("MOSAICKED", 300, 0.3),
    ]
    assert rows[0]["text"] == "The input is unlike those the network was trained on."


def test_failures_are_shown_by_their_reason():
    failures = [Failure(f"Npix={n}", f"no tile {n // 5}", f"time {n}") for n in range(10)]
    groups = view.failure_groups(failures)
    assert [(one["reason"], len(one["partitions"]), one["time"]) for one in groups] == [
        ("no tile 0", 5, "time 0"),
        ("no tile 1", 5, "time 5"),
    ]
    html = view.render_state(
        RunNews("1", "x", "running", "", n_failed=12, failures=tuple(failures)), course(), []
    )
    assert "Npix=0, Npix=1, Npix=2 and 2 more" in html
    assert "2 more failed earlier" in html


def test_columns_of_the_gpu_are_there_only_with_a_gpu():
    html = view.render_state(NEWS, course(), [worker("0")])
    assert "GPU memory" not in html
    assert "no worker reports a GPU" in html
    on_gpu = worker("1", gpu_percent=87.0, gpu_bytes=2.0**33, gpu_limit_bytes=2.0**34)
    html = view.render_state(NEWS, course(), [worker("0"), on_gpu])
    assert "8.0 GiB of 16.0 GiB" in html
    assert "87 %" in html


def test_a_worker_is_read_from_the_schedulers_state():
    state = SimpleNamespace(
        name=3,
        address="tcp://10.0.0.7:1",
        metrics={"cpu": 12.5, "memory": 100, "gpu": {"utilization": 40, "memory-used": 2, "memory-total": 8}},
        memory_limit=400,
        last_seen=0.0,
    )
    row = view.worker_view(state, (1.0, 2.0, 3.0))
    assert (row.name, row.cpu_percent, row.memory_bytes, row.memory_limit_bytes) == ("3", 12.5, 100, 400)
    assert (row.gpu_percent, row.gpu_bytes, row.gpu_limit_bytes) == (40, 2, 8)
    assert row.silent_s > 1e9
    assert "silent for" in view.render_state(None, None, [row])


def test_a_wall_of_workers_is_cut_and_says_so():
    html = view.render_state(NEWS, course(), [worker(str(number)) for number in range(250)])
    assert html.count('data-label="memory"') == 100
    assert value(html, "workers") == "250"
    assert "and 150 more workers" in html


def test_before_the_first_run_the_page_says_so():
    html = view.render_state(None, None, [])
    assert "No run yet" in html
    assert "0 workers connected" in html


def test_the_time_left_counts_what_is_under_way():
    stages = (StageNews("ingest", 900, 1000, 100), StageNews("infer", 100, 1000, 100))
    news = replace(NEWS, state="running", stages=stages, left_s=1e6)
    going = Course(0.0, (0.0, 0.0, 0.0))
    assert view.left_s(news, going) == 1e6
    for second in range(1, 1001):
        # 300 galaxies are inferred in the last ten minutes, though no partition is done.
        going.add(float(second), (900.0, max(0, second - 400) / 2, 0.0))
    assert view.left_s(news, going) == pytest.approx((1000 - 100 - 300) / 0.5)
    # A run that only cuts.
    assert view.left_s(replace(news, stages=stages[:1]), going) == 1e6


@pytest.mark.parametrize(
    ("state", "done", "step"),
    [("running", (10, 3), "inferring"), ("running", (10, 10), "finishing"), ("finished", (10, 10), "")],
)
def test_the_step_follows_from_what_is_left(state, done, step):
    stages = tuple(StageNews(name, n, 10, 0) for name, n in zip(("ingest", "infer"), done, strict=True))
    assert view.step_text(RunNews("1", "x", state, "", stages)) == step


def test_a_run_that_ended_with_failures_is_not_complete():
    ended = RunNews("1", "x", "finished", "", (StageNews("infer", 5, 10, 0),), n_failed=1)
    html = view.render_state(ended, course(), [])
    assert value(html, "state") == "finished, not complete"
    assert value(html, "left") == "–"


def test_a_curve_goes_from_the_beginning_to_now_below_its_ceiling():
    one = view.curve("passes", np.arange(1.0, 1001.0), np.linspace(0, 37, 1000))
    points = np.array([[float(x) for x in pair.split(",")] for pair in one["points"].split()])
    assert one["top"] == 50.0
    assert len(points) <= 240
    assert points[0].tolist() == pytest.approx([0.1, 100.0])
    assert points[-1].tolist() == pytest.approx([100.0, 100 * (1 - 37 / 50)])


@pytest.mark.parametrize(
    ("number", "ceiling"), [(0, 1), (0.003, 0.005), (1, 1), (1.01, 2), (37, 50), (50.1, 100), (12345, 20000)]
)
def test_axes_end_at_round_numbers(number, ceiling):
    assert view.nice_ceiling(number) == pytest.approx(ceiling)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (0.0421, "0.042"), (8.12, "8.1"), (12345.6, "12,346"), (2_345_678, "2.35 M")],
)
def test_rates_are_short(number, text):
    assert view.rate_text(number) == text

"""What a run shows and leaves for others while it lasts: lines, the log, and the state that `galbatch status` reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from galbatch import dashboard, storage
from galbatch.dashboard import events


class Kept(dashboard.Silent):
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)

    def record(self, event: dashboard.Event) -> None:
        self.lines.append(f"{event.kind}: {event.text}")


def failure(number: int, worker: str | None = "tcp://10.0.0.7:4000") -> dashboard.Event:
    name = f"Norder=5/Npix={number}"
    return dashboard.Event("failed", f"failed: {name}: infer: no GPU", name, worker, {"step": "infer"})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (3599, "60 min"), (3700, "1 h 1 min"), (90000, "1 d 1 h")],
)
def test_durations_are_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert events.duration(seconds) == text


def test_progress_has_rates_of_the_last_ten_minutes_and_the_time_of_the_slower_stage() -> None:
    tally = dashboard.Tally()
    tally.start("ingest", 1000, 100, now_s=0.0)
    tally.start("infer", 1000, 0, now_s=0.0)
    tally.advance("ingest", 600)
    tally.advance("infer", 60)
    tally.n_failed = 1
    event = tally.progress(60.0)
    assert event.text == (
        "ingest 700 of 1000 objects, 10.0/s; infer 60 of 1000 objects, 1.0/s; 1 partition failed; 16 min left"
    )
    assert event.numbers == {
        "ingest_done": 700,
        "ingest_total": 1000,
        "ingest_per_s": 10.0,
        "infer_done": 60,
        "infer_total": 1000,
        "infer_per_s": 1.0,
        "failed_partitions": 1,
        "left_s": 940,
    }
    for minute in range(1, 21):
        tally.sample(60.0 * minute)
    # The ten minutes before had no progress, and then 300 objects came in one minute.
    tally.advance("infer", 300)
    assert tally.progress(60.0 * 21).numbers["infer_per_s"] == pytest.approx(300 / 660, abs=1e-3)


def test_without_a_rate_the_time_left_is_unknown() -> None:
    tally = dashboard.Tally()
    tally.start("infer", 10, 2, now_s=5.0)
    assert tally.progress(5.0).text == "infer 2 of 10 objects, 0.0/s; 0 partitions failed; time left unknown"
    tally.advance("infer", 8)
    assert tally.progress(7.0).text == "infer 10 of 10 objects, 4.0/s; 0 partitions failed; 0 s left"


@pytest.fixture(params=["disk", "s3"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "catalog")
    bucket: str = request.getfixturevalue("s3")
    return f"{bucket}/catalog"


def log_of(catalog: str) -> list[dict[str, object]]:
    """The lines of the log; on S3 of all its parts."""
    path = dashboard.log_path(catalog)
    if catalog.startswith("s3://"):
        data = b"".join(storage.read_bytes(f"{path}/{name}") for name in storage.list_files(path, suffix=""))
    else:
        data = storage.read_bytes(path)
    return [json.loads(line) for line in data.splitlines()]


def test_a_run_is_logged_with_partition_and_worker_and_shown_once_a_minute(catalog: str) -> None:
    display, times_s = Kept(), [0.0]
    reporter = dashboard.Reporter(display, catalog, clock=lambda: times_s[-1])
    reporter.start("infer", 100, 10)
    reporter.advance("infer", 30)
    done = dashboard.Event(
        "infer", "infer: Norder=5/Npix=1: 30 objects", "Norder=5/Npix=1", "tcp://a:1", {"passes": 7}
    )
    reporter.record(done)
    reporter.record(failure(2))
    for time_s in (1.0, 30.0, 59.0, 60.0, 61.0, 119.0, 120.0):
        times_s.append(time_s)
        reporter.tick()
    progress = "infer 40 of 100 objects, 0.5/s; 1 partition failed; 2 min left"
    assert display.lines[:2] == [f"infer: {done.text}", f"failed: {failure(2).text}"]
    assert display.lines[2] == f"progress: {progress}"
    assert [line.partition(":")[0] for line in display.lines] == ["infer", "failed", "progress", "progress"]
    state = storage.read_json(dashboard.progress_path(catalog))
    assert state is not None
    assert (state["state"], state["infer_done"], state["failed_partitions"]) == ("running", 40, 1)
    assert state["infer_per_s"] == pytest.approx(30 / 119, abs=0.005)
    assert "infer 40 of 100 objects, 0.3/s; 1 partition failed; 4 min left" in dashboard.last_news(catalog)
    logged = log_of(catalog)
    assert [line["event"] for line in logged] == ["start", "infer", "failed", "progress", "progress"]
    assert all({"time", "event", "text", "partition", "worker"} <= line.keys() for line in logged)
    assert (logged[1]["partition"], logged[1]["worker"], logged[1]["passes"]) == (
        "Norder=5/Npix=1",
        "tcp://a:1",
        7,
    )
    assert (logged[2]["partition"], logged[2]["worker"]) == ("Norder=5/Npix=2", "tcp://10.0.0.7:4000")


def test_the_end_is_said(catalog: str) -> None:
    with dashboard.Reporter(Kept(), catalog) as reporter:
        reporter.start("infer", 3, 3)
    assert (
        log_of(catalog)[-1]["text"] == "finished; infer 3 of 3 objects, 0.0/s; 0 partitions failed; 0 s left"
    )

    def fail(reporter: dashboard.Reporter) -> None:
        reporter.start("infer", 3, 3)
        raise OSError("disk is gone")

    with pytest.raises(OSError, match="disk"), dashboard.Reporter(Kept(), catalog) as reporter:
        fail(reporter)
    assert str(log_of(catalog)[-1]["text"]).startswith("ended: disk is gone; ")
    assert " ended: disk is gone (process " in dashboard.last_news(catalog)


def test_of_a_storm_of_failures_the_first_are_shown_and_all_are_logged(tmp_path: Path) -> None:
    display, now_s = Kept(), 0.0
    reporter = dashboard.Reporter(display, str(tmp_path / "catalog"), clock=lambda: now_s)
    reporter.start("infer", 1000, 0)
    for number in range(500):
        reporter.record(failure(number))
    assert len(display.lines) == 21
    assert display.lines[-1] == f"more partitions fail; all are in {tmp_path}/catalog_log.jsonl"
    now_s = 60.0
    reporter.tick()
    assert "500 partitions failed" in display.lines[-1]
    reporter.record(failure(500))
    assert display.lines[-1].startswith("failed: ")
    reporter.tick()
    assert sum(line["event"] == "failed" for line in log_of(str(tmp_path / "catalog"))) == 501


def test_a_disk_that_takes_nothing_ends_no_run_and_the_log_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    now_s, catalog = 0.0, str(tmp_path / "catalog")
    with monkeypatch.context() as patched:
        patched.setattr("galbatch.storage.append", full)
        patched.setattr("galbatch.storage.write_files", full)
        reporter = dashboard.Reporter(Kept(), catalog, clock=lambda: now_s)
        reporter.start("infer", 1, 0)
        reporter.note("one")
        now_s = 10.0
        reporter.tick()
    now_s = 20.0
    reporter.note("two")
    reporter.tick()
    assert [line["text"] for line in log_of(catalog)][1:] == ["one", "two"]


def test_a_run_that_is_refused_before_its_first_stage_leaves_no_files(tmp_path: Path) -> None:
    display, catalog = Kept(), str(tmp_path / "catalog")

    def fail(reporter: dashboard.Reporter) -> None:
        reporter.note("note: shown")
        reporter.tick()
        raise ValueError("inputs")

    with pytest.raises(ValueError, match="inputs"), dashboard.Reporter(display, catalog) as reporter:
        fail(reporter)
    assert (display.lines, list(tmp_path.iterdir())) == (["note: shown"], [])
    with dashboard.Reporter(display, catalog) as reporter:
        reporter.note("note: kept")
        reporter.start("infer", 1, 1)
    assert [line["event"] for line in log_of(catalog)] == ["note", "start", "end"]


def test_lines_for_people_and_for_programs() -> None:
    lines = list[str]()
    text = dashboard.TextLines(lines.append)
    text.start("ingest", 10, 4)
    text.advance("ingest", 1)
    text.record(dashboard.Event("ingest", "ingest: done", "Norder=5/Npix=1"))
    text.record(failure(2))
    text.note("dashboard: http://127.0.0.1:8787/galaxies")
    assert [line.partition("Z ")[2] or line for line in lines] == [
        "ingest: 4 of 10 objects were done before",
        "failed: Norder=5/Npix=2: infer: no GPU",
        "dashboard: http://127.0.0.1:8787/galaxies",
    ]
    lines.clear()
    as_json = dashboard.JsonLines(lines.append)
    as_json.start("ingest", 10, 4)
    as_json.note("a\nb")
    as_json.record(failure(2, worker=None))
    found = [json.loads(line) for line in lines]
    assert [(one["event"], one["partition"], one["worker"]) for one in found] == [
        ("start", None, None),
        ("note", None, None),
        ("failed", "Norder=5/Npix=2", None),
    ]
    assert found[0]["total"] == 10


def test_following_shows_news_silence_and_the_end(catalog: str) -> None:
    """A run that beats every five seconds for a minute, is silent for a minute, then goes on and ends."""
    now_s, count = 0.0, 0

    def write(state: str) -> None:
        nonlocal count
        count += 1
        value = {
            "count": count,
            "state": state,
            "text": f"at {now_s:g} s",
            "time": "T",
            "pid": 7,
            "host": "h",
            "started": "S",
        }
        storage.publish_json(dashboard.progress_path(catalog), value)

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds
        if now_s < 60 or 120 <= now_s < 200:
            write("running")
        if now_s == 200:
            write("finished")

    clock = storage.Clock(lambda: now_s, sleep)
    assert list(dashboard.follow(catalog, every_s=30, clock=clock)) == [
        f"{catalog}: no run has written here yet"
    ]
    assert dashboard.last_news(catalog) == ""
    write("running")
    lines = list(dashboard.follow(catalog, every_s=30, clock=clock))
    assert [line.removeprefix("T running (process 7 on h, since S): ") for line in lines] == [
        "at 0 s",
        "at 30 s",
        "no news for 30 s: the run may have died, or its storage hangs",
        "at 120 s",
        "at 150 s",
        "at 180 s",
        "T finished (process 7 on h, since S): at 200 s",
    ]
    assert now_s == 200

"""A run as others see it while it lasts: failures at once, JSON lines, the log, `galbatch status --watch`."""

import json
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from galbatch import config, dashboard, execution


def start(*arguments):
    command = [sys.executable, "-m", "galbatch", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def run(write_run, survey, tmp_path_factory):
    """A run of which one partition fails: its folder, the partition, and what run and status printed."""
    folder = tmp_path_factory.mktemp("seen")
    pq.write_table(pq.read_table(survey / "objects.parquet").slice(0, 24), folder / "objects.parquet")
    run_toml = write_run(folder, max_objects=3, passes=4, objects=folder / "objects.parquet")
    parsed = config.read_config(run_toml)
    victim = execution.prepare(parsed).partitions[0].partition
    # A folder stands where the leaf should be.
    (folder / "catalog" / "dataset" / f"{victim.path}.parquet").mkdir(parents=True)
    process = start("run", run_toml, "--log-format", "json")
    failed, state = folder / "catalog" / "_failed.json", folder / "catalog_progress.json"
    watching, early = None, None
    deadline = time.monotonic() + 400
    while process.poll() is None:
        assert time.monotonic() < deadline
        if watching is None and state.exists():
            watching = start("status", run_toml, "--watch")
        if early is None and failed.exists():
            early = json.loads(failed.read_text())
        time.sleep(0.02)
    printed, told = process.communicate()
    return {
        "toml": run_toml,
        "victim": victim.name,
        "code": process.returncode,
        "lines": [json.loads(line) for line in printed.splitlines()],
        "stderr": told,
        "early": early,
        "watched": watching.communicate(timeout=600)[0].splitlines(),
        "watch_code": watching.returncode,
    }


def test_a_failure_is_written_while_the_run_goes_on(run):
    assert run["code"] == 1, run["stderr"]
    assert list(run["early"]) == [run["victim"]]
    kinds = [line["event"] for line in run["lines"]]
    assert kinds.count("failed") == 1
    assert " of 24 objects in the catalog, " in run["lines"][-1]["text"]  # after the failure
    assert f"failed: {run['victim']}: infer: " in run["stderr"]


def test_each_line_of_json_names_partition_and_worker(run):
    steps = [line for line in run["lines"] if line["event"] in ("ingest", "infer", "failed")]
    plan = execution.prepare(config.read_config(run["toml"]))
    names = {part.partition.name for part in plan.partitions}
    assert {line["partition"] for line in steps if line["event"] == "ingest"} == names
    assert {line["partition"] for line in steps if line["event"] == "infer"} == names - {run["victim"]}
    assert all(line["worker"].startswith("tcp://127.0.0.1:") for line in steps)
    assert {len(line["time"]) for line in run["lines"]} == {20}
    assert sum(line["objects"] for line in steps if line["event"] == "ingest") == 24


def test_the_log_lies_next_to_the_catalog(run):
    path = dashboard.log_path(config.read_config(run["toml"]).catalog.path)
    with open(path, encoding="utf-8") as file:
        logged = [json.loads(line) for line in file]
    assert [line["text"] for line in logged if line["event"] == "failed"] == [
        line["text"] for line in run["lines"] if line["event"] == "failed"
    ]
    assert (logged[-1]["event"], logged[-1]["failed_partitions"]) == ("end", 1)


def test_status_follows_the_run_from_another_shell_until_it_ends(run):
    assert run["watch_code"] == 0
    assert " running (process " in run["watched"][0]
    assert " finished (process " in run["watched"][-1]
    assert (
        run["watched"][-1].endswith("1 partition failed; time left unknown") or "left" in run["watched"][-1]
    )

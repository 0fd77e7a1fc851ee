"""Locks: an output is held by one run at a time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from galbatch import storage
from galbatch.errors import LockedError


def run_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


HOLD = """
    import sys
    from galbatch import storage
    with storage.Lock(sys.argv[1]):
        print("held", flush=True)
        sys.stdin.read()
"""


def foreign_lock(output: Path, **changes: object) -> Path:
    """A lock as a run on another machine would have left it."""
    path = output / "_lock.json"
    output.mkdir(exist_ok=True)
    held = {"owner": "other", "host": "elsewhere", "pid": 1, "started": 0.0, "heartbeat": time.time()}
    path.write_text(json.dumps(held | changes))
    return path


def test_the_lock_says_who_holds_it_and_goes(tmp_path: Path) -> None:
    with storage.Lock(str(tmp_path / "catalog" / "_lock.json")) as lock:
        held = json.loads((tmp_path / "catalog/_lock.json").read_text())
        assert (held["host"], held["pid"]) == (socket.gethostname(), os.getpid())
        assert lock.is_ours()
    assert os.listdir(tmp_path / "catalog") == []


def test_the_lock_goes_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), storage.Lock(str(tmp_path / "catalog" / "_lock.json")):
        _ = 1 / 0
    assert os.listdir(tmp_path / "catalog") == []


def test_a_second_process_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    output = str(tmp_path / "catalog" / "_lock.json")
    first = run_python(HOLD, output)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with (
        pytest.raises(LockedError, match=rf"held by the run of process {first.pid} on .*; wait"),
        storage.Lock(output),
    ):
        pass
    first.kill()
    first.wait()
    first.stdout.close()
    assert first.stdin is not None
    first.stdin.close()
    assert os.listdir(tmp_path / "catalog") == ["_lock.json"]
    with storage.Lock(output) as lock:
        assert lock.is_ours()


def test_a_live_lock_of_another_machine_is_kept_and_a_silent_one_taken(tmp_path: Path) -> None:
    path = foreign_lock(tmp_path / "catalog", heartbeat=time.time() - 30)
    with (
        pytest.raises(LockedError, match="process 1 on elsewhere, last heard of 30 s ago"),
        storage.Lock(str(tmp_path / "catalog" / "_lock.json"), stale_after_s=120),
    ):
        pass
    with storage.Lock(str(tmp_path / "catalog" / "_lock.json"), stale_after_s=20):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path / "catalog") == []


@pytest.mark.parametrize("name", ["catalog_lock.json", "catalog/_lock.json"])
def test_the_refusal_names_the_output(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    with storage.Lock(path), pytest.raises(LockedError) as caught, storage.Lock(path):
        pass
    assert str(caught.value).startswith(f"{tmp_path}/catalog: held by the run of process {os.getpid()} on ")


def test_an_empty_lock_is_one_being_written(tmp_path: Path) -> None:
    path = tmp_path / "catalog" / "_lock.json"
    path.parent.mkdir()
    path.write_bytes(b"")
    with pytest.raises(LockedError), storage.Lock(str(tmp_path / "catalog" / "_lock.json")):
        pass
    os.utime(path, (0, 0))
    with storage.Lock(str(tmp_path / "catalog" / "_lock.json")) as lock:
        assert lock.is_ours()


def test_the_heartbeat_is_renewed(tmp_path: Path) -> None:
    path = tmp_path / "catalog/_lock.json"
    with storage.Lock(str(tmp_path / "catalog" / "_lock.json"), heartbeat_s=0.02):
        first = json.loads(path.read_text())["heartbeat"]
        deadline = time.time() + 10
        while json.loads(path.read_text())["heartbeat"] == first:
            assert time.time() < deadline
            time.sleep(0.01)
    assert os.listdir(tmp_path / "catalog") == []


def test_a_lock_that_was_taken_over_is_left_alone(tmp_path: Path) -> None:
    with storage.Lock(str(tmp_path / "catalog" / "_lock.json"), heartbeat_s=0.02) as lock:
        path = foreign_lock(tmp_path / "catalog")
        time.sleep(0.1)
        assert not lock.is_ours()
    assert json.loads(path.read_text())["owner"] == "other"


def test_of_many_that_find_a_stale_lock_one_wins(tmp_path: Path) -> None:
    foreign_lock(tmp_path / "catalog", heartbeat=0.0)
    code = """
        import sys, time
        from galbatch import errors, storage
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            with storage.Lock(sys.argv[1]):
                time.sleep(1)
                print("won")
        except errors.LockedError:
            print("refused")
    """
    runs = [run_python(code, str(tmp_path / "catalog" / "_lock.json")) for _ in range(4)]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    said = sorted(run.communicate(timeout=60)[0].strip() for run in runs)
    assert said == ["refused", "refused", "refused", "won"]


def test_s3_lock_is_created_once_and_taken_over_when_silent(s3: str) -> None:
    with storage.Lock(f"{s3}/catalog/_lock.json", heartbeat_s=0.05) as lock:
        with (
            pytest.raises(LockedError, match=f"process {os.getpid()} on"),
            storage.Lock(f"{s3}/catalog/_lock.json"),
        ):
            pass
        time.sleep(0.3)
        assert lock.is_ours()
    assert not storage.exists(f"{s3}/catalog/_lock.json")
    stale = {"owner": "other", "host": "elsewhere", "pid": 1, "started": 0.0, "heartbeat": 0.0}
    storage.publish_json(f"{s3}/catalog/_lock.json", stale)
    path, system = f"{s3}/catalog/_lock.json", storage.file_system(s3)
    content, version = storage.read_bytes(path), storage.identity(path).version
    with storage.Lock(path):
        # Both had found it stale; the second finds that the object is no longer the one it saw.
        assert not system.take_over(path, b"late", content=content, version=version)

"""The file of failures while a run lasts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from galbatch import dashboard
from galbatch.errors import OutputError
from galbatch.execution import finishing
from tests.clocks import replace_clock


def failure(number: int) -> dashboard.Event:
    name = f"Norder=5/Npix={number}"
    return dashboard.Event(
        "failed", f"failed: {name}", name, None, {"step": "infer", "reason": f"number {number}"}
    )


def test_failures_are_written_at_once_and_then_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times_s, written = [100.0], list[int]()
    record = finishing.record_failures
    replace_clock(monkeypatch, "galbatch.execution.finishing", monotonic=lambda: times_s[-1])
    monkeypatch.setattr(
        finishing, "record_failures", lambda path, failed: (written.append(len(failed)), record(path, failed))
    )
    with finishing.KeptFailures(dashboard.Silent(), str(tmp_path)) as kept:
        kept.failed["Norder=5/Npix=0"] = "ingest: of an earlier run"
        for number in range(1, 100):
            kept.record(failure(number))
        assert written == [2]
        assert json.loads((tmp_path / "_failed.json").read_text()) == {
            "Norder=5/Npix=0": "ingest: of an earlier run",
            "Norder=5/Npix=1": "infer: number 1",
        }
        times_s.append(101.0)
        kept.write_due()
        kept.write_due()
        assert written == [2, 100]
        kept.record(failure(100))
    assert written == [2, 100, 101]
    kept.write_due()
    assert written == [2, 100, 101]


def test_a_full_disk_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutputError("no space left")

    kept = finishing.KeptFailures(dashboard.Silent(), str(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(finishing, "record_failures", full)
        kept.record(failure(1))
    with kept:
        pass
    assert finishing.read_failures(str(tmp_path)) == {"Norder=5/Npix=1": "infer: number 1"}
    kept.replace({})
    assert not (tmp_path / "_failed.json").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\x00\xff" * 8])
def test_a_garbled_file_of_failures_is_as_none(tmp_path: Path, content: bytes) -> None:
    """The partitions are left to do in any case, as the outputs say; the next run writes the file again."""
    finishing.record_failures(str(tmp_path), {"Norder=5/Npix=7": "infer: reason"})
    assert finishing.read_failures(str(tmp_path)) == {"Norder=5/Npix=7": "infer: reason"}
    (tmp_path / "_failed.json").write_bytes(content)
    assert finishing.read_failures(str(tmp_path)) == {}
    finishing.record_failures(str(tmp_path), {"Norder=5/Npix=8": "ingest: reason"})
    assert finishing.read_failures(str(tmp_path)) == {"Norder=5/Npix=8": "ingest: reason"}

"""galbatch demo at a small size, start to end, as a user runs it."""

import subprocess
import sys

import pytest

from galbatch import catalog


@pytest.mark.timeout(280)
def test_demo(tmp_path):
    command = [
        sys.executable,
        "-m",
        "galbatch.cli",
        "demo",
        "--objects",
        "64",
        "--out",
        str(tmp_path / "demo"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=270)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "http://127.0.0.1:" in done.stdout
    assert "/galaxies" in done.stdout
    assert "R²" in done.stdout
    assert "galbatch cone" in done.stdout
    folder = tmp_path / "demo"
    assert (folder / "report.html").stat().st_size > 50_000
    assert catalog.verify(str(folder / "catalog")) == []
    assert len(catalog.list_leaves(str(folder / "catalog"))) >= 8
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stdout + again.stderr

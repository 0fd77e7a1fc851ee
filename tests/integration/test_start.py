"""The start of a run: its process cuts before torch is imported, and networks are checked before their first galaxy."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from galbatch import catalog, config, ingest, models
from galbatch.models.metadata import write_metadata

WITHIN_S = 600

WITHOUT_TORCH = """
import sys
from galbatch.cli import main

if __name__ == "__main__":
    try:
        main()
    finally:
        print("torch" in sys.modules)
"""


@pytest.fixture
def launched(tmp_path):
    """Run the command line with these words in a process that prints at last whether it imported torch."""
    (script := tmp_path / "command.py").write_text(WITHOUT_TORCH)

    def launch(*words):
        return subprocess.run(
            [sys.executable, script, *words], cwd=tmp_path, capture_output=True, text=True, timeout=WITHIN_S
        )

    return launch


def test_cutouts_are_made_and_their_state_is_told_without_torch(launched, write_run, tmp_path):
    write_run(tmp_path, max_objects=60)
    done = launched("run", "run.toml", "--stage", "ingest")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "False"), done.stderr
    told = launched("status", "run.toml")
    assert (told.returncode, told.stdout.splitlines()[-1]) == (0, "False"), told.stderr
    assert len(ingest.list_done(config.read_config(tmp_path / "run.toml").cutouts.store)) > 0


@pytest.fixture
def misbehaving(tmp_path):
    """A bundle whose passes differ, though its metadata say that the network has no dropout."""
    path, bundle = tmp_path / "wrong.pt", models.load_bundle("demo:gampen")
    text = write_metadata(dataclasses.replace(bundle.metadata, dropout_rate=0.0))
    torch.jit.save(bundle.script, str(path), _extra_files={"galbatch.json": text})
    return path


def test_a_network_that_misbehaves_ends_the_run_before_its_first_galaxy(
    launched, write_run, tmp_path, misbehaving
):
    write_run(tmp_path, replace=[('bundle = "demo:gampen"', f'bundle = "{misbehaving}"')])
    done = launched("run", "run.toml")
    assert done.returncode == 2
    assert "run.toml: [[models]] gampen:" in done.stderr
    assert "different keys give different outputs, but its metadata says dropout_rate 0" in done.stderr
    assert catalog.list_leaves(str(tmp_path / "catalog")) == []


def test_what_is_no_bundle_is_refused_before_anything_starts(launched, write_run, tmp_path, misbehaving):
    content = misbehaving.read_bytes()
    misbehaving.write_bytes(content[: len(content) // 2])
    write_run(tmp_path, replace=[('bundle = "demo:gampen"', f'bundle = "{misbehaving}"')])
    done = launched("run", "run.toml")
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert "wrong.pt: is no TorchScript file, or is damaged" in done.stderr
    assert not (tmp_path / "cutouts.zarr").exists()

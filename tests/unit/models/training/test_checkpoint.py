"""Checkpoints whose disk is full, and files that are none."""

import dataclasses
import resource
import signal

import pytest
import torch

from galbatch.errors import FingerprintError, OutputError
from galbatch.models import RECIPES
from galbatch.models.training import Checkpoint, Identity, read_checkpoint, write_checkpoint

IDENTITY = Identity(RECIPES["sfnet"].settings, "data")
WEIGHTS = {"weight": torch.arange(50_000.0)}
FIRST = Checkpoint([[1, 1.0, 1.0, 1.0, 1.0]], WEIGHTS, {}, None, WEIGHTS)


@pytest.fixture
def full_after_100_kb():
    """Files of this process end at 100 kB, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_on_a_full_disk_the_old_state_stays_and_nothing_lies_beside_it(tmp_path, full_after_100_kb):
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, FIRST, IDENTITY)
    full_after_100_kb()
    second = dataclasses.replace(FIRST, history=[*FIRST.history, [2, 0.5, 0.5, 2.0, 1.0]])
    with pytest.raises(OutputError, match=r"state after epoch 2 cannot be written .* is the disk full"):
        write_checkpoint(path, second, IDENTITY)
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]
    found = read_checkpoint(path, IDENTITY)
    assert found is not None
    assert found.history == FIRST.history
    assert torch.equal(found.best["weight"], WEIGHTS["weight"])


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {"a": 1}, None])
def test_other_files_of_torch_are_no_checkpoints(tmp_path, content):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(FingerprintError, match="is no checkpoint of galbatch, or is damaged"):
        read_checkpoint(tmp_path / "a.ckpt", IDENTITY)

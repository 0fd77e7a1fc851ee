"""Two processes that train together, against one."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from galbatch.errors import UsageError
from galbatch.models import Processes, join_processes

# Run by each of the processes, and by one alone: trains and writes weights and losses.
SCRIPT = """
import dataclasses, json, sys
import numpy as np
from galbatch.models import (
    AuxiliaryInput, Extras, ParameterInfo, Session, TrainingSettings, join_processes, train
)
from galbatch.models.training.streaming import BlockImages

rng = np.random.default_rng(1)
flux = 10.0 ** rng.uniform(3, 4, 240)
images = rng.normal(0, 1, (240, 1, 40, 40))
images[:, :, 16:24, 16:24] += flux[:, None, None, None] / 64
images = images.astype(np.float32)
base = TrainingSettings(
    name="toy", architecture="gampen", bands=("g",), parameters=(ParameterInfo("flux_njy", "nJy", "flux", "ln"),),
    width=1 / 32, dropout_rate=1e-3, optimizer="sgd", learning_rate=1e-3, momentum=0.9, average_weights=0.9, limit_tail=0.3,
    max_gradient_norm=5.0, epochs=2, batch=16, seed=3,
)
cases = {
    "gampen": (base, images, Extras()),
    "mlp": (
        dataclasses.replace(
            base, architecture="mlp", bands=(), hidden=(16, 16), auxiliary_inputs=(AuxiliaryInput("m"),), dropout_rate=0.05
        ),
        np.empty((240, 0, 0, 0), np.float32),
        Extras(auxiliary=np.log(flux)[:, None].astype(np.float32), weight=np.where(flux > 3000, 1.0, 0.2).astype(np.float32)),
    ),
    "stream": (base, BlockImages(images.shape, np.arange(240), np.array([0, 64, 128, 192, 240]),
                                 lambda n: images[64 * n : 64 * n + 64], 2), Extras()),
    "sfnet": (
        dataclasses.replace(base, architecture="sfnet", head="gaussian", n_top_features=4, width=1 / 16), images, Extras()
    ),
}
with join_processes("cpu") as processes:
    session = Session("cpu", processes=processes)
    results = {
        name: train(cases[name][1], flux[:, None], settings=cases[name][0], extras=cases[name][2], session=session)
        for name in sys.argv[2:]
    }
for name, result in results.items():
    if processes.is_first:
        weights = {key: value.numpy() for key, value in result.network.state_dict().items()}
        losses = [[e.training_loss, e.validation_loss] for e in result.history]
        np.savez(f"{sys.argv[1]}_{name}.npz", losses=np.array(losses), n=processes.n, **weights)
"""
CASES = ("gampen", "mlp", "stream", "sfnet")


def run(folder, name, *launcher):
    script = folder / "train.py"
    script.write_text(SCRIPT)
    # On one machine the processes meet on its loopback, whatever its name resolves to.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *launcher, str(script), str(folder / name), *CASES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The same trainings by one process and by two: weights and losses by architecture."""
    folder = tmp_path_factory.mktemp("processes")
    run(folder, "one")
    run(folder, "two", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    return {case: tuple(dict(np.load(folder / f"{n}_{case}.npz")) for n in ("one", "two")) for case in CASES}


@pytest.mark.parametrize("case", ["gampen", "mlp", "stream"])
def test_two_processes_train_the_network_that_one_trains(trained, case):
    one, two = trained[case]
    assert (one.pop("n"), two.pop("n")) == (1, 2)
    # Gradients are summed in another order: float32 rounding. Not with Adam, which divides a gradient that is nothing but
    # rounding by its own size.
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=5e-4)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-3, atol=5e-4, err_msg=name)


def test_batch_norm_makes_two_processes_differ_from_one(trained):
    """The statistics of a process's part of a batch are not those of the batch: reference/training.md says so."""
    one, two = trained["sfnet"]
    # 65 % in the second epoch, where rounding alone is 0.005 %.
    assert np.abs(two["losses"] / one["losses"] - 1).max() > 0.02
    assert np.isfinite(two["losses"]).all()


def test_parts_are_the_whole_batch():
    for n_rows in (0, 1, 7, 16):
        rows = np.arange(n_rows)
        parts = [rows[Processes(rank, 3).part(n_rows)] for rank in range(3)]
        assert np.array_equal(np.concatenate(parts), rows)
    with pytest.raises(UsageError, match="batch: 16 galaxies cannot be divided evenly among 3 processes"):
        Processes(0, 3).check_batch(16)
    Processes(0, 2).check_batch(16)


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK=x"),
        ({"RANK": "0", "WORLD_SIZE": "2 of 4"}, "'2 of 4'"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR expected"),
    ],
    ids=["rank", "world-size", "address"],
)
def test_an_environment_that_torchrun_did_not_make_is_refused(monkeypatch, variables, found):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(UsageError, match=f"{found}.*start it with torchrun, or unset RANK"),
        join_processes("cpu"),
    ):
        pass


def test_one_process_of_a_launcher_trains_alone(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with join_processes("cpu") as processes:
        assert processes == Processes()

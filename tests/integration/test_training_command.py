"""A training through the command line, in a real process that is killed within an epoch, and in two that torchrun starts."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

N = 4000
# A ceiling, not an expectation.
WITHIN_S = 600
SETTINGS = """
hidden = [64, 64]
dropout_rate = 0.05
epochs = 3
batch = 8
optimizer = "sgd"
learning_rate = 1e-3
average_weights = 0.9
[[parameters]]
name = "z"
unit = ""
description = "redshift"
transform = "identity"
[[auxiliary_inputs]]
name = "colors"
length = 3
"""
COMMAND = ("models", "train", "mlp", "--labels", "labels.parquet", "--settings", "train.toml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of 4,000 objects with three colors in a list column, and redshifts that follow from them."""
    folder = tmp_path_factory.mktemp("trainings")
    rng = np.random.default_rng(2)
    colors = rng.normal(size=(N, 3))
    z = 0.5 + colors @ [0.1, 0.05, -0.02] + rng.normal(0, 0.02, N)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(colors.ravel()), 3)
    pq.write_table(pa.table({"object_id": np.arange(N), "z": z, "colors": lists}), folder / "labels.parquet")
    (folder / "train.toml").write_text(SETTINGS)
    return folder


def environment():
    # On one machine processes meet on its loopback, whatever its name resolves to.
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def train(folder, output, *more, launcher=()):
    """Train through the command line, and return what it printed."""
    argv = [sys.executable, *launcher, "-m", "galbatch", *COMMAND, "-o", output, *more]
    done = subprocess.run(
        argv, cwd=folder, env=environment(), capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def weights(path):
    script = torch.jit.load(str(path), map_location="cpu")
    return {name: value.numpy() for name, value in script.state_dict().items()}


@pytest.fixture(scope="module")
def whole(folder):
    """The weights of a training that nobody disturbs."""
    train(folder, "whole.pt")
    return weights(folder / "whole.pt")


def start_and_kill(folder, output):
    """Start a training that writes its state all the time, and kill it with signal 9 once there is one; return its exit code."""
    argv = [sys.executable, "-m", "galbatch", *COMMAND, "-o", output, "--checkpoint-minutes", "0.0001"]
    with open(folder / "said.txt", "w") as said:
        process = subprocess.Popen(argv, cwd=folder, env=environment(), stdout=said, stderr=said)
        deadline = time.monotonic() + WITHIN_S
        try:
            while not (folder / f"{output}.ckpt").exists() and process.poll() is None:
                assert time.monotonic() < deadline, (folder / "said.txt").read_text()
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
    return process.wait(WITHIN_S)


def killed_within_an_epoch(folder):
    """Return the name of a training that was killed when some batches of an epoch were done.

    A machine that stops this process for long lets the training end, or kills it between two epochs: then another one is started.
    """
    for number in range(10):
        output = f"killed{number}.pt"
        code = start_and_kill(folder, output)
        if code == -signal.SIGKILL:
            # The training's own checkpoint: nobody else wrote it.
            state = torch.load(folder / f"{output}.ckpt", weights_only=False)
            if state["begun"]:
                return output, json.loads(state["begun"])["n_batches"], len(state["history"])
        assert code in (0, -signal.SIGKILL), (folder / "said.txt").read_text()
    pytest.fail("none of ten trainings was killed within an epoch")


@pytest.mark.slow
def test_killed_within_an_epoch_and_resumed_it_gives_the_same_weights(folder, whole):
    output, n_batches, n_epochs = killed_within_an_epoch(folder)
    # 70 % of 4,000 objects in batches of 8 are some 350 in an epoch.
    assert 0 < n_batches < 400
    assert not (folder / output).exists()
    said = train(folder, output, "--resume")
    epochs = [int(number) for number in re.findall(r"^epoch (\d+) of 3:", said, re.MULTILINE)]
    assert epochs == list(range(n_epochs + 1, 4))
    found = weights(folder / output)
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert not (folder / f"{output}.ckpt").exists()


@pytest.mark.slow
def test_two_processes_that_torchrun_starts_give_the_network_that_one_gives(folder, whole):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    said = train(folder, "two.pt", launcher=launcher)
    # The first of them alone speaks and writes.
    assert len(re.findall(r"^epoch \d of 3:", said, re.MULTILINE)) == 3
    found = weights(folder / "two.pt")
    assert found.keys() == whole.keys()
    # Gradients are summed in another order.
    for name, value in whole.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=5e-4, err_msg=name)

"""Whatever is wrong with an input, the command line says so in a sentence: no traceback, no hang, no silent acceptance."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.fuzz.catalogs import catalog_problems
from tests.property.fuzz.commands import problems, run
from tests.property.fuzz.inputs import KINDS, N_OBJECTS

# A test runs several commands, each under a limit of its own; the first loads torch in the workers.
pytestmark = pytest.mark.timeout(1500)

NUMBERS = itertools.count()

# Seeds whose faults were found and mended, one of each: a traceback, or a message without the file.
SEEDS = [
    ("csv_list", 5),
    ("csv_list", 43),
    ("parquet_list", 51),
    ("parquet_list", 86),
    ("fits_list", 23),
    ("fits_list", 25),
    ("tile", 0),
    ("tile", 2),
    ("tile", 6),
    ("tile", 12),
    ("tile", 35),
    ("tile", 61),
    ("tile", 64),
    ("compressed_tile", 5),
    ("compressed_tile", 14),
    ("compressed_tile", 25),
    ("compressed_tile", 39),
    ("compressed_tile", 45),
    ("compressed_tile", 50),
    ("compressed_tile", 82),
    ("compressed_tile", 189),
    ("hdf5", 0),
    ("hdf5", 32),
    ("hdf5", 46),
    ("hdf5", 77),
    ("bundle", 20),
    ("compressed_tile", 1125),
    ("parquet_list", 1078),
    ("tile_table", 1024),
]


def tried(kind: str, seed: int, folder: Path, scheduler: str) -> None:
    """Change an input of a kind as `seed` says, run a command that reads it, and look at what it says."""
    random, right = Random(f"{kind} {seed}"), KINDS[kind]()
    mutation = random.choice(right.mutations)
    content = mutation(random, right.files[right.changed])
    command = random.choice(right.commands)
    folder = folder / f"{next(NUMBERS)}"
    right.write(folder, content)
    os.chdir(folder)
    outcome = run((*command, "--scheduler", scheduler) if command[0] == "run" else command)
    wrong = problems(outcome, names=(Path(right.changed).name, "run.toml", *right.names))
    if command[0] == "run":
        wrong += catalog_problems(folder / "catalog", n_listed=N_OBJECTS)
    if wrong:
        raise AssertionError(
            f"{kind} {seed}: {mutation.__name__}, galbatch {' '.join(command)}: {'; '.join(wrong)}\n"
            f"in {folder}\nexit code {outcome.code}\n{outcome.stdout}\n{outcome.stderr}\n{outcome.raw}"
        )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def scheduler(client, tmp_path_factory):
    """Address of two workers that have run once: the first run loads torch in them."""
    folder, right = tmp_path_factory.mktemp("first"), KINDS["tile"]()
    right.write(folder, right.files[right.changed])
    first = run(("run", str(folder / "run.toml"), "--scheduler", client.scheduler.address), limit_s=1000)
    assert first.code == 0, first
    return client.scheduler.address


@pytest.mark.parametrize("kind", KINDS)
def test_right_inputs_are_accepted(kind, folder, scheduler):
    right = KINDS[kind]()
    right.write(folder, right.files[right.changed])
    for command in right.commands:
        outcome = run((*command, "--scheduler", scheduler) if command[0] == "run" else command)
        assert outcome.code == 0, outcome
        assert problems(outcome, names=()) == []
    if right.commands[-1][0] == "run":
        assert catalog_problems(folder / "catalog", n_listed=N_OBJECTS) == []
        assert list((folder / "catalog").glob("dataset/**/*.parquet"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"net_bt_std": [0.1, np.nan]}, ["net_bt_std is NaN or infinite"]),
        ({"net_bt_mean": [0.3, np.inf]}, ["net_bt_mean is NaN or infinite"]),
        ({"net_bt_mean": [0.3, 1.01]}, ["net_bt_mean is beyond 0.0 to 1.0"]),
        ({"net_bt_std": [0.1, -0.1]}, ["net_bt_std is beyond 0.0 to inf"]),
        ({"net_bt_q158": [0.6, 0.1]}, ["the quantiles of bt do not rise"]),
        ({"net_bt_q500": [0.5, None]}, ["net_bt_q500 is missing without a flag"]),
        ({"net_bt_q500": [None, 0.4], "net_flags": [2, 0]}, []),
        ({"dec_deg": [1.0, -90.1]}, ["dec_deg is beyond -90.0 to 90.0"]),
        ({"object_id": [1, 1]}, ["2 rows of 2 objects"]),
    ],
)
def test_what_is_wrong_with_a_catalog_is_found(changed, said, tmp_path):
    right = {"object_id": [1, 2], "ra_deg": [0.0, 359.0], "dec_deg": [1.0, 2.0], "flags": [0, 0]}
    right |= {"net_bt_q158": [0.3, 0.1], "net_bt_q500": [0.5, 0.4], "net_bt_mean": [0.5, 0.4]}
    right |= {"net_bt_std": [0.1, 0.1], "net_flags": [0, 0]}
    leaf = tmp_path / "dataset" / "Norder=0" / "Dir=0" / "Npix=0.parquet"
    leaf.parent.mkdir(parents=True)
    pq.write_table(pa.table(right | changed), leaf)
    found = catalog_problems(tmp_path, n_listed=2)
    assert [text[: len(start)] for text, start in zip(found, said, strict=True)] == said


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_wrong_input_is_told(kind, seed, folder, scheduler):
    tried(kind, seed, folder, scheduler)


@pytest.mark.parametrize(("kind", "seed"), SEEDS)
def test_what_once_ended_in_a_traceback_is_told(kind, seed, folder, scheduler):
    tried(kind, seed, folder, scheduler)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_wrong_inputs_are_told(kind, seed, folder, scheduler):
    tried(kind, seed, folder, scheduler)

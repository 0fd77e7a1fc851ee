"""Damage is a state, not a stop: it is found, named, and made again; nothing else is."""

import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from galbatch import catalog, config, execution, storage

CHANGES = [("[flags]", "[cutouts]\nplanes = ['image', 'mask', 'variance']\n[flags]")]


def cli(*arguments):
    command = [sys.executable, "-m", "galbatch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250)


class Notes:
    """A sink that keeps the lines."""

    def __init__(self):
        self.lines = []

    def start(self, stage, total, done):
        pass

    def advance(self, stage, n):
        pass

    def note(self, line):
        self.lines.append(line)

    def record(self, event):
        pass


def execute(run_toml, client, **changes):
    """The config, the result and the lines of a run."""
    parsed, notes = config.read_config(run_toml), Notes()
    result = execution.execute(parsed, execution.prepare(parsed), client, sink=notes, **changes)
    return parsed, result, notes.lines


def data_of(folder):
    """The data columns of all leaves, as bytes."""
    found = {}
    for leaf in sorted((folder / "catalog" / "dataset").rglob("Npix=*.parquet")):
        columns = pq.read_table(leaf, partitioning=None).columns
        found[leaf.name, leaf.parts[-3]] = [
            [None if part is None else part.to_pybytes() for part in column.combine_chunks().buffers()]
            for column in columns
        ]
    return found


def files_of(folder):
    """Every file of the outputs that holds data: shards, marks, leaves and their checksums, kept pass outputs, zarr.json."""
    roots = ("cutouts.zarr", "catalog_pass_outputs.zarr", "catalog/dataset", "catalog/_checksums")
    found = [path for root in roots for path in (folder / root).rglob("*") if path.is_file()]
    return sorted(path for path in found if path.name not in ("_metadata", "_common_metadata"))


@pytest.fixture(scope="module")
def whole(write_run, client, tmp_path_factory):
    """Folder of a finished run with masks, variances and kept pass outputs."""
    folder = tmp_path_factory.mktemp("whole")
    run_toml = write_run(folder, max_objects=40, passes="4\nkeep_pass_outputs = true", replace=CHANGES)
    _, result, _ = execute(run_toml, client)
    assert result.complete
    return folder


@pytest.fixture
def copied(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def verify(folder):
    return execution.verify_outputs(str(folder / "catalog"), str(folder / "cutouts.zarr"))


def places(folder, n_places, rng):
    """Random files of the outputs; none of a group whose mark is among them, as without it the group counts as lost."""
    chosen, marked = [], set()
    there = files_of(folder)
    for number in rng.permutation(len(there)):
        path = there[number]
        if path.name == "_done.json" and not any(path.parents[1] in other.parents for other in chosen):
            marked.add(path.parents[1])
        elif path.name == "_done.json" or marked & set(path.parents):
            continue
        chosen.append(path)
        if len(chosen) == n_places:
            return chosen
    raise AssertionError("too few files")


def flip_and_mend(folder, whole, client, *, n_places, seed):
    """Flip a random byte in each of `n_places` files, find all, mend all."""
    rng = np.random.default_rng(seed)
    flipped = places(folder, n_places, rng)
    for path in flipped:
        data = bytearray(path.read_bytes())
        data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
    problems = [line for line in verify(folder) if "galbatch run makes it again" in line]
    for path in flipped:
        assert any(str(path) in problem for problem in problems), path
    _, result, notes = execute(folder / "run.toml", client)
    assert result.failed == {}
    assert result.complete
    assert len(notes) == len(set(notes))
    assert verify(folder) == []
    assert data_of(folder) == data_of(whole)


def test_a_flipped_byte_anywhere_is_found_and_mended(copied, whole, client):
    flip_and_mend(copied, whole, client, n_places=10, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_200_flipped_bytes(whole, tmp_path, client):
    for seed in range(10):
        shutil.copytree(whole, tmp_path / str(seed))
        flip_and_mend(tmp_path / str(seed), whole, client, n_places=20, seed=100 + seed)


def leaf(folder):
    return sorted((folder / "catalog" / "dataset").rglob("Npix=*.parquet"))[0]


def group(folder, root="cutouts.zarr"):
    return sorted((folder / root).rglob("_done.json"))[0].parents[1]


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-30])


def flip_in_footer(path):
    """Change a letter of the fingerprint in the footer: what remains is a valid leaf, of another run."""
    data = path.read_bytes()
    at = data.rindex(b'"digest"') + 15
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


SEEN_AT_ONCE = {
    "a truncated leaf": lambda folder: cut_short(leaf(folder)),
    "another fingerprint in the footer": lambda folder: flip_in_footer(leaf(folder)),
    "an empty mark": lambda folder: (group(folder) / "object_id/_done.json").write_bytes(b""),
    "a garbled mark": lambda folder: (group(folder) / "object_id/_done.json").write_bytes(
        b'{"fingerprint": '
    ),
    "a lost group": lambda folder: shutil.rmtree(group(folder)),
    "lost photometry": lambda folder: shutil.rmtree(
        next((folder / "cutouts.zarr").rglob("*_photometry/**/_done.json")).parents[1]
    ),
    "a garbled mark of photometry": lambda folder: next(
        (folder / "cutouts.zarr").rglob("*_photometry/**/_done.json")
    ).write_bytes(b'{"fingerprint": '),
    "an empty mark of pass outputs": lambda folder: (
        group(folder, "catalog_pass_outputs.zarr") / "object_id/_done.json"
    ).write_bytes(b""),
    "lost pass outputs": lambda folder: shutil.rmtree(group(folder, "catalog_pass_outputs.zarr")),
}


@pytest.mark.parametrize("kind", SEEN_AT_ONCE)
def test_damage_is_seen_named_once_and_made_again_without_verify(copied, whole, client, kind):
    SEEN_AT_ONCE[kind](copied)
    _, result, notes = execute(copied / "run.toml", client)
    assert (result.failed, result.complete) == ({}, True)
    assert len([line for line in notes if line.startswith("damaged: ")]) == 1
    assert data_of(copied) == data_of(whole)
    assert verify(copied) == []
    _, again, notes = execute(copied / "run.toml", client)
    assert (again.n_passes, notes) == (0, [])


@pytest.mark.parametrize("ending", ["_photometry", "px_0.168arcsec"])
def test_verify_names_a_group_of_the_store_that_is_gone(copied, ending):
    mark = min(
        path
        for path in (copied / "cutouts.zarr").rglob("_done.json")
        if path.parents[1].name.endswith(ending)
    )
    shutil.rmtree(mark.parents[1])
    problems = verify(copied)
    assert [line.partition(": gone, though the catalog has the leaf ")[0] for line in problems] == [
        str(mark.parents[1])
    ]


def test_cutouts_that_are_zeroed_before_they_are_read_are_cut_again(copied, whole, client):
    parsed = config.read_config(copied / "run.toml")
    plan = execution.prepare(parsed)
    part = plan.partitions[0].partition
    catalog.remove_leaf(parsed.catalog.path, part)
    shard = next(path for path in (copied / "cutouts.zarr" / part.path).rglob("image/c/*/*/*/*"))
    data = bytearray(shard.read_bytes())
    data[1000:17384] = bytes(16384)
    shard.write_bytes(data)
    _, result, notes = execute(copied / "run.toml", client)
    assert (result.failed, result.complete) == ({}, True)
    assert [str(shard) in line and "has the checksum" in line for line in notes] == [True]
    assert data_of(copied) == data_of(whole)
    assert verify(copied) == []


def test_a_leaf_that_is_damaged_before_the_catalog_is_finished(copied, whole, client, monkeypatch):
    """It is named as failed, the rest is finished as an incomplete catalog, and the next run makes it again."""
    parsed = config.read_config(copied / "run.toml")
    part = execution.prepare(parsed).partitions[0].partition
    leaf = copied / "catalog" / "dataset" / f"{part.path}.parquet"
    finish = catalog.finish

    def late(*arguments, **options):
        leaf.write_bytes(leaf.read_bytes()[:1000])
        return finish(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(catalog, "finish", late)
        _, result, _ = execute(copied / "run.toml", client)
    assert (result.complete, result.finished) == (False, False)
    assert list(result.failed) == [part.name]
    _, again, notes = execute(copied / "run.toml", client)
    assert (again.failed, again.complete, again.finished) == ({}, True, True)
    assert [str(leaf) in line for line in notes if line.startswith("damaged: ")] == [True]
    assert data_of(copied) == data_of(whole)


def test_status_retry_and_exit_codes(copied, whole):
    parsed = config.read_config(copied / "run.toml")
    plan = execution.prepare(parsed)
    never_begun = plan.partitions[-1].partition
    catalog.remove_leaf(parsed.catalog.path, never_begun)
    damaged = leaf(copied)
    assert never_begun.path not in str(damaged)
    cut_short(damaged)
    verified = cli("verify", copied / "catalog", "--store", copied / "cutouts.zarr")
    assert verified.returncode == 1
    assert str(damaged) in verified.stderr
    status = cli("status", copied / "run.toml")
    assert (status.returncode, status.stderr) == (0, "")
    assert f"damaged: {damaged}" in status.stdout
    retried = cli("retry", copied / "run.toml")
    assert retried.returncode == 0, retried.stderr
    assert retried.stdout.count(f"damaged: {damaged}") == 1
    made = data_of(copied)
    assert made.items() < data_of(whole).items()
    assert len(made) == len(plan.partitions) - 1
    run = cli("run", copied / "run.toml")
    assert run.returncode == 0, run.stderr
    assert data_of(copied) == data_of(whole)
    assert verify(copied) == []
    assert not storage.exists(storage.damage_path(parsed.catalog.path))

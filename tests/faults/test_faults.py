"""Seeded faults of all kinds through the command line: nothing is lost, nothing is doubled, nothing is left over.

The seed gives the kind, the moment and the place. `make test-faults` plays 100, the long tests a few.
"""

import contextlib
import io
import shutil
import uuid
from collections import defaultdict
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import galbatch
from galbatch.cli.app import app
from tests.faults import toy
from tests.faults.disks import small_disk
from tests.faults.joined import joined_cluster
from tests.faults.kinds import PARTS, Case, Expected, of_seed
from tests.faults.outputs import OnDisk, OnS3, copy, lasting_names, shorten_locks
from tests.faults.proxy import proxy_before

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MORE_RUNS = {Expected.HEALS: 0, Expected.NEXT: 2, Expected.REFUSED: 1}
"""How many runs may follow the one that was struck; a killed one may leave damage that only the second one after it meets."""


TRIES = 3
"""How often a fault is played until it meets a run at work."""

OWN_CODE = f'File "{Path(galbatch.__file__).parent}/'
"""A line of a traceback through galbatch's own code."""


def rows_of(outputs):
    """Rows of all leaves: their data columns as text, by object id."""
    found = defaultdict(list)
    for name in filter(PARTS["leaf"], outputs.names()):
        table = pq.read_table(io.BytesIO(outputs.read(name)))
        for row in table.to_pylist():
            found[row["object_id"]].append(repr(row))
    return found


def n_lost(outputs, undisturbed_outputs):
    """The number of objects that are not there exactly once with the values of the undisturbed run."""
    ours, theirs = rows_of(outputs), rows_of(undisturbed_outputs)
    return sum(ours.get(one) != theirs.get(one) for one in ours.keys() | theirs.keys())


@contextlib.contextmanager
def placed(where, tmp_path, s3_endpoint):
    """Yield what a case needs at this place: outputs, environment, options, and what can be struck."""
    with contextlib.ExitStack() as stack:
        if where == "S3":
            proxy = stack.enter_context(proxy_before(s3_endpoint))
            env = {
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": proxy.url,
            }
            outputs = OnS3(s3_endpoint, f"faults-{uuid.uuid4().hex[:8]}")
            yield {"outputs": outputs, "env": env, "proxy": proxy}
        elif where == "small disk":
            disk = small_disk(tmp_path / "disk")
            stack.callback(disk.close)
            yield {"outputs": OnDisk(disk.folder), "env": disk.env, "disk": disk}
        elif where == "disk":
            yield {"outputs": OnDisk(tmp_path / "outputs"), "env": {}}
        else:
            cluster = stack.enter_context(joined_cluster(tmp_path, with_link=where == "cut scheduler"))
            options = ["--scheduler", cluster.address]
            yield {"outputs": OnDisk(tmp_path / "outputs"), "env": {}, "cluster": cluster, "options": options}


@pytest.fixture
def case(seed, undisturbed, undisturbed_outputs, survey, tmp_path, s3_endpoint):
    """A run that is ready to be struck."""
    kind, rng = of_seed(seed)
    where = kind.where[int(rng.integers(len(kind.where)))]
    with placed(where, tmp_path, s3_endpoint) as place:
        for name in ("toy.pt", "objects.parquet"):
            shutil.copy2(undisturbed / name, tmp_path / name)
        shutil.copytree(survey, tmp_path / "survey")
        run_toml = tmp_path / "run.toml"
        run_toml.write_text(
            toy.RUN_TOML.format(
                survey=tmp_path / "survey",
                objects=tmp_path / "objects.parquet",
                bundle=tmp_path / "toy.pt",
                outputs=place["outputs"].url,
            )
        )
        n_leaves = sum(map(PARTS["leaf"], undisturbed_outputs.names()))
        case = Case(rng, tmp_path, run_toml=run_toml, n_steps=2 * n_leaves, **place)
        try:
            yield kind, where, case
        finally:
            for one in case.started:
                one.close()
            shutil.rmtree(tmp_path / "survey")


def verified(case):
    """The exit code of `galbatch verify` and what it printed; in this process, which has imported what it needs."""
    outputs = case.outputs.url
    words = ["verify", f"{outputs}/catalog", "--against", case.run_toml, "--store", f"{outputs}/cutouts.zarr"]
    # A connection to S3 that is kept would go to the proxy of an earlier case.
    systems = fsspec.get_filesystem_class("s3")
    systems.clear_instance_cache()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in case.env.items():
            environment.setenv(name, value)
        done = CliRunner().invoke(app, [str(word) for word in words])
    systems.clear_instance_cache()
    told = "" if done.exception is None else f"{done.exception}"
    return done.exit_code, f"{done.output}{told}"


def struck(kind, case, undisturbed_outputs):
    """Strike, and return how the run ended that was struck, or the first one after the outputs were."""
    if not kind.of_finished:
        run = case.start()
        kind.strike(case)
        return run.end()
    copy(undisturbed_outputs, case.outputs)
    damaged = kind.strike(case)
    if kind.expected is not Expected.REFUSED:
        code, printed = verified(case)
        assert code == 1, printed
        assert (damaged or "") in printed
    return case.start().end()


def struck_at_work(kind, case, undisturbed_outputs):
    """Strike until the fault meets a run at work; what comes too late is tried again with new outputs, at another moment."""
    for n_left in reversed(range(TRIES)):
        ended = struck(kind, case, undisturbed_outputs)
        assert ended.code in kind.codes, (ended.code, ended.stderr[-3000:])
        if case.has_struck or not n_left:
            break
        case.put_back()
        case.put_back = lambda: None
        case.outputs.clear()
    return ended


def test_nothing_is_lost(case, undisturbed_outputs, record_property):
    kind, where, case = case
    record_property("fault", kind.name)
    record_property("where", where)
    ended, n_more = struck_at_work(kind, case, undisturbed_outputs), 0
    record_property("struck", case.has_struck)
    codes = [ended.code]
    problems = ""
    while True:
        # Dask tells of lost connections with tracebacks of its own.
        assert OWN_CODE not in ended.stderr, ended.stderr
        if ended.code == 0 or case.is_done_by_another:
            code, problems = verified(case)
            if code == 0:
                break
        assert n_more < MORE_RUNS[kind.expected], (codes, ended.stderr, problems)
        case.put_back()
        case.put_back = lambda: None
        shorten_locks(case.outputs)
        ended, n_more = case.start().end(), n_more + 1
        codes.append(ended.code)
    lost = n_lost(case.outputs, undisturbed_outputs)
    record_property("lost", lost)
    text = "refused, then done" if codes[0] == 2 else f"exit {', '.join(map(str, codes))}"
    record_property("came through", text)
    assert lost == 0
    assert lasting_names(case.outputs) == lasting_names(undisturbed_outputs)

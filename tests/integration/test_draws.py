"""Pass outputs kept by a run, and joint draws of its objects: as table, as corner plot, as text."""

import io
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

import galbatch.cli
from galbatch import catalog, config, execution, models, storage
from galbatch.api import Request, draw
from galbatch.catalog import pass_outputs
from galbatch.core.flags import ModelFlag
from galbatch.errors import CatalogError, DamagedError, FingerprintError
from galbatch.execution import infer_partition, infer_task
from galbatch.models.posterior import to_output

ADAPTIVE = '"adaptive"\nmin_passes = 8\nmax_passes = 32\nkeep_pass_outputs = true'
QUANTILES = {"q02275": 0.02275, "q15865": 0.15865, "q500": 0.5, "q84135": 0.84135, "q97725": 0.97725}


def process(*arguments):
    """As a user: a process of its own, whose S3 connections end with it."""
    command = [sys.executable, "-m", "galbatch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250)


def cli(*arguments):
    """The same in this process, which has loaded all libraries."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.setattr(sys, "argv", ["galbatch", *map(str, arguments)])
        code = 0
        try:
            galbatch.cli.main()
        except SystemExit as ended:
            code = ended.code
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def kept(write_run, client, tmp_path_factory):
    """A run whose pass outputs are kept."""
    run_toml = write_run(tmp_path_factory.mktemp("draws"), max_objects=60, passes=ADAPTIVE)
    parsed = config.read_config(run_toml)
    assert execution.execute(parsed, execution.prepare(parsed), client).complete
    return run_toml


@pytest.fixture(scope="module")
def rows(kept):
    return catalog.read_catalog(str(kept.parent / "catalog")).to_pandas().set_index("object_id")


@pytest.fixture
def copied(kept, tmp_path):
    """A copy of the run's outputs, to be harmed; its run.toml reads the same inputs."""
    for name in ("catalog", "catalog_pass_outputs.zarr", "cutouts.zarr"):
        shutil.copytree(kept.parent / name, tmp_path / name)
    shutil.copy(kept, tmp_path / "run.toml")
    return tmp_path / "run.toml"


def first_leaf(parsed):
    pixel = catalog.list_leaves(parsed.catalog.path)[0]
    return pixel, f"{parsed.catalog.path}/dataset/{pixel.path}.parquet"


def test_pass_outputs_hold_the_passes_that_the_catalog_counts(kept):
    path = str(kept.parent / "catalog")
    counts = set()
    for partition in catalog.list_leaves(path):
        leaf = pq.read_table(f"{path}/dataset/{partition.path}.parquet", partitioning=None)
        fingerprint = execution.footer_fingerprint(catalog.read_footer(path, partition))
        for model in ("gampen", "sfnet"):
            there = pass_outputs.open_pass_outputs(path, partition, model, fingerprint=fingerprint)
            assert there.object_id.tolist() == leaf["object_id"].to_pylist()
            assert np.diff(there.offset).tolist() == leaf[f"{model}_passes"].to_pylist()
            counts |= set(np.diff(there.offset).tolist())
    assert {0, 32} <= counts  # of objects not run, and not converged
    assert pass_outputs.problems(path) == []


def assert_agree(drawn, row):
    """The draws' quantiles and correlations are those of the catalog's columns."""
    n = drawn.n_draws
    for name, some in drawn.samples.items():
        for suffix, level in QUANTILES.items():
            edge = row[f"{drawn.model}_{name}_{suffix}"]
            # Values at a limit, such as B/T of 0, are many; columns are float32.
            spacing = 1e-6 * abs(edge)
            low, high = (some < edge - spacing).mean(), (some <= edge + spacing).mean()
            tolerance = 4 * np.sqrt(level * (1 - level) / n) + 1e-3
            assert low - tolerance <= level <= high + tolerance, (name, suffix)
    bundle = models.load_bundle(models.bundle_path(f"demo:{drawn.model}"))
    parameters = bundle.metadata.parameters
    standardized = {p.name: to_output(drawn.samples[p.name], p) for p in parameters if p.limits is None}
    names = list(standardized)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            found = np.corrcoef(standardized[first], standardized[second])[0, 1]
            assert found == pytest.approx(row[f"{drawn.model}_corr_{first}_{second}"], abs=4 / np.sqrt(n))


def test_draws_agree_with_the_catalog(kept, rows):
    chosen = [object_id for object_id in rows.index if rows.loc[object_id, "sfnet_passes"] > 0][:6]
    found = draw(str(kept.parent / "catalog"), [str(one) for one in chosen], Request(8000))
    assert [(one.object_id, one.model) for one in found] == [
        (object_id, model) for object_id in chosen for model in ("gampen", "sfnet")
    ]
    for one in found:
        assert_agree(one, rows.loc[one.object_id])


def test_the_command_writes_tables_and_plots_and_says_what_it_found(kept, rows, tmp_path):
    path, selected = kept.parent / "catalog", rows[rows["sfnet_passes"] > 0].index[:2]
    command = ("draws", path, *selected, "-n", 300)
    done = cli(*command, "-o", tmp_path / "d.parquet", "--plot", tmp_path / "c.png", "--seed", 5)
    assert (done.returncode, done.stderr) == (0, "")
    table = pq.read_table(tmp_path / "d.parquet")
    assert table.column_names == [
        "object_id", "draw", "gampen_bt", "gampen_re_arcsec", "gampen_flux_njy", "gampen_mag",
        "sfnet_color_gr_mag", "sfnet_mag_r", "gampen_log_prior", "sfnet_log_prior",
    ]  # fmt: skip
    assert table["object_id"].to_pylist() == np.repeat(selected, 300).tolist()
    assert table.schema.field("gampen_re_arcsec").metadata[b"unit"] == b"arcsec"
    names = {f"c_{one}_{model}.png" for one in selected for model in ("gampen", "sfnet")}
    assert {file.name for file in tmp_path.iterdir()} == {"d.parquet", *names}
    median = np.median(table.filter(pc.equal(table["object_id"], selected[0]))["gampen_mag"])
    line = next(line for line in done.stdout.splitlines() if line.startswith("gampen_mag"))
    assert line.split()[1:3] == ["mag", f"{median:.5g}"]
    # Shipped bundles have their prior beside them: the density at a draw is that of its parameters.
    metadata, sha256 = models.read_bundle_metadata("demo:sfnet")
    values = {name: table[f"sfnet_{name}"].to_numpy() for name in ("color_gr_mag", "mag_r")}
    density = models.log_prior(models.prior_of(metadata, sha256), metadata.parameters, values)
    np.testing.assert_allclose(table["sfnet_log_prior"].to_numpy(), density, rtol=1e-9)
    # The same seed gives the same draws, in any format; another does not.
    assert cli(*command, "-o", tmp_path / "d.fits", "--seed", 5).returncode == 0
    fits = Table.read(tmp_path / "d.fits")
    assert (np.asarray(fits["gampen_bt"]) == table["gampen_bt"].to_numpy()).all()
    assert str(fits["gampen_flux_njy"].unit) == "nJy"
    printed = cli(*command, "-o", "-")
    other = pd.read_csv(io.StringIO(printed.stdout))
    assert other.columns.tolist() == table.column_names
    assert not np.isclose(other["gampen_bt"], table["gampen_bt"]).all()


def test_one_plot_has_the_name_that_was_given_and_few_draws_are_printed(kept, rows, tmp_path):
    path, object_id = kept.parent / "catalog", rows[rows["gampen_passes"] > 0].index[0]
    done = cli("draws", path, object_id, "--model", "gampen", "--plot", tmp_path / "c.pdf")
    assert done.returncode == 0, done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["c.pdf"]
    few = cli("draws", path, object_id, "--model", "gampen", "-n", 3)
    lines = few.stdout.splitlines()
    assert lines[0] == "object_id,draw,gampen_bt,gampen_re_arcsec,gampen_flux_njy,gampen_mag,gampen_log_prior"
    assert [line.split(",")[:2] for line in lines[1:]] == [[str(object_id), str(i)] for i in range(3)]


def test_an_object_without_passes_is_told_and_the_others_are_drawn(kept, rows, tmp_path):
    path = kept.parent / "catalog"
    without = rows.query(f"gampen_flags == {int(ModelFlag.MISSING_PIXELS)} and gampen_passes == 0").index[0]
    unselected = rows.query(f"sfnet_flags == {int(ModelFlag.NOT_SELECTED)} and gampen_passes > 0").index[0]
    done = cli("draws", path, without, unselected, "-n", 50, "-o", tmp_path / "d.csv")
    assert done.returncode == 1
    assert f"object {without}, gampen: nothing to draw: no passes were run: MISSING_PIXELS" in done.stderr
    assert f"object {unselected}, sfnet: nothing to draw: no passes were run: NOT_SELECTED" in done.stderr
    assert set(pd.read_csv(tmp_path / "d.csv")["object_id"]) == {unselected}
    assert cli("draws", path, unselected, "-n", 50).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["CATALOG", "1", "OBJECT", "2"], "no object has the id 1, 2; ids are those of the column object_id"),
        (["CATALOG", "M31"], "its ids are 64-bit integers, which excludes M31"),
        (["CATALOG", "OBJECT", "-n", "0"], "-n 0: expected 1 draw or more"),
        (["CATALOG", "OBJECT", "-n", "-3"], "-n -3: expected 1 draw or more"),
        (["CATALOG", "OBJECT", "-n", "20", "--plot", "c.png"], "a corner plot needs 200 draws or more"),
        (["CATALOG", "OBJECT", "--plot", "c.jpg"], "c.jpg: unknown kind of picture"),
        (["CATALOG", "OBJECT", "-o", "d.txt"], "d.txt: unknown kind of table"),
        (["CATALOG", "OBJECT", "--model", "resnet"], "--model resnet: "),
        (["nowhere", "OBJECT"], "nowhere: no leaf of a catalog found"),
        (["CATALOG"], "Missing argument 'OBJECT_ID...'"),
    ],
)
def test_wrong_usage_ends_with_2_and_words(kept, rows, arguments, message):
    names = {"CATALOG": str(kept.parent / "catalog"), "OBJECT": str(rows.index[0])}
    done = cli("draws", *(names.get(word, word) for word in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_task_that_dies_before_its_leaf_is_done_again_alike(copied, monkeypatch):
    """Pass outputs come before the leaf: a leaf that is there has them."""
    parsed = config.read_config(copied)
    plan = execution.prepare(parsed)
    partition, leaf = first_leaf(parsed)
    (part,) = [p for p in plan.partitions if p.partition.path == partition.path]
    before = {
        f: storage.read_bytes(f"{pass_outputs.pass_outputs_path(parsed.catalog.path)}/{partition.path}/{f}")
        for f in storage.list_files(
            f"{pass_outputs.pass_outputs_path(parsed.catalog.path)}/{partition.path}", suffix=""
        )
    }
    storage.remove(leaf)
    task = infer_task(
        plan, part, store=parsed.cutouts.store, catalog_path=parsed.catalog.path, posterior=parsed.posterior
    )

    def dies(*_, **__):
        raise KeyboardInterrupt

    for owner, name in ((pass_outputs.PassOutputsWriter, "append"), (catalog, "write_leaf")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, dies)
            with pytest.raises(KeyboardInterrupt):
                infer_partition(task)
        done = pass_outputs.read_done(parsed.catalog.path, partition, "gampen")
        assert (done is not None) == (name == "write_leaf")
        assert part.partition.name not in execution.read_progress(parsed, plan).inferred
    infer_partition(task)
    assert part.partition.name in execution.read_progress(parsed, plan).inferred
    after = {
        f: storage.read_bytes(f"{pass_outputs.pass_outputs_path(parsed.catalog.path)}/{partition.path}/{f}")
        for f in before
    }
    assert after == before


def test_lost_and_foreign_pass_outputs_are_told(copied):
    parsed = config.read_config(copied)
    plan = execution.prepare(parsed)
    partition, _ = first_leaf(parsed)
    object_id = str(catalog.leaf_ids(parsed.catalog.path, partition)[0])
    group = f"{pass_outputs.pass_outputs_path(parsed.catalog.path)}/{partition.path}/gampen"
    mark = f"{group}/object_id/_done.json"
    done = storage.read_sealed(mark)
    done["fingerprint"]["digest"] = "f" * 64
    for change, error, message in (
        (
            lambda: storage.publish(mark, storage.sealed_bytes(done)),
            FingerprintError,
            "of another run (ffffffffffff..",
        ),
        (lambda: storage.remove(group), DamagedError, "they are not there or unfinished"),
    ):
        change()
        with pytest.raises(error) as caught:
            draw(parsed.catalog.path, [object_id], Request(10, "gampen"))
        assert message in str(caught.value)
        assert any(message in problem for problem in pass_outputs.problems(parsed.catalog.path))
        if error is FingerprintError:
            with pytest.raises(FingerprintError):
                execution.read_progress(parsed, plan)
    # What is lost is damage: the partition is left, and the others stay done.
    state = execution.read_progress(parsed, plan)
    assert [part.partition.pixel for part in state.left] == [partition]
    assert [(one.path, message in one.problem) for one in state.damaged] == [(group, True)]
    verified = cli("verify", parsed.catalog.path)
    assert verified.returncode == 1
    assert "they are not there or unfinished" in verified.stderr
    # Pass outputs of a partition that is none of this run's.
    shutil.copytree(f"{pass_outputs.pass_outputs_path(parsed.catalog.path)}/{partition.path}/sfnet",
                    f"{pass_outputs.pass_outputs_path(parsed.catalog.path)}/Norder=0/Dir=0/Npix=1/sfnet")  # fmt: skip
    storage.remove(parsed.catalog.path)
    with pytest.raises(FingerprintError, match="pass outputs of another division of the sky"):
        execution.read_progress(parsed, plan)
    removed = execution.clean(parsed)
    assert any("catalog_pass_outputs.zarr" in path for path in removed)
    assert not storage.exists(pass_outputs.pass_outputs_path(parsed.catalog.path))


def test_a_catalog_without_pass_outputs_says_how_to_get_them(copied, client):
    text = copied.read_text()
    other = text.replace("keep_pass_outputs = true", "").replace(
        "[cluster]", '[catalog]\npath = "bare"\n[cluster]'
    )
    bare_toml = copied.parent / "bare.toml"
    bare_toml.write_text(other)
    bare = config.read_config(bare_toml)
    assert execution.execute(bare, execution.prepare(bare), client).complete
    assert not storage.exists(pass_outputs.pass_outputs_path(bare.catalog.path))
    first, second = (catalog.read_catalog(str(copied.parent / name)) for name in ("bare", "catalog"))
    # Keeping changes nothing.
    pd.testing.assert_frame_equal(first.to_pandas(), second.to_pandas(), check_exact=True)
    object_id = str(first["object_id"][0].as_py())
    with pytest.raises(CatalogError, match=r"keep_pass_outputs = true.* choose a new \[catalog\] path"):
        draw(bare.catalog.path, [object_id], Request())
    bare_toml.write_text(other.replace("[posterior]", "[posterior]\nkeep_pass_outputs = true"))
    asked = config.read_config(bare_toml)
    with pytest.raises(FingerprintError, match="written without keep_pass_outputs = true; choose another"):
        execution.read_progress(asked, execution.prepare(asked))


@pytest.mark.slow
def test_on_s3_with_ids_of_text(s3, survey, write_run, tmp_path):
    objects = pq.read_table(survey / "objects.parquet")
    texts = pa.array([f"HSC J{number}/é" for number in objects["object_id"].to_pylist()])
    objects = objects.set_column(objects.column_names.index("object_id"), "object_id", texts)
    pq.write_table(objects, tmp_path / "objects.parquet")
    run_toml = write_run(
        tmp_path,
        max_objects=60,
        passes="8\nkeep_pass_outputs = true",
        objects=tmp_path / "objects.parquet",
        replace=[("[cluster]", f'[catalog]\npath = "{s3}/a/catalog"\n[cluster]')],
    )
    done = process("run", run_toml, "--workers", 1)
    assert done.returncode == 0, done.stderr
    table = catalog.read_catalog(f"{s3}/a/catalog").to_pandas().query("gampen_passes > 0")
    chosen = table.iloc[0]
    done = process("draws", f"{s3}/a/catalog", chosen["object_id"], "-n", 4000, "--model", "gampen",
               "-o", f"{s3}/a/draws.parquet", "--plot", f"{s3}/a/plot.png")  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = pq.read_table(pa.BufferReader(storage.read_bytes(f"{s3}/a/draws.parquet")))
    below = (written["gampen_mag"].to_numpy() <= chosen["gampen_mag_q15865"]).mean()
    assert below == pytest.approx(0.15865, abs=0.03)
    assert storage.read_bytes(f"{s3}/a/plot.png").startswith(b"\x89PNG")
    assert "good" in process("verify", f"{s3}/a/catalog").stdout
    cleaned = process("clean", run_toml, "--yes")
    assert cleaned.returncode == 0, cleaned.stderr
    assert storage.list_files(f"{s3}/a", suffix="") == ["draws.parquet", "plot.png"]

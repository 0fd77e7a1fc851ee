"""Networks that take more than one survey's image: bands of two surveys, columns of the list, ensembles."""

import dataclasses
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from astropy.io import fits
from torch import Tensor, nn
from typer.testing import CliRunner

from galbatch import catalog, config, errors, execution
from galbatch.cli.app import app
from galbatch.core.flags import ModelFlag
from galbatch.models import (
    AuxiliaryInput,
    BundleMetadata,
    CalibrationInfo,
    HeadInfo,
    InputInfo,
    ParameterInfo,
    save_bundle,
    script_of,
)

SIZE_PX = 16
OTHER_INPUT = InputInfo(
    ("hsc_g", "des_g"), SIZE_PX, 0.168, "nJy", 31.4, auxiliary_inputs=(AuxiliaryInput("ebv"),)
)
RUN_TOML = """
[[survey]]
name = "hsc"
layout = "hsc"
tiles = "{survey}/deepCoadd-results/**/calexp-*.fits"
bands = ["g"]
[[survey]]
name = "des"
layout = "hsc"
tiles = "{other}/**/calexp-*.fits"
bands = ["g"]
[objects]
path = "{objects}"
[[models]]
name = "toy"
bundle = ["first.pt", "second.pt"]
auxiliary_inputs = ["ebv_sfd"]
[posterior]
passes = 4
[cluster]
workers = 2
dashboard_address = "127.0.0.1:0"
"""


class Toy(nn.Module):
    """Says the centers of both bands and the column, each with a width of exp(-1)."""

    shift: float

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    @torch.jit.export
    def prefix(self, images: Tensor, auxiliary: Tensor) -> Tensor:
        return torch.cat([images[:, :, 8, 8], auxiliary], dim=1)

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        log_d = torch.full_like(features, -2.0)
        return torch.cat([features + self.shift, log_d, torch.zeros_like(features)], dim=1)


def save_toy(path, shift, **changes):
    names = ("des_njy", "hsc_njy", "ebv")
    metadata = BundleMetadata(
        "toy",
        "1",
        "toy",
        InputInfo(
            ("des_g", "hsc_g"), SIZE_PX, 0.168, "nJy", 31.4, auxiliary_inputs=(AuxiliaryInput("ebv", "mag"),)
        ),
        HeadInfo("gaussian"),
        tuple(ParameterInfo(name, "", name, "identity") for name in names),
        dropout_rate=0.0,
        calibration=CalibrationInfo(inflation_factors=(1.0, 1.0, 2.0)),
    )
    return save_bundle(str(path), script_of(Toy(shift)), dataclasses.replace(metadata, **changes))


@pytest.fixture(scope="module")
def two_surveys(survey, tmp_path_factory):
    """The simulated survey, and a copy of its g band that is twice as bright, as another one."""
    other = tmp_path_factory.mktemp("des")
    for path in sorted(Path(survey).glob("deepCoadd-results/**/calexp-*.fits")):
        if "HSC-G" not in str(path):
            continue
        copy = other / path.relative_to(survey)
        copy.parent.mkdir(parents=True)
        shutil.copy(path, copy)
        with fits.open(copy, mode="update") as file:
            file[1].data = 2.0 * file[1].data
    objects = pq.read_table(survey / "objects.parquet")
    ebv = np.linspace(0.0, 1.0, len(objects))
    column = pa.array(ebv, mask=np.arange(len(ebv)) == 5)
    objects = objects.append_column("ebv_sfd", column).append_column("name", pa.array(["x"] * len(ebv)))
    pq.write_table(objects, other / "objects.parquet")
    return survey, other


@pytest.fixture
def written(two_surveys, tmp_path):
    survey, other = two_surveys
    hashes = [save_toy(tmp_path / "first.pt", 0.0), save_toy(tmp_path / "second.pt", 0.5)]
    path = tmp_path / "run.toml"
    path.write_text(RUN_TOML.format(survey=survey, other=other, objects=other / "objects.parquet"))
    return path, hashes


def refused(run_toml, *replaced):
    text = run_toml.read_text()
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    changed = run_toml.with_name("changed.toml")
    changed.write_text(text)
    parsed = config.read_config(changed)
    with pytest.raises(errors.UsageError) as error:
        execution.read_progress(parsed, execution.prepare(parsed))
    return str(error.value)


def test_two_surveys_a_column_and_two_bundles(written, client):
    run_toml, hashes = written
    parsed = config.read_config(run_toml)
    plan = execution.prepare(parsed)
    result = execution.execute(parsed, plan, client)
    assert result.failed == {}
    found = catalog.read_catalog(parsed.catalog.path).to_pandas().set_index("object_id").sort_index()
    listed = pq.read_table(parsed.objects.path).to_pandas().set_index("object_id").sort_index()
    assert "ebv_sfd" not in found.columns
    lacking = listed.ebv_sfd.isna()
    assert lacking.sum() == 1
    flags = found.toy_flags[lacking].iloc[0]
    assert flags & ModelFlag.MISSING_PIXELS
    assert np.isnan(found.toy_ebv_q500[lacking]).all()
    assert found.toy_passes[lacking].iloc[0] == 0
    good = ~lacking & found.toy_ebv_q500.notna()
    assert good.sum() > 100
    # The mean of the two bundles' means: each column, 0.5 apart.
    np.testing.assert_allclose(found.toy_ebv_q500[good], listed.ebv_sfd[good] + 0.25, atol=1e-5)
    bright = found.toy_hsc_njy_mean[good] - 0.25
    np.testing.assert_allclose(found.toy_des_njy_mean[good] - 0.25, 2.0 * bright, rtol=1e-4, atol=1e-2)
    width = np.exp(-1.0)
    np.testing.assert_allclose(found.toy_hsc_njy_epistemic_std[good], 0.25, rtol=1e-3)
    np.testing.assert_allclose(found.toy_ebv_std[good], np.hypot(2 * width, 0.25), rtol=1e-3)
    footer = catalog.read_footer(parsed.catalog.path, plan.partitions[0].partition)
    assert json.loads(footer["bundles"]) == {"toy": ", ".join(hashes)}
    properties = (Path(parsed.catalog.path) / "hats.properties").read_text()
    assert f"galbatch_bundle_toy={', '.join(hashes)}" in properties
    # What was not applied, or from another column, or by one bundle alone, is another catalog.
    message = refused(
        run_toml, ('auxiliary_inputs = ["ebv_sfd"]', 'auxiliary_inputs = ["ebv_sfd"]\ncalibrated = false')
    )
    assert "calibration of toy applied, applied; this run uses not applied, not applied" in message
    message = refused(run_toml, ("ebv_sfd", "z_best"))
    assert "auxiliary inputs of toy ebv_sfd; this run uses z_best" in message
    assert "columns fed" in message
    message = refused(run_toml, ('["first.pt", "second.pt"]', '"first.pt"'))
    assert f"bundle toy {hashes[0][:12]}.., {hashes[1][:12]}..; this run uses {hashes[0][:12]}.." in message


def test_changed_numbers_of_a_column_ask_for_new_results_and_no_new_cutouts(written, tmp_path):
    run_toml, _ = written
    parsed = config.read_config(run_toml)
    before = execution.prepare(parsed).partitions[0]
    table = pq.read_table(parsed.objects.path)
    index = table.column_names.index("ebv_sfd")
    pq.write_table(table.set_column(index, "ebv_sfd", pa.array(np.ones(len(table)))), tmp_path / "o.parquet")
    objects = parsed.objects.model_copy(update={"path": str(tmp_path / "o.parquet")})
    after = execution.prepare(parsed.model_copy(update={"objects": objects})).partitions[0]
    assert after.ingest.digest == before.ingest.digest
    assert after.leaf.digest != before.leaf.digest


def test_a_check_of_the_list_says_what_a_plan_says(written, write_hats, tmp_path):
    """Of a file and of a HATS catalog: where, auxiliary inputs, the network's selection; columns that are missing are refused alike."""
    run_toml, _ = written
    objects = config.read_config(run_toml).objects
    (tmp_path / "hats").mkdir()
    table = pq.read_table(objects.path)
    hats = write_hats(tmp_path / "hats", table, max_rows=20)
    middle, where = np.median(table["ra_deg"]), f"object_id > {np.sort(table['object_id'])[2]}"
    text = run_toml.read_text().replace('bundle = ["f', f'where = "ra_deg > {middle}"\nbundle = ["f')
    text = text.replace("[objects]\n", f'[objects]\nwhere = "{where}"\n')
    runner = CliRunner()
    for path in (objects.path, hats):
        run_toml.write_text(text.replace(objects.path, str(path)))
        plan = execution.prepare(config.read_config(run_toml))
        checked = runner.invoke(app, ["objects", "check", str(run_toml)])
        assert checked.exit_code == 0, checked.exception
        lines = checked.stdout.splitlines()
        listed = plan.objects.source.listed
        assert lines[0].startswith(f"{path}: {listed.n_listed} rows, ")
        assert lines[1] == f"  {listed.n_chosen} of them where {where}"
        assert f"network toy: {plan.models[0].n_selected} of the objects" in lines
        assert 0 < plan.models[0].n_selected <= listed.n_chosen < listed.n_listed
        assert any(
            line.startswith(f"  ebv_sfd: 1 of {listed.n_chosen} rows hold no number") for line in lines
        )
        run_toml.write_text(text.replace(objects.path, str(path)).replace("ebv_sfd", "ebv_sdf"))
        for command in (["objects", "check"], ["plan"]):
            found = runner.invoke(app, [*command, str(run_toml)]).exception
            assert "no column ebv_sdf; the nearest is ebv_sfd" in str(found)


def test_bad_columns_and_ensembles_are_refused_before_anything_starts(written, tmp_path):
    run_toml, _ = written
    assert tomllib.loads(run_toml.read_text())["models"][0]["bundle"] == ["first.pt", "second.pt"]
    assert "no column ebv_sdf; the nearest is ebv_sfd" in refused(run_toml, ("ebv_sfd", "ebv_sdf"))
    assert "no column ebv; the nearest is ebv_sfd" in refused(
        run_toml, ('auxiliary_inputs = ["ebv_sfd"]\n', "")
    )
    message = refused(run_toml, ("ebv_sfd", "name"))
    assert "column name holds string, expected numbers, as a network's auxiliary input" in message
    message = refused(run_toml, ('["ebv_sfd"]', '["ebv_sfd", "z_best"]'))
    assert "[[models]] toy: auxiliary_inputs names 2 columns, the bundle takes 1 (ebv)" in message
    save_toy(tmp_path / "second.pt", 0.5, input=OTHER_INPUT)
    done = subprocess.run(
        [sys.executable, "-m", "galbatch", "run", str(run_toml)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 2, done.stderr
    assert "[[models]] toy: the bundles toy 1 and toy 1 cannot be pooled" in " ".join(done.stderr.split())
    assert "bands: des_g, hsc_g against hsc_g, des_g; auxiliary inputs: ebv mag against ebv" in " ".join(
        done.stderr.split()
    )
    assert not (tmp_path / "catalog").exists()
    save_toy(tmp_path / "second.pt", 0.5, calibration=None)
    message = refused(
        run_toml, ('auxiliary_inputs = ["ebv_sfd"]', 'auxiliary_inputs = ["ebv_sfd"]\ncalibrated = true')
    )
    assert "calibrated = true, but the bundle holds no inflation factors" in message

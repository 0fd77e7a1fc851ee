"""The same commands on real survey pixels, with the configs in examples/."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from galbatch import catalog
from galbatch.core.flags import ModelFlag, PixelFlag

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name, folder, data):
    """Run an example's config on copies of real files; returns the catalog as a frame."""
    shutil.copy(EXAMPLES / name / "run.toml", folder / "run.toml")
    (folder / "data").mkdir()
    for path in data:
        shutil.copy(path, folder / "data" / path.name)
    command = [sys.executable, "-m", "galbatch", "run", str(folder / "run.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert catalog.verify(str(folder / "catalog")) == []
    return catalog.read_catalog(str(folder / "catalog")).to_pandas().set_index("object_id")


def has(frame, column, bit):
    return (frame[column].to_numpy() & int(bit)) != 0


@pytest.mark.slow
def test_decals(realdata, tmp_path):
    frame = run_example("decals_dr9", tmp_path, (realdata / "decals_dr9").iterdir())
    sources = pd.read_csv(realdata / "decals_dr9" / "sources.csv").set_index("object_id").loc[frame.index]
    assert len(frame) == 24
    assert has(frame, "flags", PixelFlag.RESAMPLED).all()
    # The cutout reaches 96 / 2 * 0.168 / 0.262 = 30.8 px from its center; the image is 256 px wide.
    margin = np.min([sources["x_px"], 255 - sources["x_px"], sources["y_px"], 255 - sources["y_px"]], axis=0)
    partial = has(frame, "flags", PixelFlag.PARTIAL_COVERAGE)
    assert partial[margin < 28].all()
    assert not partial[margin > 34].any()
    assert 3 <= partial.sum() <= 21
    # Most sources are fainter than anything the demo networks were trained on, and have neighbors, which these have never seen.
    for name in ("gampen", "sfnet"):
        has_value = frame[f"{name}_passes"] > 0
        assert has_value.sum() >= 18
        assert has(frame[has_value], f"{name}_flags", ModelFlag.OUT_OF_DOMAIN).mean() > 0.7
        no_value = frame.filter(regex=f"^{name}_.*_q500$").isna().any(axis=1)
        assert (frame.loc[no_value, f"{name}_flags"] != 0).all()
    # The cut is right: a brighter source of the list is brighter to the network, whatever else it makes of it.
    inside = ~partial & frame["gampen_flux_njy_q500"].notna().to_numpy()
    rank = frame.loc[inside, ["flux", "gampen_flux_njy_q500"]].corr("spearman").iloc[0, 1]
    assert rank > 0.5


@pytest.mark.slow
def test_hsc_stamps(realdata, tmp_path):
    folder = realdata / "hsc_pdr2_stamps"
    frame = run_example("hsc_pdr2_stamps", tmp_path, folder.iterdir())
    listed = pd.read_csv(folder / "star_cat_correct.csv")["# object_id"]
    assert sorted(frame.index) == sorted(listed)
    assert frame.index.dtype == np.int64
    assert has(frame, "flags", PixelFlag.PARTIAL_COVERAGE).all()
    assert not has(frame, "flags", PixelFlag.OUTSIDE_FOOTPRINT).any()
    assert not has(frame, "flags", PixelFlag.RESAMPLED).any()
    assert has(frame, "gampen_flags", ModelFlag.MISSING_PIXELS).all()


@pytest.mark.parametrize("example", sorted(path.parent.name for path in EXAMPLES.glob("*/run.toml")))
def test_every_example_parses(example):
    from galbatch.config import read_config

    assert read_config(EXAMPLES / example / "run.toml").models

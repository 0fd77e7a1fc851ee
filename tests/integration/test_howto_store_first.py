"""The page about a store before a network is true: its configs are valid, and its commands go the whole way."""

import numpy as np
import pytest

from galbatch import config, open_catalog
from tests.integration import pages

PAGE = "store_first.md"


def test_the_configs_are_valid(tmp_path):
    store, _, models = pages.blocks(PAGE, "toml")
    (tmp_path / "store.toml").write_text(store)
    stated = config.read_config(tmp_path / "store.toml")
    assert stated.models == ()
    assert [grid.grid.label for grid in stated.cutouts.stated_grids] == ["32px_0.168arcsec"]
    (tmp_path / "run.toml").write_text(store + models)
    assert config.read_config(tmp_path / "run.toml").models[0].name == "photoz"


@pytest.mark.slow
def test_the_page_is_followed(tmp_path):
    make, _ = pages.blocks(PAGE, "python")
    store, train, models = pages.blocks(PAGE, "toml")
    local = pages.on_free_ports(store)
    files = {"make.py": make, "store.toml": local, "train.toml": train, "run.toml": local + models}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    said = {line: pages.call(line, tmp_path) for line in ["python make.py", *pages.commands(PAGE)]}
    assert "cutouts 32px_0.168arcsec  800 in g r i z y" in said["galbatch plan store.toml"]
    # Nothing was cut again for the network.
    assert "ingest: 800 of 800 objects were done before" in said["galbatch run run.toml"]
    table = open_catalog(tmp_path / "catalog").table(["specz_redshift", "photoz_specz_redshift_q500"])
    error = np.asarray(table["photoz_specz_redshift_q500"]) - np.asarray(table["specz_redshift"])
    assert len(error) == 800
    # Redshifts of 0.1 to 1.5 have a standard deviation of 0.4; the network has seen that farther galaxies are redder.
    assert np.sqrt(np.mean(error**2)) < 0.25

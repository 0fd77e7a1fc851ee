"""Pages of the documentation are true: their files, commands and Python are carried out on simulated stand-ins."""

import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from galbatch import open_catalog
from tests import snippets

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder in which `galbatch demo --objects 300` has run."""
    folder = tmp_path_factory.mktemp("demo")
    snippets.call("galbatch demo --objects 300", folder, None)
    return folder / "demo"


@pytest.mark.parametrize(
    ("page", "catalog", "n_good"),
    [
        ("hsc_pdr3", "hsc_laptop_catalog", 30),
        ("resuming", "catalog", 30),
        # The network is of HSC's pixels and sky: on others' most of its values are flagged, as they should be.
        ("lsst_dp1", "lsst_laptop_catalog", 0),
        ("legacy_surveys", "dr10_catalog", 0),
    ],
)
def test_a_run_of_a_survey(tmp_path, page, catalog, n_good):
    snippets.follow(f"docs/howto/{page}.md", tmp_path)
    made = open_catalog(tmp_path / catalog)
    # The simulated list has some objects more than it was asked for: outside of the footprint, and duplicates.
    assert 60 <= len(made) <= 70
    assert len(made.good("gampen")) >= n_good
    assert len(made.where("gampen_re_arcsec_q500 > 0")) > 50


def made_up(n=600):
    """Ids, and positions within a degree."""
    rng = np.random.default_rng(1)
    place = {"ra_deg": 10 + rng.random(n), "dec_deg": 5 + rng.random(n)}
    return rng, {"object_id": np.arange(n)}, place


def follows(catalog, column, ids, truth):
    """The correlation of a column of a catalog with the truth of its objects."""
    table = open_catalog(catalog).table(["object_id", column])
    assert sorted(table["object_id"]) == ids.tolist()
    return np.corrcoef(np.asarray(table[column]), truth[np.asarray(table["object_id"])])[0, 1]


def test_ages_of_stars(tmp_path):
    rng, ids, place = made_up()
    age, color = rng.uniform(1.5, 4, 600), rng.uniform(0.5, 2.5, 600)
    period = 0.4 * (age - 2) + 0.3 * color + rng.normal(0, 0.05, 600)
    stars = pa.table({**ids, **place, "log_age": age, "log_period": period, "bp_rp": color})
    pq.write_table(stars, tmp_path / "stars.parquet")
    snippets.follow("docs/howto/systems/chronoflow.md", tmp_path)
    # A scatter of 0.05 in the period is one of 0.125 in the age, whose own is 0.72.
    assert follows(tmp_path / "catalog", "ages_log_age_q500", ids["object_id"], age) > 0.9


def test_summaries_of_spectra(tmp_path):
    rng, ids, place = made_up()
    vectors = rng.normal(size=(600, 64)).astype(np.float32)
    mag_w1 = 18 + 0.3 * vectors[:, :4].sum(axis=1)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 64)
    pq.write_table(pa.table({**ids, "mag_w1": mag_w1}), tmp_path / "wise.parquet")
    pq.write_table(pa.table({**ids, **place, "spectrum": lists}), tmp_path / "spectra.parquet")
    snippets.follow("docs/howto/systems/spectra.md", tmp_path)
    # Most of the objects were trained on; of the others 400 labels teach less.
    assert follows(tmp_path / "catalog", "wise_mag_w1_q500", ids["object_id"], mag_w1) > 0.8


def test_object_stores(tmp_path, s3):
    bucket = s3.removeprefix("s3://")
    snippets.follow("docs/howto/object_stores.md", tmp_path, BUCKET=bucket)
    assert 40 <= len(open_catalog(f"{s3}/catalog")) <= 50


def test_quality_cuts(tmp_path):
    n_good, n_all, n_used, n_rows, n_sharp = map(
        int, snippets.follow("docs/howto/quality_cuts.md", tmp_path)[-1].replace("of", "").split()
    )
    assert n_all == n_rows > 300
    assert n_sharp < n_good < n_used < n_all


def test_getting_started(tmp_path):
    *_, shown, said = snippets.follow("docs/getting_started.md", tmp_path)
    assert "46112100000000007" in shown
    assert "objects" in said


@pytest.fixture
def readers(demo, tmp_path):
    """A copy of the demo's outputs, with the tables that the pages on reading compare with."""
    for name in ("run.toml", "catalog", "cutouts.zarr", "catalog_pass_outputs.zarr", "survey"):
        copy = shutil.copytree if (demo / name).is_dir() else shutil.copy
        copy(demo / name, tmp_path / name)
    # The README's first figure is of the demo's own folder.
    (tmp_path / "demo").symlink_to(demo)
    truth = pd.read_parquet(demo / "survey" / "truth.parquet")
    truth.to_parquet(tmp_path / "truth.parquet")
    published = truth[["ra_deg", "dec_deg", "re_arcsec", "mag_g"]].rename(columns={"mag_g": "mag"})
    Table.from_pandas(published).write(tmp_path / "published.fits")
    return tmp_path


READING = ["collection", "columns", "comparison", "draws", "python", "store"]


@pytest.mark.parametrize("page", ["README.md", *(f"docs/reference/{name}.md" for name in READING)])
def test_reading(readers, page):
    snippets.follow(page, readers)


def test_no_page_is_said_to_be_run_that_is_not():
    """Those of `there` and the priors are carried out by tests of their own: test_howto*.py, and test_whose_prior."""
    here = ["hsc_pdr3", "lsst_dp1", "legacy_surveys", "resuming", "object_stores", "quality_cuts"]
    here += ["systems/chronoflow", "systems/spectra"]
    there = ["frozen_encoder", "slurm", "store_first", "transfer"]
    names = {"README.md", "docs/getting_started.md", "docs/reference/priors.md"}
    names |= {f"docs/howto/{name}.md" for name in here + there} | {f"docs/reference/{n}.md" for n in READING}
    assert names == set(snippets.RUN)


def test_whose_prior(tmp_path):
    """The worked example gives back what was put in; stacked medians do not."""
    page = "docs/reference/priors.md"
    (script,) = [block.text for block in snippets.blocks_of(page) if block.language == "python"]
    (tmp_path / "page.py").write_text(script + "\nprint(*stacked, *reweighted)\n")
    found = np.array(snippets.call("python page.py", tmp_path, None).split(), dtype=float)
    assert np.abs(found - [0.62, 0.33, 0.50, 0.25]).max() < 0.03

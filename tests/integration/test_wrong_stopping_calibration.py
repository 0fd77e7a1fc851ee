"""A stopping calibration that does not fit the objects of a run: how a user hears of it, from the command line."""

import html
import re

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from galbatch import catalog
from galbatch.cli.app import app
from galbatch.models import BundleMetadata, HeadInfo, InputInfo, ParameterInfo, save_bundle
from galbatch.models.networks import is_audited, keyed_dropout

# A dozen commands, four of which are runs.
pytestmark = pytest.mark.slow

SEED = 5
N_GALAXIES, N_FEW, N_SKY = 122, 25, 80
RATE = 0.03
DOUBT = r"Monte Carlo errors are (\d\.\d\d) times those stated \((\d+) audited objects\): objects stopped too early"
RATIO = "actual over stated"

RUN_TOML = """
[survey]
layout = "hsc"
tiles = "{survey}/deepCoadd-results/**/calexp-*.fits"
bands = ["r"]
[objects]
path = "{objects}"
[cutouts]
store = "{objects}.zarr"
[[models]]
name = "net"
bundle = "{bundle}"
[posterior]
tolerance = 0.1
seed = {seed}
[catalog]
path = "{folder}/catalog"
"""

METADATA = BundleMetadata(
    name="jumpy",
    version="1",
    architecture="jumpy",
    input=InputInfo(("r",), 16, 0.168, "nJy", 31.4),
    head=HeadInfo("gaussian"),
    parameters=(ParameterInfo("size", "", "natural logarithm of the size", "identity"),),
    dropout_rate=RATE,
)


class Jumpy(torch.nn.Module):
    """Means that scatter by 0.08 over the passes, and where there is light are off by 2 in 3 % of them; widths of 1."""

    def forward(self, images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return self.sample(self.prefix(images), keys)

    @torch.jit.export
    def prefix(self, images: torch.Tensor) -> torch.Tensor:
        return (images.sum(dim=(1, 2, 3)) > 5e4)[:, None].float()

    @torch.jit.export
    def sample(self, features: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        scatter = keyed_dropout(torch.ones(features.shape[0], 16), keys, 1, 0.3).mean(dim=1, keepdim=True)
        is_off = (keyed_dropout(torch.ones(features.shape[0], 1), keys, 2, 0.03) == 0.0).float()
        return torch.cat([0.5 * scatter + 2.0 * features * is_off, torch.zeros_like(features)], dim=1)


def empty_places(truth: pd.DataFrame) -> pd.DataFrame:
    """Return the places of a lattice in the survey's area that are farthest from any galaxy."""
    names = ["ra_deg", "dec_deg"]
    low, high = truth[names].min(), truth[names].max()
    axes = (np.linspace(low[name], high[name], 60) for name in names)
    places = np.stack([axis.ravel() for axis in np.meshgrid(*axes)], axis=1)
    apart = np.linalg.norm(places[:, None] - truth[names].to_numpy()[None], axis=2).min(axis=1)
    chosen = places[np.argsort(-apart)[:N_SKY]]
    return pd.DataFrame(chosen, columns=names).assign(object_id=np.arange(N_SKY))


def galbatch(*words) -> Result:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def lists(survey, tmp_path_factory):
    """Tables of objects: galaxies that are all audited, galaxies of which few are, and places of empty sky."""
    folder = tmp_path_factory.mktemp("lists")
    galaxies = pd.read_parquet(survey / "objects.parquet").head(N_GALAXIES)
    # As many audited objects as a list has that is a thousand times as long.
    ids = np.arange(2000 * N_GALAXIES)
    audited = is_audited(ids, seed=SEED)
    galaxies["object_id"] = ids[audited][:N_GALAXIES]
    galaxies.to_parquet(folder / "audited.parquet")
    galaxies.loc[galaxies.index[N_FEW:], "object_id"] = ids[~audited][: N_GALAXIES - N_FEW]
    galaxies.to_parquet(folder / "few.parquet")
    empty_places(pd.read_parquet(survey / "truth.parquet")).to_parquet(folder / "sky.parquet")
    return folder


@pytest.fixture(scope="module")
def run(survey, lists, client, tmp_path_factory):
    """Run a list with a bundle; return the path of the catalog and what the run printed."""

    def run_list(name, bundle, *options):
        folder = tmp_path_factory.mktemp(name)
        objects = lists / f"{name}.parquet"
        text = RUN_TOML.format(survey=survey, objects=objects, bundle=bundle, seed=SEED, folder=folder)
        (folder / "run.toml").write_text(text)
        done = galbatch("run", folder / "run.toml", "--scheduler", client.scheduler.address, *options)
        return folder / "catalog", done

    return run_list


@pytest.fixture(scope="module")
def calibrated(run, lists):
    """The network, calibrated on the cutouts of one of the lists."""
    save_bundle(str(lists / "jumpy.pt"), torch.jit.script(Jumpy().eval()), METADATA)

    def calibrate_on(name):
        run(name, lists / "jumpy.pt", "--stage", "ingest")
        bundle = lists / f"of_{name}.pt"
        store = lists / f"{name}.parquet.zarr"
        galbatch("models", "calibrate", lists / "jumpy.pt", "--stopping-only", "--store", store, "-o", bundle)
        return bundle

    return calibrate_on


@pytest.fixture(scope="module")
def of_sky(calibrated):
    return calibrated("sky")


def said_of(path, ran):
    """What is said of a catalog's audit: in its properties, on stderr by the run and by verify, and in texts that users make of it."""
    properties = catalog.read_properties(str(path))
    verified = galbatch("verify", path)
    galbatch("report", path, "-o", path.parent / "report.html")
    return {
        "audit": properties["galbatch_audit_net"],
        "doubt": properties.get("galbatch_doubt_net", ""),
        "run": ran.stderr,
        "verify": verified.stderr,
        "verify's audit": verified.stdout,
        "report": html.unescape((path.parent / "report.html").read_text()),
    }


def test_errors_larger_than_stated_are_told_everywhere(run, of_sky):
    said = said_of(*run("audited", of_sky))
    ratio, n_audited = re.match(DOUBT, said["doubt"]).groups()
    assert float(ratio) > 1.3
    assert int(n_audited) >= 100
    for where in ("run", "verify"):
        assert f"net: {said['doubt']}\n" in said[where]
    assert said["doubt"] in said["report"]
    for where in ("audit", "verify's audit", "report"):
        assert f"{RATIO} {ratio}" in said[where]


def test_a_calibration_of_the_objects_themselves_is_not_doubted(run, calibrated):
    said = said_of(*run("audited", calibrated("audited")))
    n_objects, n_not_converged = map(int, re.match(r"(\d+) objects, (\d+) not", said["audit"]).groups())
    assert n_objects - n_not_converged >= 100
    assert 0.8 < float(re.search(rf"{RATIO} (\d\.\d\d)", said["audit"])[1]) <= 1.2
    for where, text in said.items():
        assert "times those stated" not in text, where
    assert said["doubt"] == ""


def test_of_few_audited_objects_no_figure_is_shown(run, of_sky):
    said = said_of(*run("few", of_sky))
    assert said["audit"].startswith(f"{N_FEW} objects, ")
    for where, text in said.items():
        assert RATIO not in text, where
        assert "times those stated" not in text, where

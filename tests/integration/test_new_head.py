"""A new kind of head, registered here: trained, stored, run, drawn from and reported without any other change."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
from distributed import Client
from scipy.stats import laplace

from galbatch import catalog, config, execution
from galbatch.api import Request, draw
from galbatch.errors import BundleError, ConfigError
from galbatch.models import (
    HEADS,
    HeadInfo,
    ParameterInfo,
    TrainingSettings,
    card_text,
    load_bundle,
    parse_settings,
    save_bundle,
    script_of,
    train,
)
from galbatch.models.heads import Head, head_problems, read_metadata, std_of
from galbatch.models.metadata import write_metadata
from galbatch.models.networks import uniform_draws
from galbatch.models.posterior import for_passes, inflation_map, solve_quantiles, total_covariance
from galbatch.reporting import write_report

SIZE_PX = 32
LEVELS = {"q02275": 0.02275, "q15865": 0.15865, "q500": 0.5, "q84135": 0.84135, "q97725": 0.97725}
PARAMETERS = (
    ParameterInfo("log_flux", "", "log10 of the total flux in nJy", "identity"),
    ParameterInfo("width_px", "pix", "width", "identity"),
)
NODES, WEIGHTS = np.polynomial.laguerre.laggauss(24)
RUN_TOML = """
[survey]
layout = "hsc"
tiles = "{survey}/deepCoadd-results/**/calexp-*.fits"
bands = ["g", "r"]
[objects]
path = "{survey}/objects.parquet"
[[models]]
name = "toy"
bundle = "laplace.pt"
[posterior]
passes = 4
keep_pass_outputs = true
"""


class Laplace(Head):
    """n centers, then n log b: the density of each parameter falls as exp(-|x - center| / b)."""

    kind = "laplace"
    text = "a Laplace distribution of each parameter a pass"
    is_point = False
    options = ()

    def n_outputs(self, info, n_parameters):
        return 2 * n_parameters

    def problems(self, info, parameters):
        # exp(x) of a tail that falls as exp(-|x| / b) has no mean from b = 1 on.
        return [
            f"{parameter.name}: {parameter.transform} of a Laplace distribution may have no mean; state its limits"
            for parameter in parameters
            if parameter.transform in ("ln", "log10") and parameter.limits is None
        ]

    def card_text(self, info):
        return self.text

    def read(self, outputs, info, *, parameters, n_members):
        n = len(parameters)
        return LaplacePasses(outputs[..., :n], std_of(outputs[..., n:]), n_members)

    def loss(self, info, parameters):
        n = len(parameters)

        def negative_log_likelihood(outputs, target):
            log_b = outputs[:, n:]
            return ((outputs[:, :n] - target).abs() * (-log_b).exp() + log_b).sum(dim=1).mean()

        return negative_log_likelihood


@dataclass(frozen=True)
class LaplacePasses:
    mean: np.ndarray  # (object, pass, parameter)
    b: np.ndarray
    n_members: int = 1

    is_point = False

    def marginal(self, index):
        return LaplaceMarginal(self.mean[..., index], self.b[..., index], self.n_members)

    def within(self):
        return 2.0 * np.square(self.b).mean(axis=1)[..., None] * np.eye(self.b.shape[2])

    def covariance(self):
        return total_covariance(self)

    def draws(self, keys):
        return laplace.ppf(uniform_draws(keys, self.b.shape[2]), self.mean, self.b)

    def affine(self, scale, shift):
        return dataclasses.replace(self, mean=self.mean * scale + for_passes(shift), b=self.b * scale)

    def inflated(self, factors):
        return self.affine(*inflation_map(self, factors))


@dataclass(frozen=True)
class LaplaceMarginal:
    mean: np.ndarray  # (object, pass)
    b: np.ndarray
    n_members: int = 1

    is_smooth = True

    @property
    def std(self):
        return np.sqrt(2.0) * self.b

    @property
    def min_sigma(self):
        return self.std.min(axis=1)

    @property
    def max_sigma(self):
        return self.std.max(axis=1)

    def cdf(self, x):
        return laplace.cdf(x[:, None], self.mean[..., None], self.b[..., None])

    def _densities(self, x):
        return laplace.pdf(x[:, None], self.mean[..., None], self.b[..., None])

    def density(self, x):
        return self._densities(x).mean(axis=1)

    def cdf_pdf_slope(self, x):
        pdf = self._densities(x)
        slope = -np.sign(x[:, None] - self.mean[..., None]) * pdf / self.b[..., None]
        return self.cdf(x).mean(axis=1), pdf.mean(axis=1), slope.mean(axis=1)

    def quantiles(self, levels):
        return solve_quantiles(self, levels)

    def bracket(self, levels):
        each = laplace.ppf(levels, self.mean[..., None], self.b[..., None])
        return each.min(axis=1), each.max(axis=1)

    def moments(self, function, n_points, limits=(-np.inf, np.inf)):
        offset = np.concatenate([-NODES, NODES])
        values = function(self.mean[..., None] + self.b[..., None] * offset)
        weights = 0.5 * np.concatenate([WEIGHTS, WEIGHTS])
        mean = values @ weights
        return mean, np.square(values - mean[..., None]) @ weights

    def component_range(self):
        return self.mean.min(axis=1), self.mean.max(axis=1)

    def mode_grid(self, ends):
        grid = np.concatenate([np.linspace(ends[:, 0], ends[:, 1], 65, axis=1), self.mean], axis=1)
        return np.sort(np.clip(grid, ends[:, :1], ends[:, 1:]), axis=1)

    def numbers_per_pass(self, n_points):
        return max(n_points, len(NODES))

    def rows(self, index):
        return LaplaceMarginal(self.mean[index], self.b[index], self.n_members)


@pytest.fixture
def laplace_head(monkeypatch):
    monkeypatch.setitem(HEADS, "laplace", Laplace())


def settings_with(**changes):
    return TrainingSettings(
        name="toy", architecture="sfnet", bands=("g",), parameters=PARAMETERS, head="laplace", width=1 / 8,
        optimizer="adam", learning_rate=1e-3, epochs=3, batch=32, seed=3, **changes,
    )  # fmt: skip


def write_bundle(path):
    rng = np.random.default_rng(1)
    log_flux, width = rng.uniform(3, 6, 400), rng.uniform(1.5, 4.0, 400)
    offset = np.arange(SIZE_PX) - SIZE_PX // 2
    shape = np.exp(-0.5 * (offset[:, None] ** 2 + offset[None, :] ** 2) / width[:, None, None] ** 2)
    light = 10.0 ** log_flux[:, None, None] * shape / shape.sum(axis=(1, 2), keepdims=True)
    images = (light + rng.normal(0, 2.0, light.shape))[:, None].astype(np.float32)
    trained = train(images, np.stack([log_flux, width], axis=1), settings=settings_with())
    losses = [epoch.validation_loss for epoch in trained.history]
    assert losses[-1] < losses[0]
    save_bundle(str(path), script_of(trained.network), trained.metadata)


def test_from_training_to_the_report(laplace_head, survey, tmp_path):
    write_bundle(tmp_path / "laplace.pt")
    bundle = load_bundle(str(tmp_path / "laplace.pt"))
    assert "- output: a Laplace distribution of each parameter a pass; 4 numbers" in card_text(
        bundle.metadata, bundle.sha256
    )
    (tmp_path / "run.toml").write_text(RUN_TOML.format(survey=survey))
    parsed = config.read_config(tmp_path / "run.toml")
    # In this process, where the head is registered.
    with Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as client:
        assert execution.execute(parsed, execution.prepare(parsed), client).complete
    found = catalog.read_catalog(parsed.catalog.path).to_pandas()
    good = found[found["toy_width_px_q500"].notna()]
    assert len(good) > 100
    # Without dropout all passes are one distribution, whose quantiles are known.
    b = good["toy_width_px_std"].to_numpy() / np.sqrt(2.0)
    for name, level in LEVELS.items():
        expected = good["toy_width_px_mean"] + laplace.ppf(level) * b
        np.testing.assert_allclose(good[f"toy_width_px_{name}"], expected, rtol=1e-4)
    np.testing.assert_allclose(good["toy_width_px_mode"], good["toy_width_px_q500"], rtol=1e-3)
    row = good.iloc[0]
    (drawn,) = draw(parsed.catalog.path, [str(good["object_id"].iloc[0])], Request(4000))
    for name, level in LEVELS.items():
        share = (drawn.samples["width_px"] <= row[f"toy_width_px_{name}"]).mean()
        assert share == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 4000))
    write_report(parsed.catalog.path, str(tmp_path / "report.html"))
    assert f"toy: {len(good)} objects with values" in (tmp_path / "report.html").read_text()


def test_logarithms_need_limits(laplace_head):
    head, flux = HeadInfo("laplace"), ParameterInfo("flux_njy", "nJy", "", "ln")
    (problem,) = head_problems(head, (flux, *PARAMETERS))
    assert (
        problem == "head laplace: flux_njy: ln of a Laplace distribution may have no mean; state its limits"
    )
    assert head_problems(head, (dataclasses.replace(flux, limits=(1.0, 1e9)), *PARAMETERS)) == []


def test_a_head_that_is_not_known_fails_by_name(laplace_head, monkeypatch):
    settings = dataclasses.asdict(settings_with())
    metadata = read_metadata(BUNDLE_JSON, "a.pt")
    text = write_metadata(metadata)
    monkeypatch.delitem(HEADS, "laplace")
    known = f"head laplace: not known; known are {', '.join(HEADS)}"
    for reading in (lambda: read_metadata(text, "a.pt"), lambda: card_text(metadata, "0" * 64)):
        with pytest.raises(BundleError, match=known):
            reading()
    with pytest.raises(ConfigError, match=f"head: {known}"):
        parse_settings(settings, source="toy.toml")


BUNDLE_JSON = """{
    "name": "toy", "version": "1", "architecture": "toy", "dropout_rate": 0.1, "head": {"kind": "laplace"},
    "input": {"bands": ["g"], "size_px": 32, "pixel_scale_arcsec": 0.168, "unit": "nJy", "zero_point_mag": 31.4},
    "parameters": [{"name": "width_px", "unit": "pix", "description": "width", "transform": "identity"}]
}"""

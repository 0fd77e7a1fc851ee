"""The second opinion, on made-up photometry and estimates whose relation is known."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from galbatch import models
from galbatch.models.heads import read_metadata
from galbatch.models.metadata import DISAGREEMENT_VERSION, ParameterInfo, PhotometryFit, write_metadata
from tests.unit.models.conftest import gampen_metadata

BANDS = ("g", "r")
FLUX = ParameterInfo("flux_njy", "nJy", "flux", "ln")
RADIUS = ParameterInfo("re_arcsec", "arcsec", "radius", "ln")
COLOR = ParameterInfo("color", "mag", "g - r", "identity")
BT = ParameterInfo("bt", "", "bulge to total", "identity")
PARAMETERS = (BT, FLUX, RADIUS, COLOR)
SCATTER = 0.05


def drawn(n: int, seed: int) -> dict[str, np.ndarray]:
    """Photometry of `n` objects, and a network whose estimates follow from it but for a scatter of `SCATTER`."""
    rng = np.random.default_rng(seed)
    flux_g, radius = np.exp(rng.normal(8, 1, n)), np.exp(rng.normal(0, 0.3, n))
    color, error = rng.normal(0.5, 0.2, n), np.full(n, 20.0)
    flux = {"g": flux_g, "r": flux_g * 10 ** (0.4 * color)}
    found = {
        "phot_axis_ratio": rng.uniform(0.3, 1, n),
        "net_flags": np.zeros(n, np.int32),
        "net_bt_q500": rng.uniform(0, 1, n),
        "net_bt_std": np.full(n, 0.1),
    }
    for band in BANDS:
        found |= {
            f"phot_flux_njy_{band}": flux[band],
            f"phot_flux_err_njy_{band}": error,
            f"phot_half_light_radius_arcsec_{band}": radius,
            f"phot_half_light_radius_err_arcsec_{band}": 0.01 * radius,
            f"phot_peak_njy_{band}": 0.02 * flux[band] / radius**2 * np.exp(rng.normal(0, 0.1, n)),
            f"phot_noise_njy_{band}": np.full(n, 1.0),
        }
    light = np.log(flux_g) + 0.1 - 0.02 * (np.log(radius)) ** 2
    estimates = {
        "flux_njy": (np.exp(light + error / flux_g * rng.normal(size=n) + noise(rng, n)), 0.03),
        "re_arcsec": (radius * 0.9 * np.exp(noise(rng, n)), 0.03),
    }
    for name, (value, std) in estimates.items():
        found |= {f"net_{name}_q500": value, f"net_{name}_std": std * value}
    found |= {"net_color_q500": color + noise(rng, n), "net_color_std": np.full(n, 0.03)}
    return {
        name: np.asarray(one, np.float32 if one.dtype.kind == "f" else None) for name, one in found.items()
    }


def noise(rng: np.random.Generator, n: int) -> np.ndarray:
    return SCATTER * rng.normal(size=n)


def judged(info, found, version=1, bands=BANDS):
    return models.disagreement(
        info, PARAMETERS, found, found, model="net", bands=bands, photometry_version=version
    )


@pytest.fixture(scope="module")
def info():
    found = drawn(2000, seed=1)
    fitted = models.fit_disagreement(
        PARAMETERS, found, found, model="net", bands=BANDS, photometry_version=1, data="made up"
    )
    assert fitted is not None
    return fitted


def test_fluxes_sizes_and_colors_are_compared_and_shapes_are_not(info):
    assert [fit.parameter for fit in info.fits] == ["flux_njy", "re_arcsec", "color"]
    assert info.n_objects == 2000


def test_fresh_objects_are_beyond_a_limit_as_often_as_it_says(info):
    off = judged(info, drawn(20_000, seed=2))
    # Limits from 2,000 objects: that of one in a hundred rests on twenty, so a rate is good to a third of it.
    for rate, found in ((0.1, 0.1), (0.05, 0.05), (0.01, 0.01)):
        assert np.mean(off > models.disagreement_limit(info, rate)) == pytest.approx(found, rel=0.35)


def test_a_disagreement_is_in_units_of_the_scatter(info):
    """Of one parameter it is that of a normal distribution: 4.55 percent are above two."""
    of_color = dataclasses.replace(info, fits=tuple(fit for fit in info.fits if fit.parameter == "color"))
    off = judged(of_color, drawn(20_000, seed=3))
    assert np.mean(off > 2) == pytest.approx(0.0455, rel=0.2)
    assert np.median(off) == pytest.approx(0.6745, rel=0.06)


@pytest.mark.parametrize("parameter", ["flux_njy", "re_arcsec", "color"])
def test_an_estimate_that_is_far_off_stands_out(info, parameter):
    found = drawn(500, seed=4)
    name = f"net_{parameter}_q500"
    found[name] = found[name] + 0.6 if parameter == "color" else found[name] * np.exp(0.6)
    # Ten times the scatter of one that depends on the photometry alone; posteriors and faint fluxes add to it.
    assert np.mean(judged(info, found) > models.disagreement_limit(info, 0.01)) > 0.95
    assert np.median(judged(info, found)) > 7


def test_a_wide_posterior_and_faint_light_count_for_less():
    found = drawn(4000, seed=5)
    rng, wide = np.random.default_rng(6), np.arange(4000) % 2 == 0
    value = np.log(found["net_flux_njy_q500"]) + np.where(wide, 0.5 * rng.normal(size=4000), 0)
    found["net_flux_njy_q500"] = np.exp(value).astype(np.float32)
    found["net_flux_njy_std"] = (np.where(wide, 0.5, 0.03) * found["net_flux_njy_q500"]).astype(np.float32)
    fitted = models.fit_disagreement((FLUX,), found, found, model="net", bands=BANDS, photometry_version=1)
    off = models.disagreement(fitted, (FLUX,), found, found, model="net", bands=BANDS, photometry_version=1)
    for half in (wide, ~wide):
        assert np.median(off[half]) == pytest.approx(0.6745, rel=0.3)


def test_what_is_unknown_is_nan(info):
    found = drawn(8, seed=7)
    found["phot_flux_njy_g"][0] = np.nan
    found["phot_flux_njy_r"][1] = -5.0
    found["net_flux_njy_q500"][2] = found["net_re_arcsec_q500"][2] = found["net_color_q500"][2] = np.nan
    found["net_flux_njy_q500"][3] = np.nan
    # Three parameters are known of the fourth object, so it has a disagreement.
    assert np.isnan(judged(info, found)).tolist() == [True, True, True, *[False] * 5]


def test_objects_that_either_does_not_know_are_not_fitted():
    found = drawn(400, seed=10)
    found["net_color_q500"][:10] = np.nan
    found["net_re_arcsec_std"][10:20] = np.nan
    found["phot_peak_njy_r"][20:30] = -1.0
    fitted = models.fit_disagreement(PARAMETERS, found, found, model="net", bands=BANDS, photometry_version=1)
    assert fitted.n_objects == 370
    assert np.isfinite(
        [number for fit in fitted.fits for number in (*fit.coefficients, *fit.variances)]
    ).all()


def test_beyond_the_calibration_the_fit_goes_on_along_a_line(info):
    """Fluxes of exp(20) times those fitted: with products that go on, too, half of the objects would be off by more than five."""
    found = drawn(500, seed=11)
    for name in found:
        if name.startswith(("phot_flux", "phot_peak", "phot_noise", "net_flux")):
            found[name] = found[name] * np.float32(np.exp(20.0))
    assert np.median(judged(info, found)) < 3


def test_other_photometry_is_not_compared(info):
    assert np.isnan(judged(info, drawn(8, seed=8), version=2)).all()
    other = dataclasses.replace(info, version=DISAGREEMENT_VERSION + 1)
    assert np.isnan(judged(other, drawn(8, seed=8))).all()


@pytest.mark.parametrize(("n", "parameters"), [(199, PARAMETERS), (300, (BT,))])
def test_too_few_objects_or_nothing_to_compare(n, parameters):
    found = drawn(n, seed=9)
    assert (
        models.fit_disagreement(parameters, found, found, model="net", bands=BANDS, photometry_version=1)
        is None
    )


def test_a_rate_between_two_is_interpolated_in_its_logarithm(info):
    at = dict(zip(info.rates, info.limits, strict=True))
    assert models.disagreement_limit(info, 0.02) == at[0.02]
    middle = models.disagreement_limit(info, float(np.sqrt(0.02 * 0.05)))
    assert middle == pytest.approx((at[0.02] + at[0.05]) / 2)
    assert models.disagreement_limit(info, 1e-6) == info.limits[-1]


def test_it_is_a_part_of_the_metadata(info):
    named = dataclasses.replace(
        info, fits=tuple(dataclasses.replace(fit, parameter="flux_njy") for fit in info.fits[:1])
    )
    metadata = gampen_metadata(
        input=dataclasses.replace(gampen_metadata().input, bands=BANDS), disagreement=named
    )
    read = read_metadata(write_metadata(metadata), "a bundle")
    assert read.disagreement == named
    assert "disagreement" not in json.loads(write_metadata(gampen_metadata()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fits": ()}, "needs a fit"),
        ({"limits": (1.0,)}, "rates must fall"),
        ({"scales": (0.0,) * 7}, "scales must be above 0"),
        ({"centers": (0.0,)}, "need 7 features for 2 bands"),
        (
            {"fits": (PhotometryFit("flux_njy", (1.0,) * 20, (1.0,) * 3),)},
            "needs 21 coefficients for 2 bands",
        ),
    ],
)
def test_contradictions_are_told(info, changes, message):
    problems = dataclasses.replace(info, **changes).problems(("flux_njy", "re_arcsec", "color"), len(BANDS))
    assert any(message in problem for problem in problems)


def test_it_is_of_parameters_that_the_bundle_has(info):
    assert info.problems(("flux_njy", "re_arcsec"), 2) == ["disagreement: is of unknown parameters: color"]
    assert not info.problems(("flux_njy", "re_arcsec", "color"), 2)


def test_it_is_of_as_many_bands_as_the_bundle_takes(info):
    named = ("flux_njy", "re_arcsec", "color")
    assert info.problems(named, 1) == [
        "disagreement: centers, scales, lowest and highest need 4 features for 1 bands",
        "disagreement: each fit needs 12 coefficients for 1 bands",
    ]
    # Fits of another version are not used, so their features are not looked at.
    assert not dataclasses.replace(info, version=DISAGREEMENT_VERSION + 1).problems(named, 1)

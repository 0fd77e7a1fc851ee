"""Joint draws of kept outputs: those of the posterior that the catalog summarizes."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

from galbatch.errors import BundleError
from galbatch.models import (
    CalibrationInfo,
    Ensemble,
    HeadInfo,
    OutputInfo,
    ParameterInfo,
    correlation_of,
    joint_draws,
)
from galbatch.models.heads import outputs_per_pass, pooled_passes, read_passes
from galbatch.models.posterior import quantities_of, summarize_draws, summarize_mixture, to_output

PARAMETERS = (
    ParameterInfo("bt", "", "", "logit", scale=1.5, limits=(1e-6, 1 - 1e-6)),
    ParameterInfo("re_arcsec", "arcsec", "", "ln", location=0.3, scale=0.25),
    ParameterInfo("flux_njy", "nJy", "", "ln", location=10.0, scale=0.25, magnitude="mag"),
)
EDGES = ((1e-3, 0.2, 0.5, 0.8, 0.999), (0.1, 0.5, 1.0, 2.0, 8.0), (1e3, 1e4, 3e4, 1e6))
HEADS = {
    "gaussian": HeadInfo("gaussian"),
    "mixture": HeadInfo("mixture", components=3),
    "binned": HeadInfo("binned", edges=EDGES),
    "point": HeadInfo("point"),
}
LEVELS = np.array([0.02275, 0.15865, 0.5, 0.84135, 0.97725])
N_PASSES = 60


@pytest.fixture
def make(gampen_metadata_like):
    """An `OutputInfo` with some outputs (pass, output) of its head."""

    def made(kind, *, members=1, factors=None, sha256="a" * 64, location=0.3, seed=1):
        changed = dataclasses.replace(PARAMETERS[1], location=location)
        metadata = dataclasses.replace(
            gampen_metadata_like,
            head=HEADS[kind],
            parameters=(PARAMETERS[0], changed, PARAMETERS[2]),
            members=members,
        )
        random = np.random.default_rng(seed)
        outputs = random.normal(0, 0.4, (N_PASSES, outputs_per_pass(metadata))).astype(np.float32)
        outputs[:, -1] += outputs[:, 0]  # so that parameters are correlated between passes
        return OutputInfo(metadata, sha256, factors), outputs

    return made


@pytest.fixture
def gampen_metadata_like():
    from galbatch.models import BundleMetadata, InputInfo

    return BundleMetadata(
        name="toy",
        version="1",
        architecture="toy",
        input=InputInfo(("g",), 48, 0.168, "nJy", 31.4),
        head=HEADS["gaussian"],
        parameters=PARAMETERS,
        dropout_rate=0.01,
    )


def one_kind(make, kind):
    info, outputs = make(kind)
    return [info], [outputs]


def ensemble(make, kind):
    """Two bundles, one of two members; each inflated, and of other standardized spaces."""
    first, second = (
        make(kind, factors=(1.3, 0.8, 1.1)),
        make(kind, members=2, factors=(0.9, 1.2, 1.0), sha256="b" * 64, location=0.5, seed=2),
    )
    return [first[0], second[0]], [first[1], second[1]]


@pytest.mark.parametrize("of", [one_kind, ensemble])
@pytest.mark.parametrize("kind", HEADS)
def test_draws_are_of_what_the_catalog_summarizes(make, kind, of):
    infos, outputs = of(make, kind)
    n_members = sum(info.metadata.members for info in infos)
    n = 40 * N_PASSES * n_members
    drawn = joint_draws(infos, outputs, object_id=7, seed=1, n_draws=n)
    passes = pooled_passes(infos, [numbers[None] for numbers in outputs])
    for quantity in quantities_of(infos[0].metadata.parameters):
        if kind == "point":
            summary = summarize_draws(passes.mean, quantity, LEVELS, passes=passes)
            tolerance = np.full(len(LEVELS), 1 / (N_PASSES * n_members))
        else:
            summary = summarize_mixture(passes, quantity, LEVELS)
            # Draws that take all passes evenly scatter less than independent ones.
            tolerance = 4 * np.sqrt(LEVELS * (1 - LEVELS) / n)
        below = (drawn[quantity.name][:, None] <= summary.quantiles[0]).mean(axis=0)
        assert (np.abs(below - LEVELS) <= tolerance).all(), (quantity.name, below)
        assert np.mean(drawn[quantity.name]) == pytest.approx(
            summary.mean[0], abs=5 * summary.std[0] / np.sqrt(n)
        )
        assert np.std(drawn[quantity.name]) == pytest.approx(summary.std[0], rel=0.1)
    standardized = [to_output(drawn[p.name], p) for p in infos[0].metadata.parameters]
    expected = correlation_of(passes.covariance())[0]
    assert np.abs(np.corrcoef(standardized) - expected).max() < 4 / np.sqrt(n)


def test_joint_draws_keep_the_order_of_the_parameters_together(make):
    info, outputs = make("gaussian")
    outputs[:, 6:] = np.float32(2.0)  # L: within a pass, too, the parameters go together
    drawn = joint_draws([info], [outputs], object_id=7, seed=1, n_draws=6000)
    assert spearmanr(drawn["bt"], drawn["flux_njy"]).statistic > 0.5
    # A magnitude falls with its flux, draw by draw.
    assert (drawn["mag"] == 31.4 - 2.5 * np.log10(drawn["flux_njy"])).all()


def test_the_first_draws_are_the_same_however_many_are_asked_for(make):
    infos, outputs = ensemble(make, "mixture")
    many, few = (joint_draws(infos, outputs, object_id=7, seed=1, n_draws=n) for n in (1000, 17))
    for name, values in few.items():
        assert len(values) == 17
        assert (values == many[name][:17]).all()


def test_draws_do_not_depend_on_how_many_are_drawn_together(make, monkeypatch):
    info, outputs = make("gaussian")
    together = joint_draws([info], [outputs], object_id=7, seed=1, n_draws=1000)
    monkeypatch.setattr("galbatch.models.heads.joint.NUMBERS_AT_ONCE", 1)
    apart = joint_draws([info], [outputs], object_id=7, seed=1, n_draws=1000)
    for name, values in together.items():
        assert (values == apart[name]).all()


@pytest.mark.parametrize("n_draws", [1, 59, 60, 61, 150])
def test_passes_are_used_evenly_in_an_order_of_chance(make, n_draws):
    info, outputs = make("point")
    drawn = joint_draws([info], [outputs], object_id=7, seed=1, n_draws=n_draws)["re_arcsec"]
    of_passes = np.exp(outputs[:, 1].astype(np.float64) * 0.25 + 0.3)
    which = np.abs(drawn[:, None] - of_passes).argmin(axis=1)
    counts = np.bincount(which, minlength=N_PASSES)
    assert counts.sum() == n_draws
    assert counts.max() - counts.min() <= 1
    assert n_draws == 1 or (np.diff(which) < 0).sum() > n_draws / 5


def test_seed_object_and_bundle_make_the_draws(make):
    info, outputs = make("gaussian")
    other_bundle = dataclasses.replace(info, sha256="c" * 64)

    def draws(info=info, **changes):
        asked = {"object_id": 7, "seed": 1, "n_draws": 60, **changes}
        return joint_draws([info], [outputs], **asked)["bt"]

    same = draws()
    assert (draws() == same).all()
    for other in (draws(seed=2), draws(object_id=8), draws(object_id="7"), draws(other_bundle)):
        assert not np.isclose(other, same).any()


def test_a_single_pass_is_drawn_from_again_and_again(make):
    info, outputs = make("gaussian")
    drawn = joint_draws([info], [outputs[:1]], object_id=7, seed=1, n_draws=5000)["re_arcsec"]
    passes = read_passes(outputs[None, :1], info.metadata)
    mean, std = 0.25 * passes.mean[0, 0, 1] + 0.3, 0.25 * passes.std[0, 0, 1]
    assert np.log(drawn).mean() == pytest.approx(mean, abs=4 * std / np.sqrt(5000))
    assert np.log(drawn).std() == pytest.approx(std, rel=0.1)


def test_what_is_kept_of_a_bundle_reads_its_outputs_alike(make):
    info, outputs = make("binned", factors=(1.3, 0.8, 1.1), members=2)
    calibrated = CalibrationInfo(inflation_factors=(1.3, 0.8, 1.1), apply=True)
    full = dataclasses.replace(
        info, metadata=dataclasses.replace(info.metadata, calibration=calibrated, training={"epochs": 3})
    )
    kept = OutputInfo.from_json(full.as_json(), "here")
    assert kept.metadata == info.metadata
    assert kept.inflation_factors == (1.3, 0.8, 1.1)
    one, other = (joint_draws([i], [outputs], object_id="a", seed=3, n_draws=100) for i in (full, kept))
    assert all((one[name] == other[name]).all() for name in one)
    damaged = full.as_json()
    damaged["metadata"]["format"] = 2
    with pytest.raises(BundleError, match=r"there: galbatch.json: format 2 is not known"):
        OutputInfo.from_json(damaged, "there")


def test_an_ensemble_says_how_its_outputs_are_read(gampen_bundle):
    (info,) = Ensemble((gampen_bundle,)).output_infos
    assert (info.metadata, info.sha256, info.inflation_factors) == (
        gampen_bundle.metadata,
        gampen_bundle.sha256,
        None,
    )

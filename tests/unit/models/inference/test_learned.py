"""The learned stopping rule: errors are those that bundles' stopping calibrations expect."""

import dataclasses

import numpy as np
import pytest

from galbatch.config import PosteriorConfig
from galbatch.core.flags import ModelFlag
from galbatch.models import Audit, Bundle, Ensemble, HeadInfo, ParameterInfo, StoppingInfo, stopping_digests
from galbatch.models.bundle.paths import DEMO_FOLDER
from galbatch.models.bundle.stopping import STOPPING_SUFFIX, read_stopping
from galbatch.models.calibration import fit_stopping
from galbatch.models.calibration.stopping import LEVELS, cdf_errors
from galbatch.models.heads import outputs_per_pass, read_passes
from galbatch.models.inference import (
    BlockInputs,
    BlockReceivers,
    LearnedErrors,
    VarianceTable,
    estimate_quantiles,
    infer_block,
)
from galbatch.models.posterior import pooled, quantities_of
from galbatch.storage import sha256_of

DEFAULT = PosteriorConfig().quantiles
EDGES = tuple(np.linspace(-4.0, 4.0, 40).tolist())


def constant(variance, n_parameters, *, start=32, levels=LEVELS):
    """A calibration that expects the same variance of every object."""
    table, edges = (((value,),) * len(levels) for value in ((variance,), (1e9,)))
    return StoppingInfo(start, levels, (32,), (edges,) * n_parameters, (table,) * n_parameters, 128, 1000)


def metadata_of(make, kind, **options):
    head = HeadInfo(kind, **options)
    parameter = ParameterInfo("x", "", "", "identity")
    return make.gampen_metadata(head=head, parameters=(parameter,), dropout_rate=0.1)


HEADS = {
    "gaussian": {},
    "mixture": {"components": 3},
    "binned": {"edges": (EDGES,)},
}


def made_up(metadata, n_objects, n_passes, *, scatter=0.2, seed=1):
    """Outputs of objects that differ, whose passes scatter normally."""
    rng = np.random.default_rng(seed)
    n_outputs = outputs_per_pass(metadata)
    of_object = rng.normal(0, 0.5, (n_objects, 1, n_outputs))
    return (of_object + scatter * rng.normal(size=(n_objects, n_passes, n_outputs))).astype(np.float32)


def real_over_stated(passes_of, learned, quantities, *, n, n_all):
    """The RMS difference of quantiles from n and from all passes, over what is expected of it."""
    found = learned.replace_errors(
        estimate_quantiles(passes_of(n), quantities, DEFAULT, allows_jumps=False), n
    )
    everything = estimate_quantiles(passes_of(n_all), quantities, DEFAULT, allows_jumps=False)
    apart = (found.output - everything.output) / everything.std[..., None]
    expected = np.square(found.error) * (1 - n / n_all)
    return np.sqrt(np.square(apart).sum() / expected.sum())


def learned_of(metadatas, infos):
    quantities = quantities_of(metadatas[0].parameters)
    tables = tuple(VarianceTable(info, quantities, DEFAULT) for info in infos)
    return LearnedErrors(tuple(infos), tuple(m.members for m in metadatas), tables)


@pytest.mark.parametrize("kind", HEADS)
def test_errors_hold_for_every_head(make, kind):
    metadata = metadata_of(make, kind, **HEADS[kind])
    info = fit_stopping(cdf_errors(made_up(metadata, 64, 300), metadata), metadata)
    outputs = made_up(metadata, 64, 600, seed=2)
    ratio = real_over_stated(
        lambda n: read_passes(outputs[:, :n].astype(np.float64), metadata),
        learned_of([metadata], [info]),
        quantities_of(metadata.parameters),
        n=48,
        n_all=600,
    )
    assert 0.85 < ratio < 1.15


def test_errors_hold_for_pooled_bundles(make):
    """A quiet and a loud network, each with its own calibration, pooled with equal weights."""
    metadata = metadata_of(make, "gaussian")
    infos, outputs = [], []
    for k, scatter in enumerate((0.05, 0.4)):
        seen = cdf_errors(made_up(metadata, 64, 300, scatter=scatter, seed=10 + k), metadata)
        infos.append(fit_stopping(seen, metadata))
        outputs.append(made_up(metadata, 64, 600, scatter=scatter, seed=20 + k))
    ratio = real_over_stated(
        lambda n: pooled([read_passes(part[:, :n].astype(np.float64), metadata) for part in outputs]),
        learned_of([metadata] * 2, infos),
        quantities_of(metadata.parameters),
        n=48,
        n_all=600,
    )
    assert 0.85 < ratio < 1.15


def test_parts_of_pooled_bundles_are_added_in_quadrature(make):
    """Two bundles of equal weight with variances 0.4 and 0.8: (0.4 + 0.8) / 4 over n."""
    metadata = metadata_of(make, "gaussian")
    learned = learned_of([metadata] * 2, [constant(0.4, 1), constant(0.8, 1)])
    outputs = [made_up(metadata, 3, 50, seed=seed) for seed in (1, 2)]
    passes = pooled([read_passes(part.astype(np.float64), metadata) for part in outputs])
    found = estimate_quantiles(passes, quantities_of(metadata.parameters), DEFAULT)
    assert found.undetected_jumps.min() > 0
    replaced = learned.replace_errors(found, 50)
    np.testing.assert_allclose(replaced.error, np.sqrt(0.3 / 50), rtol=1e-9)
    assert replaced.undetected_jumps.max() == 0
    assert learned.start == 32


def test_a_magnitude_has_the_levels_of_its_flux_from_the_other_end(make):
    flux = ParameterInfo("flux_njy", "nJy", "", "ln", magnitude="mag")
    of_level = tuple(((float(i),),) for i in range(1, len(LEVELS) + 1))
    info = dataclasses.replace(
        constant(1.0, 1), expected=(of_level,), upper=(tuple(((1e9,),) for _ in LEVELS),)
    )
    table = VarianceTable(info, quantities_of((flux,)), DEFAULT)
    found = table.expected(np.zeros((1, 2, 5)), 32)[0]
    np.testing.assert_allclose(found[0], [2, 3, 4, 5, 6])
    np.testing.assert_allclose(found[1], [6, 5, 4, 3, 2])


def calibrated(bundle, info):
    metadata = dataclasses.replace(bundle.metadata, stopping=info)
    return Bundle(metadata, bundle.sha256, bundle.script)


@pytest.fixture
def block(make):
    rng = np.random.default_rng(1)
    return make.block(rng.normal(0, 1, (20, 1, 48, 48)).astype(np.float32))


def infer(network, block, posterior, audit=None):
    return infer_block(
        network,
        BlockInputs(block, np.ones(len(block), bool)),
        name="m",
        posterior=posterior,
        receivers=BlockReceivers(audit=audit),
    )


@pytest.fixture
def network(gampen_bundle):
    return gampen_bundle


class TestARun:
    """All objects expect the variance 0.16 of a pass: 64 passes for the tolerance 0.05."""

    VARIANCE = 0.16

    @pytest.fixture
    def bundle(self, network):
        return calibrated(network, constant(self.VARIANCE, len(network.metadata.parameters)))

    def test_objects_stop_where_the_expected_error_is_the_tolerance(self, bundle, block):
        found = infer(bundle, block, PosteriorConfig())
        assert (found["m_passes"] == 64).all()
        np.testing.assert_allclose(found["m_mc_error"], 0.05, rtol=1e-6)
        assert not (found["m_flags"] & ModelFlag.NOT_CONVERGED).any()

    def test_min_passes_is_the_users_if_it_is_set(self, bundle, block):
        found = infer(bundle, block, PosteriorConfig(min_passes=80))
        assert (found["m_passes"] == 80).all()
        np.testing.assert_allclose(found["m_mc_error"], np.sqrt(self.VARIANCE / 80), rtol=1e-6)

    def test_what_is_not_reached_is_flagged(self, bundle, block):
        found = infer(bundle, block, PosteriorConfig(max_passes=48))
        assert (found["m_passes"] == 48).all()
        assert (found["m_flags"] & ModelFlag.NOT_CONVERGED).all()

    def test_the_start_is_the_calibrations(self, network, block):
        info = constant(1e-4, len(network.metadata.parameters), start=48)
        assert (infer(calibrated(network, info), block, PosteriorConfig())["m_passes"] == 48).all()

    def test_draws_and_levels_beyond_the_calibration_keep_the_other_rule(self, bundle):
        for changes in ({"method": "samples"}, {"quantiles": (1e-4, 0.5)}, {"passes": 50}):
            posterior = PosteriorConfig(**changes)
            assert LearnedErrors.of(Ensemble((bundle,)), posterior) is None
            assert stopping_digests(Ensemble((bundle,)), posterior) == ()

    def test_one_bundle_without_a_calibration_is_enough_for_the_other_rule(self, bundle, network):
        other = Bundle(network.metadata, "0" * 64, network.script)
        assert LearnedErrors.of(Ensemble((bundle, other)), PosteriorConfig()) is None

    def test_another_calibration_is_another_digest(self, bundle, network):
        other = calibrated(network, constant(0.2, len(network.metadata.parameters)))
        first, second = (stopping_digests(Ensemble((b,)), PosteriorConfig()) for b in (bundle, other))
        assert len(first) == len(second) == 1
        assert first != second


def test_shipped_calibrations_are_of_the_shipped_bundles():
    files = sorted(DEMO_FOLDER.glob(f"*{STOPPING_SUFFIX}"))
    assert [path.name.removesuffix(STOPPING_SUFFIX) for path in files] == [
        path.stem for path in sorted(DEMO_FOLDER.glob("*.pt"))
    ]
    for path in files:
        sha256, info = read_stopping(path)
        assert sha256 == sha256_of(str(path).removesuffix(STOPPING_SUFFIX) + ".pt")
        assert info.start in (32, 48, 64, 96)
        assert info.actual_over_stated is not None
        assert info.actual_over_stated < 1.2


class TestTheAuditsVerdict:
    @staticmethod
    def audit(n, ratio, *, n_not_converged=0):
        return Audit((0.5,), n, n_not_converged, n, (1.0,), (ratio**2,))

    def test_below_30_objects_no_ratio_is_shown(self):
        assert self.audit(29, 3.0).actual_over_stated is None
        assert "over stated" not in self.audit(29, 3.0).text
        assert "largest 0.0000, of too few objects to judge by; at 0.5: " in self.audit(29, 3.0).text
        assert self.audit(50, 3.0, n_not_converged=21).actual_over_stated is None
        assert self.audit(30, 3.0).actual_over_stated == pytest.approx(3.0)
        assert "largest 0.0000, actual over stated 3.00; at 0.5: " in self.audit(30, 3.0).text
        # Posteriors without width have no error that could be stated.
        assert "too few" not in Audit((0.5,), 40, 0, 40, (0.0,), (0.0,)).text

    def test_from_100_objects_on_a_ratio_above_1_2_is_doubted(self):
        assert self.audit(99, 3.0).doubt == ""
        assert self.audit(100, 1.19).doubt == ""
        doubt = self.audit(100, 1.31).doubt
        assert "1.31 times those stated (100 audited objects)" in doubt
        assert "models calibrate --stopping-only" in doubt

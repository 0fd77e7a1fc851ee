"""Adaptive passes: each object stops by itself, with the numbers that as many fixed passes give."""

import dataclasses
import json
import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from galbatch.config import PosteriorConfig
from galbatch.core.flags import ModelFlag
from galbatch.models import (
    Audit,
    BlockInputs,
    BlockReceivers,
    CalibrationInfo,
    Ensemble,
    Execution,
    HeadInfo,
    InputInfo,
    ParameterInfo,
    infer_block,
    load_bundle,
    save_bundle,
    script_of,
)
from galbatch.models.inference import Sampler, StoppingRule, estimate_quantiles, schedule
from galbatch.models.inference import block as infer_module
from galbatch.models.networks import is_audited, keyed_dropout
from galbatch.models.posterior import quantities_of
from galbatch.models.posterior.normal import NormalMarginal

X = ParameterInfo("x", "", "", "identity", location=2.0, scale=0.5)
Y = ParameterInfo("y", "", "", "identity", location=-1.0, scale=3.0)
GAUSSIAN = (0.3, -0.2, -1.0, 0.4, 0.5)  # means, log d, L
ADAPTIVE = PosteriorConfig(passes="adaptive", min_passes=16, max_passes=160, tolerance=0.2, batch=50)


class Shaky(nn.Module):
    """Fixed outputs, whose means scatter over passes in proportion to the image's central pixel."""

    def __init__(self, outputs, rate: float, n_means: int) -> None:
        super().__init__()
        self.outputs = nn.Buffer(torch.tensor(outputs, dtype=torch.float32))
        self.moves = nn.Buffer((torch.arange(len(outputs)) < n_means).float())
        self.rate = rate

    @torch.jit.export
    def prefix(self, images: Tensor) -> Tensor:
        return images[:, :1, 24, 24]

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        kept = keyed_dropout(torch.ones(features.shape[0], 16), keys, 1, self.rate)
        # Doubled and halved, so that pixels of 3e38 overflow.
        scatter = 0.5 * (kept.mean(dim=1, keepdim=True) - 1.0)
        return self.outputs + 2.0 * features * scatter * self.moves


@pytest.fixture
def shaky(tmp_path, make):
    def build(outputs=GAUSSIAN, *, rate=0.3, n_means=2, **changes):
        metadata = make.gampen_metadata(
            dropout_rate=rate, parameters=(X, Y), input=InputInfo(("g",), 48, 0.168, "nJy", 31.4)
        )
        path = str(tmp_path / "shaky.pt")
        save_bundle(path, script_of(Shaky(outputs, rate, n_means)), dataclasses.replace(metadata, **changes))
        return make.with_fixed_draws(load_bundle(path))

    return build


@pytest.fixture
def block(make):
    """40 objects whose passes differ from hardly at all to by far more than a pass is wide."""

    def build(n=40):
        images = np.zeros((n, 1, 48, 48), np.float32)
        images[:, 0, 24, 24] = np.random.default_rng(1).permutation(np.geomspace(0.01, 20.0, n))
        return make.block(images)

    return build


def infer(network, block, posterior=ADAPTIVE, *, keep=None, audit=None, **changes):
    return infer_block(
        network,
        BlockInputs(block, np.ones(len(block), bool)),
        name="m",
        posterior=posterior,
        receivers=BlockReceivers(keep, audit),
        **changes,
    )


def fixed(n_passes, posterior=ADAPTIVE):
    return posterior.model_copy(update={"passes": n_passes})


def assert_equal_to_rounding(first, second, some):
    assert first.keys() == second.keys()
    for key, column in first.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(column[some], second[key][some], rtol=2e-5, atol=1e-5, err_msg=key)
        else:
            np.testing.assert_array_equal(column[some], second[key][some], err_msg=key)


NETWORKS = {
    "gaussian": lambda shaky: shaky(),
    "point": lambda shaky: shaky((0.1, 0.2), head=HeadInfo("point")),
    "inflated": lambda shaky: shaky(calibration=CalibrationInfo(inflation_factors=(1.5, 0.7))),
    "members": lambda shaky: shaky((*GAUSSIAN, 0.9, 0.1, 0.2, -0.3, 0.0), members=2),
    "ensemble": lambda shaky: Ensemble((shaky(), shaky((0.5, *GAUSSIAN[1:]), rate=0.2))),
    "one without dropout": lambda shaky: Ensemble((shaky(), shaky(rate=0.0))),
}


@pytest.mark.parametrize("method", ["mixture", "samples"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_an_object_has_the_numbers_of_as_many_fixed_passes(shaky, block, kind, method):
    network, objects = NETWORKS[kind](shaky), block()
    posterior = ADAPTIVE.model_copy(update={"method": method, "max_passes": 128})
    found = infer(network, objects, posterior)
    points = schedule(posterior)
    used = np.unique(found["m_passes"])
    assert set(used) <= set(points)
    assert len(used) > 1 or (kind, method) in (("point", "mixture"), ("point", "samples"))
    for n_passes in used:
        alike = infer(network, objects, fixed(int(n_passes), posterior))
        if n_passes == points[-1]:  # a fixed number says nothing of what it may not have seen
            alike["m_flags"] |= found["m_flags"] & ModelFlag.NOT_CONVERGED
        assert_equal_to_rounding(found, alike, found["m_passes"] == n_passes)


def test_objects_stop_once_their_error_is_small_enough(shaky, block):
    network, kept = shaky(), []
    found = infer(network, block(), keep=lambda row, outputs: kept.append((row, outputs)))
    passes, error = found["m_passes"], found["m_mc_error"]
    assert len(np.unique(passes)) >= 4
    stopped = passes < ADAPTIVE.max_passes
    assert 5 < stopped.sum() < 40
    assert (error[stopped] <= ADAPTIVE.tolerance).all()
    # From the passes themselves: not enough at any checkpoint before, enough at the one where it stopped.
    ensemble = Ensemble((network,))
    for row, (outputs,) in kept:
        for n_passes in (point for point in schedule(ADAPTIVE) if point <= passes[row]):
            found = estimate_quantiles(
                ensemble.passes([outputs[None, :n_passes]]),
                quantities_of((X, Y)),
                ADAPTIVE.quantiles,
            )
            enough = n_passes == passes[row] and stopped[row]
            assert n_passes == ADAPTIVE.max_passes or found.converged(ADAPTIVE.tolerance)[0] == enough


def test_those_that_run_out_are_told(shaky, block):
    posterior = ADAPTIVE.model_copy(update={"max_passes": 64})
    found = infer(shaky(), block(), posterior)
    not_converged = (found["m_flags"] & ModelFlag.NOT_CONVERGED) != 0
    assert not_converged[found["m_mc_error"] > posterior.tolerance].all()
    # Undetected jumps count, too: some states little error, and would yet have gone on.
    more = infer(shaky(), block(), ADAPTIVE)["m_passes"] > 64
    np.testing.assert_array_equal(not_converged, more)
    assert 5 < not_converged.sum() < 35
    assert (found["m_passes"][not_converged] == 64).all()


def test_neither_neighbors_nor_order_nor_batch_change_an_object(shaky, block):
    objects = block()
    whole = infer(shaky(), objects)
    for batch in (7, 1000):
        again = infer(shaky(), objects, ADAPTIVE.model_copy(update={"batch": batch}))
        assert_equal_to_rounding(again, whole, slice(None))
    order = np.random.default_rng(0).permutation(40)[:23]
    names = ("object_id", "image", "sky_sigma_njy", "psf_fwhm_arcsec")
    part = dataclasses.replace(objects, **{name: getattr(objects, name)[order] for name in names})
    part = dataclasses.replace(part, ra_deg=part.ra_deg[order])
    found = infer(shaky(), part)
    assert_equal_to_rounding(found, {key: column[order] for key, column in whole.items()}, slice(None))


def test_the_same_block_gives_the_same_bits(shaky, block):
    first, second = infer(shaky(), block()), infer(shaky(), block())
    for key, column in first.items():
        np.testing.assert_array_equal(column, second[key], err_msg=key)


def test_failed_objects_take_no_more_passes(shaky, block):
    objects = block()
    objects.image[3, 0, 24, 24] = 3e38
    found = infer(shaky(), objects)
    assert found["m_flags"][3] & ModelFlag.MODEL_FAILED
    assert np.isnan(found["m_x_q500"][3])
    assert found["m_passes"][3] == ADAPTIVE.min_passes


def test_errors_are_estimated_only_where_an_object_may_stop(shaky, block, monkeypatch):
    estimate, counted = StoppingRule.estimate, []

    def count(self, outputs, keys):
        counted.append(len(outputs[0]))
        return estimate(self, outputs, keys)

    monkeypatch.setattr(StoppingRule, "estimate", count)
    network, posterior = shaky(), PosteriorConfig(batch=50)
    found = infer(network, block(), posterior)
    n_estimated = sum(counted)
    counted.clear()
    # Looked at anew at every checkpoint, an object can only stop sooner.
    monkeypatch.setattr(StoppingRule, "needed_passes", lambda _, found, n: np.zeros(len(found.std)))
    everywhere = infer(network, block(), posterior)
    assert (found["m_passes"] >= everywhere["m_passes"]).all()
    assert found["m_passes"].mean() < 1.05 * everywhere["m_passes"].mean()
    assert n_estimated < 0.7 * sum(counted)


class TestPlaces:
    """Objects whose passes run together: those that stop leave their places to the next."""

    @pytest.fixture
    def limited(self, monkeypatch):
        def to(n_places):
            monkeypatch.setattr(infer_module, "places_for", lambda *_: n_places)

        return to

    @pytest.fixture
    def waves(self, monkeypatch):
        """For each run of passes: the number of objects that have a place, and the numbers of passes that sets of them take."""
        run, seen = Sampler.run_together, []

        def noted(self, wanted):
            seen.append((self.n_objects, [keys.shape for _, keys in wanted]))
            return run(self, wanted)

        monkeypatch.setattr(Sampler, "run_together", noted)
        return seen

    @pytest.mark.parametrize("threads", [1, 3])
    @pytest.mark.parametrize("kind", ["gaussian", "ensemble", "one without dropout"])
    def test_their_number_changes_no_object(self, shaky, block, limited, kind, threads):
        network, execution = NETWORKS[kind](shaky), Execution(groups_at_once=threads)
        found, audits = [], []
        for n_places in (24, 48, 256):
            limited(n_places)
            found.append(infer(network, block(150), execution=execution, audit=audits.append))
        for other in found[1:]:
            assert_equal_to_rounding(other, found[0], slice(None))
        assert audits[0].n_objects == audits[1].n_objects == audits[2].n_objects

    def test_freed_places_are_taken_by_the_next_objects(self, shaky, block, limited, waves):
        limited(24)
        infer(shaky(), block(150), ADAPTIVE.model_copy(update={"min_passes": 32}))
        assert max(n_objects for n_objects, _ in waves) <= 24
        # All but the last objects run on in company of new ones, which take their first 32 passes; later steps are shorter.
        begins = [any(n == 32 for _, n in shapes) for _, shapes in waves]
        assert any(len(shapes) > 1 for _, shapes in waves)
        assert sum(begins) == 150 // 16 + 1
        in_company = [
            len(shapes) > 1 for is_new, (_, shapes) in zip(begins[1:], waves[1:], strict=True) if is_new
        ]
        assert all(in_company)

    def test_with_many_places_a_block_runs_from_checkpoint_to_checkpoint(
        self, shaky, block, waves, monkeypatch
    ):
        """Errors are estimated once a checkpoint, for all objects at once."""
        estimate, counted = StoppingRule.estimate, []

        def count(self, outputs, keys):
            counted.append(outputs[0].shape[:2])
            return estimate(self, outputs, keys)

        monkeypatch.setattr(StoppingRule, "estimate", count)
        found = infer(shaky(), block(150))
        assert waves[0] == (150, [(150, 16)])
        assert all(len(shapes) == 1 for _, shapes in waves)
        at = [n_passes for _, n_passes in counted]
        assert at == sorted(set(at))
        assert set(np.unique(found["m_passes"])) <= set(at)
        assert counted[0] == (150, 16)


def test_without_dropout_one_pass_is_enough(shaky, block):
    found = infer(shaky(rate=0.0), block(5))
    assert (found["m_passes"] == 1).all()
    assert (found["m_mc_error"] == 0).all()


class TestQuantilesAreSolvedOnce:
    """Those by which an object stopped are the catalog's; they are solved again only where nothing stopped by them."""

    @pytest.mark.parametrize("method", ["mixture", "samples"])
    @pytest.mark.parametrize("kind", NETWORKS)
    def test_an_estimate_gives_the_columns_of_a_summary_without_one(
        self, shaky, block, kind, method, monkeypatch
    ):
        network, objects, compared = NETWORKS[kind](shaky), block(), []
        objects.image[5] = np.nan
        objects.image[6, 0, 24, 24] = (
            3e38  # its passes overflow, so that it stops at once without an estimate that is due
        )
        summarize = infer_module.columns_of

        def both(*arguments, estimate, **options):
            found = summarize(*arguments, estimate=estimate, **options)
            again = summarize(*arguments, **options)
            assert found.keys() == again.keys()
            for key, column in found.items():
                np.testing.assert_allclose(column, again[key], rtol=1e-9, atol=1e-9, err_msg=str(key))
            compared.append((len(column), estimate is not None))
            return found

        monkeypatch.setattr(infer_module, "columns_of", both)
        posterior = ADAPTIVE.model_copy(update={"method": method})
        infer(network, objects, posterior)
        infer(network, objects, fixed(20, posterior))
        assert sum(n for n, has_estimate in compared if has_estimate) == 39
        assert sum(n for n, has_estimate in compared if not has_estimate) == 39

    def test_none_is_solved_for_a_summary(self, shaky, block, monkeypatch):
        """Of 40 objects that stop at many numbers of passes."""
        solved, inside = [], []
        quantiles, summarize = NormalMarginal.quantiles, infer_module.columns_of

        def counted(marginal, levels):
            solved.append(bool(inside))
            return quantiles(marginal, levels)

        def noted(*arguments, **options):
            inside.append(1)
            found = summarize(*arguments, **options)
            inside.pop()
            return found

        monkeypatch.setattr(NormalMarginal, "quantiles", counted)
        monkeypatch.setattr(infer_module, "columns_of", noted)
        infer(shaky(), block())
        assert solved
        assert not any(solved)


class TestThreads:
    def test_two_groups_at_once_give_the_same_bits(self, shaky, block):
        audits = []
        one, two = (
            infer(shaky(), block(70), execution=Execution(groups_at_once=n), audit=audits.append)
            for n in (1, 3)
        )
        for key, column in one.items():
            np.testing.assert_array_equal(column, two[key], err_msg=key)
        assert audits[0] == audits[1]

    def test_passes_run_one_at_a_time_and_summaries_beside_them(self, shaky, block, monkeypatch):
        """A summary waits until another thread has begun passes after this one's: without overlap it waits in vain."""
        begun, met, n_inside, changed = [], [], [], threading.Condition()
        run, summarize = Sampler.run_together, infer_module.columns_of

        def counted(self, *arguments):
            n_inside.append(1)
            assert len(n_inside) == 1
            with changed:
                begun.append(threading.get_ident())
                changed.notify_all()
            found = run(self, *arguments)
            n_inside.pop()
            return found

        def waits(*arguments, **options):
            me = threading.get_ident()
            mine = max(place for place, thread in enumerate(begun) if thread == me)
            with changed:
                others = changed.wait_for(lambda: set(begun[mine:]) - {me}, timeout=0.0 if any(met) else 30.0)
            met.append(bool(others))
            return summarize(*arguments, **options)

        monkeypatch.setattr(Sampler, "run_together", counted)
        monkeypatch.setattr(infer_module, "columns_of", waits)
        infer(shaky(), block(64), execution=Execution(groups_at_once=2))
        assert len(set(begun)) == 2
        assert any(met)

    def test_a_gpu_has_two_and_a_cpu_one(self):
        assert Execution(device="cuda").n_threads == 2
        assert Execution().n_threads == 1


class TestKeeping:
    def test_each_object_that_was_run_is_kept_once_in_the_order_of_rows(self, shaky, block):
        network, objects, kept = NETWORKS["ensemble"](shaky), block(), []
        objects.image[7] = np.nan
        found = infer(network, objects, keep=lambda row, outputs: kept.append((row, outputs)))
        assert [row for row, _ in kept] == [row for row in range(40) if row != 7]
        for row, outputs in kept:
            assert [part.shape for part in outputs] == [(found["m_passes"][row], 5)] * 2
            assert outputs[0].dtype == np.float32
            # The mean of the mixture: x of both bundles, in physical units.
            mean = np.mean([part[:, 0].mean(dtype=np.float64) for part in outputs])
            assert found["m_x_mean"][row] == pytest.approx(2.0 + 0.5 * mean, rel=1e-5)

    @pytest.mark.parametrize(("threads", "ahead"), [(1, 16), (2, 75 + 5)])
    def test_no_more_than_a_few_groups_wait_to_be_kept(self, shaky, block, monkeypatch, threads, ahead):
        """With one thread each group is kept before the next one is run; of two threads one may be ahead by its share of the block."""
        n_run, waiting, kept = [0], [], []
        summarize = infer_module.columns_of

        def counted(ensemble, raws, keys, **options):
            n_run[0] += len(raws[0].outputs)
            return summarize(ensemble, raws, keys, **options)

        def keep(row, _):
            waiting.append(n_run[0] - len(kept))
            kept.append(row)

        monkeypatch.setattr(infer_module, "columns_of", counted)
        monkeypatch.setattr(infer_module, "places_for", lambda *_: 24)
        infer(shaky(), block(150), fixed(8), execution=Execution(groups_at_once=threads), keep=keep)
        assert kept == list(range(150))
        assert max(waiting) <= ahead

    def test_what_keeping_raises_ends_the_block(self, shaky, block):
        def keep(row, _):
            if row == 20:
                raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            infer(shaky(), block(150), fixed(8), execution=Execution(groups_at_once=2), keep=keep)

    def test_a_single_pass_is_repeated(self, shaky, block):
        kept = []
        network = NETWORKS["one without dropout"](shaky)
        found = infer(network, block(4), fixed(9), keep=lambda _, outputs: kept.append(outputs))
        assert (found["m_passes"] == 9).all()
        for with_dropout, without in kept:
            assert with_dropout.shape == without.shape == (9, 5)
            assert (np.ptp(without, axis=0) == 0).all()
            assert np.ptp(with_dropout, axis=0)[0] > 0


class TestAudit:
    @pytest.fixture
    def everyone(self, monkeypatch):
        monkeypatch.setattr(infer_module, "is_audited", lambda ids, seed: np.ones(len(ids), bool))

    def test_audited_objects_go_on_and_are_compared(self, shaky, block, everyone, monkeypatch):
        """Against the columns of two fixed runs, one with the passes it would have stopped with."""
        # Of 12 objects one or two never converge, whatever the random numbers; of 6 there may be none.
        audits, network = [], shaky()
        found = infer(network, block(12), audit=audits.append)
        assert (found["m_passes"] == ADAPTIVE.max_passes).all()
        monkeypatch.undo()
        first = infer(network, block(12))["m_passes"]
        most = infer(network, block(12), fixed(ADAPTIVE.max_passes))
        names = [f"q{level}" for level in ("02275", "15865", "500", "84135", "97725")]
        actual = np.zeros(5)
        for row in np.flatnonzero(first < ADAPTIVE.max_passes):
            early = infer(network, block(12), fixed(int(first[row])))
            for parameter in ("x", "y"):
                apart = [early[f"m_{parameter}_{q}"][row] - most[f"m_{parameter}_{q}"][row] for q in names]
                actual += np.square(np.array(apart, np.float64) / most[f"m_{parameter}_std"][row])
        (audit,) = audits
        assert audit.n_objects == 12
        assert 0 < audit.n_not_converged == (first == ADAPTIVE.max_passes).sum() < 12
        assert audit.n_values == 2 * (12 - audit.n_not_converged)
        np.testing.assert_allclose(audit.actual, actual, rtol=1e-3, atol=1e-9)

    def test_not_converged_is_what_the_passes_of_an_object_say(self, shaky, block, everyone):
        """One rule for all: the error that passes stop by, of all passes the object has, whether or not it stopped before."""
        network, kept = shaky(), {}
        posterior = ADAPTIVE.model_copy(update={"max_passes": 64})
        found = infer(network, block(), posterior, keep=kept.__setitem__)
        flagged = (found["m_flags"] & ModelFlag.NOT_CONVERGED) != 0
        assert (found["m_passes"] == 64).all()
        errors = [
            estimate_quantiles(
                Ensemble((network,)).passes([outputs[None]]), quantities_of((X, Y)), posterior.quantiles
            ).stopping_error[0]
            for _, (outputs,) in sorted(kept.items())
        ]
        np.testing.assert_array_equal(flagged, np.array(errors) > posterior.tolerance)
        assert 5 < flagged.sum() < 35
        alike = infer(network, block(), fixed(64, posterior))
        flagged = (alike["m_flags"] & ModelFlag.NOT_CONVERGED) != 0
        np.testing.assert_array_equal(flagged, alike["m_mc_error"] > posterior.tolerance)
        assert 3 < flagged.sum() < 35

    def test_the_stated_error_is_the_actual_one(self, shaky, make, everyone):
        """Over 100 objects, at the levels near the median and in the tails."""
        images = np.zeros((100, 1, 48, 48), np.float32)
        images[:, 0, 24, 24] = 4.0
        audits = []
        posterior = ADAPTIVE.model_copy(update={"max_passes": 320})
        infer(shaky(), make.block(images), posterior, audit=audits.append)
        (audit,) = audits
        assert audit.n_objects == 100
        assert audit.n_not_converged < 10
        ratio = np.sqrt(np.array(audit.actual) / np.array(audit.stated))
        np.testing.assert_allclose(ratio, 1.0, atol=0.25)
        assert 0 < audit.largest < 5 * np.sqrt(max(audit.actual) / audit.n_values)

    def test_who_is_audited_follows_from_id_and_seed(self, shaky, make):
        images = np.ones((20, 1, 48, 48), np.float32)
        ids = np.arange(40_000)
        chosen = ids[is_audited(ids, seed=1)]
        assert len(chosen) == pytest.approx(40, abs=20)
        objects = make.block(images, object_id=np.concatenate([chosen[:3], ids[:17]]))
        found = infer(shaky(), objects)
        np.testing.assert_array_equal(found["m_passes"] == ADAPTIVE.max_passes, np.arange(20) < 3)
        fewer = infer(shaky(), objects, ADAPTIVE.model_copy(update={"seed": 2}))
        assert (fewer["m_passes"] < ADAPTIVE.max_passes).all()

    def test_fixed_passes_have_no_audit(self, shaky, block, everyone):
        audits = []
        found = infer(shaky(), block(5), fixed(8), audit=audits.append)
        assert (found["m_passes"] == 8).all()
        assert audits == [Audit(ADAPTIVE.quantiles)]

    def test_it_adds_up_and_survives_json(self, shaky, block, everyone):
        audits = []
        for n in (5, 9):
            infer(shaky(), block(n), audit=audits.append)
        both = audits[0] + audits[1]
        assert both.n_objects == 14
        assert both.stated == tuple(a + b for a, b in zip(audits[0].stated, audits[1].stated, strict=True))
        assert both.largest == max(audit.largest for audit in audits)
        assert Audit.from_dict(json.loads(json.dumps(both.as_dict()))) == both
        assert Audit(ADAPTIVE.quantiles) + both == both == both + Audit(ADAPTIVE.quantiles)

    def test_it_reads_as_text(self):
        levels = (0.15865, 0.5)
        assert Audit(levels).text == "no object was audited"
        assert Audit(levels, 1, 1).text == "1 object, 1 not converged"
        assert Audit(levels, 2, 2).text == "2 objects, 2 not converged"
        audit = Audit(levels, 3, 1, 4, (0.04, 0.01), (0.09, 0.04), 0.5)
        assert audit.text == (
            "3 objects, 1 not converged; RMS difference from max_passes in posterior standard deviations: "
            "stated 0.0791, actual 0.1275, largest 0.5000, of too few objects to judge by; "
            "at 0.15865: 0.1000 and 0.1500, at 0.5: 0.0500 and 0.1000"
        )

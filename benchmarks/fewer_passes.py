"""Can equal quantiles be had with less work than plain passes? Linearised dropout, split passes, sparse recomputation.

All at equal precision of the posterior's quantiles, costs counted in passes, on held-out simulated galaxies:

- control variates: the first-order effect of every zero on all outputs by back-propagation. Thousands of linearised passes are
  then nearly free, and true passes only correct them: F = mean of the linearised CDFs + beta x mean of (true - linearised).
- splitting: passes share the masks and maps of their early, dear layers and differ in the late ones.
- recomputing only what a mask touches: the share of pixels that its zeros reach, layer by layer.
- masks of a group that do not overlap: the gain has a closed form.

    python benchmarks/fewer_passes.py demo:gampen --galaxies 64 --passes 128
    python benchmarks/fewer_passes.py wide.pt --galaxies 24 --passes 96

For bundles of GaMPEN's architecture with a gaussian head.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from epistemic_share import CACHE_BYTES, LEVELS, RATES, TOLERANCE, draw_galaxies
from harness import RESULTS
from torch import Tensor, nn
from torch.nn import functional

from galbatch import models
from galbatch.models.heads.passes import Passes, read_passes
from galbatch.models.metadata.schema import BundleMetadata
from galbatch.models.networks.dropout import keyed_dropout, zeroed_positions
from galbatch.models.networks.gampen import Gampen, HalvingPool
from galbatch.models.networks.keys import draw_keys
from galbatch.models.posterior.mixture import mixture_quantiles

Floats = npt.NDArray[np.float64]
Layer = Callable[[Tensor], Tensor]

LINEARISED = 4096  # passes that the linearised mean is taken of
SPLITS = 64  # late parts tried for one early part, at most
WANTED = (64, 177, 400, 1000)  # plain passes an object needs: the minimum, what unseen jumps ask for, more
RESAMPLINGS = 400


@dataclass(frozen=True)
class Stage:
    """A dropout and what comes before the next.

    Attributes
    ----------
    layer : number of the dropout
    layers : what is behind it
    """

    layer: int
    layers: tuple[Layer, ...]

    def apply(self, x: Tensor) -> Tensor:
        """From dropped maps or features to those that go into the next dropout."""
        for layer in self.layers:
            x = layer(x)
        return x


@dataclass(frozen=True)
class Network:
    """GaMPEN rebuilt from a bundle's weights, in pieces between its dropouts."""

    module: Gampen
    stages: tuple[Stage, ...]

    def from_stage(self, x: Tensor, start: int, keys: Tensor, rate: float) -> Tensor:
        """Outputs (row, output) of what goes into the dropout of a stage."""
        for stage in self.stages[start:]:
            x = stage.apply(keyed_dropout(x, keys, stage.layer, rate))
        return x

    def until_stages(self, x: Tensor, starts: Sequence[int], keys: Tensor, rate: float) -> dict[int, Tensor]:
        """What goes into the dropouts of some stages, by stage; that of the number of stages are the outputs."""
        found = {}
        for number, stage in enumerate(self.stages):
            if number in starts:
                found[number] = x
            x = stage.apply(keyed_dropout(x, keys, stage.layer, rate))
        return found | {len(self.stages): x}


def rebuilt(bundle: models.Bundle) -> Network:
    """The network of a bundle whose script is GaMPEN."""
    state = bundle.script.state_dict()
    first, last = state["vgg.features.0.weight"], state["vgg.classifier.6.weight"]
    module = Gampen(bundle.grid.size_px, len(last), width=len(first) / 64, in_channels=first.shape[1])
    module.load_state_dict(state)
    module.eval().requires_grad_(False)
    return Network(module, tuple(_stages(module)))


def _stages(module: Gampen) -> list[Stage]:
    vgg = module.vgg
    layers: list[tuple[int, Layer]] = [(i * vgg.drops[i], layer) for i, layer in enumerate(vgg.features)]
    layers.append((0, vgg.pooled))
    layers += [
        (100 + i if isinstance(layer, nn.Identity) else 0, layer) for i, layer in enumerate(vgg.classifier)
    ]
    starts = [at for at, (number, _) in enumerate(layers) if number]
    return [
        Stage(layers[start][0], tuple(layer for _, layer in layers[start:stop]))
        for start, stop in zip(starts, [*starts[1:], len(layers)], strict=True)
    ]


def sensitivities(network: Network, features: Tensor) -> tuple[Tensor, list[Tensor]]:
    """First-order effect of each activation: activation times d output / d activation, in the pass without dropout.

    Parameters
    ----------
    features : (object, channel, y, x) float32, of `prefix`

    Returns
    -------
    outputs : (object, output) without dropout
    effects : of each stage (object, activation, output), activations in `keyed_dropout`'s order
    """
    taps: list[Tensor] = []
    with torch.enable_grad():
        x = features.clone().requires_grad_()
        for stage in network.stages:
            taps.append(x)
            x = stage.apply(x)
        of_outputs = [torch.autograd.grad(x[:, k].sum(), taps, retain_graph=True) for k in range(x.shape[1])]
    effects = [
        torch.stack([_flat(tap.detach() * grads[i]) for grads in of_outputs], dim=2)
        for i, tap in enumerate(taps)
    ]
    return x.detach(), effects


def _flat(x: Tensor) -> Tensor:
    """(row, activation) in the order in which `keyed_dropout` counts: channels last."""
    return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).reshape(len(x), -1)


def linear_shifts(network: Network, effects: Sequence[Tensor], keys: Tensor, rate: float) -> Tensor:
    """Shifts of the outputs that the first order gives for the masks of some keys, (pass, stage, output).

    Parameters
    ----------
    effects : of each stage (activation, output), of one object
    keys : (pass,)
    """
    found = []
    for stage, effect in zip(network.stages, effects, strict=True):
        positions, any_zeroed = zeroed_positions(keys, stage.layer, len(effect), rate)
        # Unused slots repeat the first position. A position drawn twice counts twice: rare, and a control variate all the same.
        counts = positions != positions[:, :1]
        counts[:, 0] = any_zeroed
        lost = functional.embedding_bag(
            positions, effect, mode="sum", per_sample_weights=counts.to(effect.dtype)
        )
        found.append((rate * effect.sum(dim=0) - lost) / (1.0 - rate))
    return torch.stack(found, dim=1)


@dataclass(frozen=True)
class Costs:
    """In units of one plain pass of a row.

    Attributes
    ----------
    stages : (stage,) of a pass
    sensitivities : of one object, all outputs
    linearised : of one linearised pass
    """

    stages: Floats
    sensitivities: float
    linearised: float


def measure_costs(network: Network, features: Tensor, rate: float, *, rounds: int = 7) -> Costs:
    """Processor time, contenders in turn, medians over the rounds."""
    rows = _expanded(features[:1], _batch(features))
    keys = torch.arange(len(rows), dtype=torch.int64) * 7_919
    many = torch.arange(LINEARISED, dtype=torch.int64) * 104_729
    _, effects = sensitivities(network, features)
    of_one = [effect[0] for effect in effects]
    taken = []
    for _ in range(rounds + 1):
        of_stages, x = [], rows
        for stage in network.stages:
            seconds, x = _timed(
                lambda x=x, stage=stage: stage.apply(keyed_dropout(x, keys, stage.layer, rate))
            )
            of_stages.append(seconds / len(rows))
        backward, _ = _timed(lambda: sensitivities(network, features))
        linear, _ = _timed(lambda: linear_shifts(network, of_one, many, rate))
        taken.append([*of_stages, backward / len(features), linear / LINEARISED])
    medians = np.median(np.array(taken[1:]), axis=0)  # the first one warms up
    medians /= medians[:-2].sum()
    return Costs(medians[:-2], float(medians[-2]), float(medians[-1]))


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    found = function()
    return time.process_time() - started, found


def _batch(features: Tensor) -> int:
    """Rows that a forward sees."""
    return max(8, CACHE_BYTES // features[0].nbytes)


def _expanded(features: Tensor, n: int) -> Tensor:
    return features.expand(n, -1, -1, -1).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Tried:
    """The passes of one object.

    Attributes
    ----------
    outputs : (pass, output) of plain passes
    again : by stage, (pass, output): the same masks before that stage, others from there on
    plain : (output,) without dropout
    shifts : (pass, stage, output) linearised, of the same masks as `outputs`
    """

    outputs: Floats
    again: dict[int, Floats]
    plain: Floats
    shifts: Floats


def try_object(network: Network, features: Tensor, keys: Tensor, rate: float) -> Tried:
    """Plain, split and linearised passes of one object (1, channel, y, x); keys (2, pass)."""
    outputs, again = [], {start: [] for start in split_stages(network)}
    for first, other in zip(*(part.split(_batch(features)) for part in keys), strict=True):
        found = network.until_stages(_expanded(features, len(first)), list(again), first, rate)
        outputs.append(found[len(network.stages)])
        for start, parts in again.items():
            parts.append(network.from_stage(found[start], start, other, rate))
    plain, effects = sensitivities(network, features)
    shifts = linear_shifts(network, [effect[0] for effect in effects], keys[0], rate)
    return Tried(
        _joined(outputs),
        {start: _joined(parts) for start, parts in again.items()},
        plain[0].double().numpy(),
        shifts.double().numpy(),
    )


def _joined(parts: Sequence[Tensor]) -> Floats:
    return torch.cat(list(parts)).double().numpy()


def split_stages(network: Network) -> list[int]:
    """Stages behind a pool or within the classifier: where maps are small."""
    pooled = [
        i for i in range(1, len(network.stages)) if isinstance(network.stages[i - 1].layers[-1], HalvingPool)
    ]
    return [*pooled, len(network.stages) - 2, len(network.stages) - 1]


@dataclass(frozen=True)
class Found:
    """Of one object; (parameter, level) at the quantiles of its plain passes.

    Attributes
    ----------
    needed : plain passes at which the standard error is TOLERANCE posterior standard deviations
    correlation : (parameter,) squared, of the plain and the linearised passes' means
    left : by stage: share of the variance left beside a control linearised from that stage on
    early : by stage: share of the variance that is from the masks before it
    linear : (stage, parameter) share of the first order's variance that is each stage's
    ratio : (parameter,) variance of the linearised passes' means over the plain ones'
    share : (parameter,) epistemic share
    """

    needed: Floats
    correlation: Floats
    left: dict[int, Floats]
    early: dict[int, Floats]
    linear: Floats
    ratio: Floats
    share: Floats


def judge(tried: Tried, metadata: BundleMetadata) -> Found:
    """What each idea leaves of the variance of a pass's CDF at the quantiles."""
    passes = _read(tried.outputs, metadata)
    n = passes.mean.shape[2]
    quantiles = [mixture_quantiles(passes.marginal(i), LEVELS) for i in range(n)]
    plain = _cdf(passes, quantiles)
    within = np.diagonal(passes.within()[0])
    between = passes.mean[0].var(axis=0, ddof=1)
    density = np.stack([passes.marginal(i).density(quantiles[i])[0] for i in range(n)])
    needed = plain.var(axis=0, ddof=1) / np.square(TOLERANCE * density * np.sqrt(within + between)[:, None])
    means = tried.shifts[:, :, :n].sum(axis=1)
    correlation = [np.corrcoef(means[:, i], passes.mean[0, :, i])[0, 1] ** 2 for i in range(n)]
    left = {}
    for start in range(tried.shifts.shape[1]):
        linear = _read(tried.plain + tried.shifts[:, start:].sum(axis=1), metadata)
        left[start] = left_beside(plain, _cdf(linear, quantiles))
    early = {s: early_share(plain, _cdf(_read(o, metadata), quantiles)) for s, o in tried.again.items()}
    of_stages = tried.shifts[:, :, :n].var(axis=0, ddof=1)
    return Found(
        needed,
        np.array(correlation),
        left,
        early,
        of_stages / of_stages.sum(axis=0),
        means.var(axis=0, ddof=1) / between,
        between / (within + between),
    )


def _read(outputs: Floats, metadata: BundleMetadata) -> Passes:
    return read_passes(outputs[None], metadata)


def _cdf(passes: Passes, quantiles: Sequence[Floats]) -> Floats:
    """(pass, parameter, level) of one object."""
    return np.stack([passes.marginal(i).cdf(x)[0] for i, x in enumerate(quantiles)], axis=1)


def left_beside(plain: Floats, control: Floats) -> Floats:
    """Share of the variance of `plain` left beside a control variate, (pass, ...) each.

    The factor of the control, within 0 and 1, is found on one half of the passes and judged on the other: a fit to rare jumps
    alone is far off.
    """
    half = len(plain) // 2
    parts = [(plain[:half], control[:half]), (plain[half:], control[half:])]
    factors = []
    for y, x in parts:
        centered = x - x.mean(axis=0)
        square = np.square(centered).sum(axis=0)
        factor = np.divide((centered * y).sum(axis=0), square, out=np.zeros_like(square), where=square > 0)
        factors.append(np.clip(factor, 0.0, 1.0))
    rest = sum((y - factor * x).var(axis=0) for (y, x), factor in zip(parts, factors[::-1], strict=True))
    return np.asarray(rest / sum(y.var(axis=0) for y, _ in parts))


def early_share(plain: Floats, again: Floats) -> Floats:
    """Share of the variance that passes with the same early masks have in common, (pass, ...) each."""
    middle = 0.5 * (plain.mean(axis=0) + again.mean(axis=0))
    common = ((plain - middle) * (again - middle)).mean(axis=0)
    return np.asarray(2 * common / (np.square(plain - middle) + np.square(again - middle)).mean(axis=0))


def control_gain(found: Sequence[Found], costs: Costs, start: int, n: int) -> tuple[float, float, float]:
    """Plain passes over the work of control variates of equal error, net, where plain ones are `n`; with its 95 % interval.

    The worst quantile decides before and after. The mean over LINEARISED passes has an error of its own, and the work is at least
    2 true passes.
    """
    left = []
    for one in found:
        rest = one.left[start] + np.clip(1 - one.left[start], 0, 1) * n / LINEARISED
        left.append((one.needed * rest).max() / one.needed.max())
    fixed = costs.sensitivities * costs.stages[start:].sum() + LINEARISED * costs.linearised
    share = costs.linearised + 1.0

    def gain(values: Floats) -> float:
        return float(n / (fixed + max(n * values.mean(), 2.0) * share))

    return _with_interval(np.array(left), gain)


def split_gain(found: Sequence[Found], costs: Costs, start: int) -> tuple[int, tuple[float, float, float]]:
    """Best number of late parts for one early part, and the plain work over the split work at equal error."""
    early = np.array([one.early[start].flat[one.needed.argmax()] for one in found])
    before = float(costs.stages[:start].sum())

    def gain_of(n_late: int) -> Callable[[Floats], float]:
        def gain(values: Floats) -> float:
            common = min(max(float(values.mean()), 0.0), 1.0)
            return 1.0 / ((common + (1 - common) / n_late) * (before + n_late * (1 - before)))

        return gain

    best = max(range(1, SPLITS + 1), key=lambda n_late: gain_of(n_late)(early))
    return best, _with_interval(early, gain_of(best))


def _with_interval(values: Floats, statistic: Callable[[Floats], float]) -> tuple[float, float, float]:
    """A statistic of the galaxies' values (object,), and the 2.5 and 97.5 % of it over resampled galaxies."""
    rng = np.random.default_rng(1)
    resampled = [statistic(rng.choice(values, len(values))) for _ in range(RESAMPLINGS)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return statistic(values), float(low), float(high)


def touched(network: Network, features: Tensor, keys: Tensor, rate: float) -> Floats:
    """(stage,) share of the pixels behind each stage's convolution that zeros of it or of earlier stages reach.

    What is not touched differs from the pass without dropout by a factor alone. Linear layers count as touched wholly.
    """
    reached, found = torch.zeros(len(keys), 1, *features.shape[2:]), []
    for stage, of_stage in zip(network.stages, _shapes(network, features), strict=True):
        if len(of_stage) == 2:
            found.append(1.0)
            continue
        _, channels, y_px, x_px = of_stage
        positions, any_zeroed = zeroed_positions(keys, stage.layer, channels * y_px * x_px, rate)
        zeroed = torch.zeros(len(keys), y_px * x_px).scatter(
            1, positions // channels, any_zeroed.float()[:, None].expand_as(positions)
        )
        reached = torch.maximum(reached, zeroed.reshape(-1, 1, y_px, x_px))
        reached = functional.max_pool2d(reached, 3, 1, 1)
        found.append(float(reached.mean()))
        if any(isinstance(layer, HalvingPool) for layer in stage.layers):
            reached = functional.max_pool2d(reached, 2, 2)
    return np.array(found)


def _shapes(network: Network, features: Tensor) -> list[tuple[int, ...]]:
    """Of what goes into each stage's dropout."""
    x, found = features[:1], []
    for stage in network.stages:
        found.append(tuple(x.shape))
        x = stage.apply(x)
    return found


def measure(name: str, n_galaxies: int, n_passes: int, rates: Sequence[float]) -> dict[str, Any]:
    """All rates of a bundle, as JSON holds them."""
    bundle = models.load_bundle(models.bundle_path(name))
    network, galaxies = rebuilt(bundle), draw_galaxies(bundle, n_galaxies)
    ids = np.arange(n_galaxies)
    keys = draw_keys(ids, seed=2, bundle_sha256=bundle.sha256, passes=np.arange(2 * n_passes))
    keys_of = torch.from_numpy(keys.reshape(n_galaxies, 2, n_passes))
    with torch.inference_mode():
        features = network.module.prefix(torch.from_numpy(galaxies.images))
    features = features.clone()  # an inference tensor takes no part in back-propagation
    at_rate = {}
    with torch.no_grad():
        costs = measure_costs(network, features[:8], rates[len(rates) // 2])
        for rate in rates:
            found = [
                judge(try_object(network, image[None], of, rate), bundle.metadata)
                for image, of in zip(features, keys_of, strict=True)
            ]
            reach = touched(network, features, keys_of[0, 0], rate)
            at_rate[f"{rate:g}"] = summary(network, found, costs, reach)
            show(name, rate, at_rate[f"{rate:g}"])
    return {
        "question": "fewer passes",
        "bundle": bundle.metadata.name,
        "training": bundle.metadata.training,
        "galaxies": n_galaxies,
        "passes": n_passes,
        "parameters": [parameter.name for parameter in bundle.metadata.parameters],
        "rates": at_rate,
    }


def summary(network: Network, found: Sequence[Found], costs: Costs, reach: Floats) -> dict[str, Any]:
    """Of one rate, over the galaxies."""
    stages, splits = range(len(network.stages)), split_stages(network)
    return {
        "layers": [stage.layer for stage in network.stages],
        "cost_of_stages": costs.stages.tolist(),
        "cost_of_sensitivities": costs.sensitivities,
        "cost_of_4096_linearised": LINEARISED * costs.linearised,
        "needed": _quantiles([one.needed.max() for one in found]),
        "share": [_quantiles(column) for column in np.transpose([one.share for one in found])],
        "correlation": [_quantiles(column) for column in np.transpose([one.correlation for one in found])],
        "variance_ratio": [_quantiles(column) for column in np.transpose([one.ratio for one in found])],
        "linear_variance_of_stages": np.mean([one.linear for one in found], axis=0).tolist(),
        "early_share": {s: float(np.mean([_at_worst(one, one.early[s]) for one in found])) for s in splits},
        "left_beside_control": {
            s: float(np.mean([_at_worst(one, one.left[s]) for one in found])) for s in stages
        },
        "control_gain": {str(n): {s: control_gain(found, costs, s, n) for s in stages} for n in WANTED},
        "split_gain": {s: split_gain(found, costs, s) for s in splits},
        "touched": reach.tolist(),
        "saved_by_sparse_recomputation": float((costs.stages * (1 - reach)).sum()),
    }


def _at_worst(one: Found, values: Floats) -> float:
    return float(values.flat[one.needed.argmax()])


def _quantiles(values: npt.ArrayLike) -> list[float]:
    """10 %, median, 90 %."""
    return [float(value) for value in np.quantile(values, [0.1, 0.5, 0.9])]


def show(name: str, rate: float, row: dict[str, Any]) -> None:
    """Print what was found at a rate."""
    print(
        f"{name} at {rate:g}: epistemic shares {[round(s[1], 3) for s in row['share']]}; passes needed {row['needed']}"
    )
    print(
        f"  squared correlation of linearised and true means: {[round(s[1], 2) for s in row['correlation']]}"
    )
    print(f"  variance of linearised over true means: {[round(s[1], 2) for s in row['variance_ratio']]}")
    print(
        f"  cost in passes: sensitivities {row['cost_of_sensitivities']:.1f}, {LINEARISED} linearised {row['cost_of_4096_linearised']:.1f};"
        f" sparse recomputation would save at most {row['saved_by_sparse_recomputation']:.3f}"
    )
    for s, layer in enumerate(row["layers"]):
        gains = "  ".join(f"{row['control_gain'][str(n)][s][0]:.2f}" for n in WANTED)
        split = ""
        if s in row["split_gain"]:
            n_late, (gain, low, high) = row["split_gain"][s]
            split = (
                f"early {row['early_share'][s]:.2f}, split in {n_late}: {gain:.2f} ({low:.2f} to {high:.2f})"
            )
        print(
            f"  {layer:>4} cost {row['cost_of_stages'][s]:.3f} touched {row['touched'][s]:.2f}"
            f" left {row['left_beside_control'][s]:.2f} gains {gains}  {split}",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each bundle; JSON for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE")
    parser.add_argument("--galaxies", type=int, default=64)
    parser.add_argument("--passes", type=int, default=128)
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    for name in given.bundles:
        content = measure(name, given.galaxies, given.passes, given.rates)
        RESULTS.mkdir(exist_ok=True)
        target = RESULTS / f"fewer_passes_of_{content['bundle'].replace('-', '_')}.json"
        target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(target)


if __name__ == "__main__":
    main()

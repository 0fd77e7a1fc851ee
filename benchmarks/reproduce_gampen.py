"""Does the whole network, trained as section 2 of the GaMPEN paper says, do as well as the paper?

Simulates 150,000 HSC g-band galaxies of 239 px, trains GaMPEN at full width on 70 % of them, finds the post-hoc correction on the
15 % held out for validation, and prints table 2 and figure 12's numbers of the untouched 15 % beside the paper's. Training is
modern where the paper leaves it open: Adam with a warm-up and a cosine, bf16 on a GPU, a running mean of the weights.

Every stage continues from where it stopped, so that the whole can be done in pieces: with ``--seconds`` it stops by itself before the
time is over and exits with 3 until all is done. The working folder takes 34 GB (4 bytes a pixel).

    python benchmarks/reproduce_gampen.py --workdir /scratch/gampen --device cuda --processes 16

Needs galbatch with its models (torch, numpy, scipy, pyarrow, pydantic, fsspec, lazy_loader); the first stage also GalSim and
galbatch's simulation. ``--stage simulate`` can thus run elsewhere, and its folder be carried over.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from harness import RESULTS

from galbatch import models
from galbatch.core.types import njy_per_unit
from galbatch.models import LEVELS, Evaluation, HeldOut, share_of, split_objects
from galbatch.models.calibration import Outputs, inflation_factors, judge
from galbatch.models.heads import read_passes
from galbatch.models.networks import draw_keys

STAGES = ("simulate", "train", "evaluate")
UNFINISHED = 3  # exit code: run it again

BAND = "g"
SIMULATION_SEED = 2022
CHUNK = 500  # galaxies simulated, and objects evaluated, between two looks at the clock
CALIBRATION_OBJECTS = 5_000  # of the validation set: the factors are then known to 1 %
ROWS_AT_ONCE = 64  # of a pass on a GPU: a map of the full network at 239 px is 1 GB

# Table 2 of the paper: coverage, in percent, of intervals as its released code defines them.
TABLE_2 = {
    "bt": (71.8, 96.9, 98.9),
    "re_arcsec": (68.1, 95.9, 98.3),
    "flux_njy": (78.7, 98.2, 99.9),
}
# Section 6.2 and figure 12, section 8: typical errors of the most probable value; section 8: R^2 (equation 17).
TYPICAL_ERROR = {"bt": 0.1, "re_arcsec": 0.17, "flux_njy": 6.3e4, "mag": 0.051}
TYPICAL_PERCENT = {"re_arcsec": 7.0, "flux_njy": 1.0}
R2 = {"mag": 0.998, "re_arcsec": 0.980}

Rows = npt.NDArray[np.int64]


class OutOfTimeError(Exception):
    """The stage stopped in time; another call continues."""


@dataclass(frozen=True)
class Clock:
    """When to stop."""

    ends: float

    def check(self, needed_s: float = 0.0) -> None:
        """Stop if less than `needed_s` seconds are left."""
        if time.monotonic() + needed_s > self.ends:
            raise OutOfTimeError


@dataclass(frozen=True)
class Plan:
    """What is done, and where its files lie."""

    workdir: Path
    n_objects: int
    size_px: int
    width: float
    epochs: int
    batch: int
    learning_rate: float
    passes: int
    device: str
    processes: int

    @property
    def settings(self) -> models.TrainingSettings:
        """Of the training: the demo recipe's parameters, the paper's network and dropout rate."""
        precision = "bf16" if self.device == "cuda" else "float32"
        return models.TrainingSettings(
            name="gampen-hsc-g",
            architecture="gampen",
            bands=(BAND,),
            parameters=models.RECIPES["gampen"].settings.parameters,
            background="none: simulated without sky",
            width=self.width,
            epochs=self.epochs,
            batch=self.batch,
            optimizer="adam",
            learning_rate=self.learning_rate,
            schedule="cosine",
            warmup_epochs=0.5,
            max_gradient_norm=5.0,
            limit_tail=0.3,
            average_weights=0.999,
            precision=precision,
            training_data="galaxies of table 1 of Ghosh et al. 2022 (ApJ 935, 138), drawn by galbatch simulate",
            licence="BSD-3-Clause",
            citation="architecture: Ghosh et al. 2022, ApJ 935, 138",
        )

    @property
    def parts(self) -> models.Split:
        """Training, validation, test: as the training divides them."""
        settings = self.settings
        return split_objects(
            np.arange(self.n_objects),
            seed=settings.seed,
            validation_share=settings.validation_share,
            test_share=settings.test_share,
        )

    def images(self) -> npt.NDArray[np.float32]:
        """(object, band, y, x) of the simulation, mapped from its file."""
        return np.load(self.workdir / "images.npy", mmap_mode="r")

    def truth(self) -> dict[str, npt.NDArray[np.float64]]:
        """Labels and PSF widths of the simulation, (object,)."""
        with np.load(self.workdir / "truth.npz") as found:
            return dict(found)

    def labels(self) -> npt.NDArray[np.float64]:
        """(object, parameter), physical units."""
        truth = self.truth()
        return np.stack([truth[parameter.name] for parameter in self.settings.parameters], axis=1)

    def bundle(self) -> models.Bundle:
        """The trained one."""
        return models.load_bundle(str(self.workdir / "bundle.pt"))


def simulate(plan: Plan, clock: Clock) -> None:
    """Galaxies of table 1, a fixed number at a time, into a file that is read as an array; made as large as it will be at once."""
    path, mark = plan.workdir / "images.npy", plan.workdir / "simulated.txt"
    done = int(mark.read_text()) if mark.exists() else 0
    shape = (plan.n_objects, 1, plan.size_px, plan.size_px)
    if done and plan.images().shape != shape:
        sys.exit(f"{path}: holds {plan.images().shape}, asked for {shape}: choose another --workdir")
    if done >= plan.n_objects:
        return
    from galbatch.simulation import draw_population, draw_stamps
    from galbatch.simulation.stamps import stamp_psf_fwhm_arcsec

    table = draw_population(plan.n_objects, bands=(BAND,), population="paper", seed=SIMULATION_SEED)
    psf = stamp_psf_fwhm_arcsec(table, bands=(BAND,), seed=SIMULATION_SEED)
    labels = {p.name: table.column(p.name).to_numpy() for p in plan.settings.parameters}
    np.savez(plan.workdir / "truth.npz", psf_fwhm_arcsec=psf, **labels)
    mode = "r+" if done else "w+"
    images = np.lib.format.open_memmap(path, mode=mode, dtype=np.float32, shape=None if done else shape)
    took = 0.0
    chunk = CHUNK * plan.processes
    for start in range(done, plan.n_objects, chunk):
        clock.check(took)
        started = time.monotonic()
        images[start : start + chunk] = draw_stamps(
            table.slice(start, chunk),
            bands=(BAND,),
            size_px=plan.size_px,
            seed=SIMULATION_SEED,
            processes=plan.processes,
        )
        images.flush()
        took = time.monotonic() - started
        done = min(start + chunk, plan.n_objects)
        mark.write_text(str(done))
        print(f"simulated {done} of {plan.n_objects}, {chunk / took:.0f} galaxies/s", flush=True)


def train(plan: Plan, clock: Clock) -> None:
    """Train to the last epoch, a checkpoint after each."""
    if (plan.workdir / "bundle.pt").exists():
        return
    elapsed = [time.monotonic()]

    def after(epoch: models.Epoch) -> None:
        elapsed.append(time.monotonic())
        took = elapsed[-1] - elapsed[-2]
        print(
            f"epoch {epoch.epoch} of {plan.epochs}: loss {epoch.training_loss:.4f}, validation "
            f"{epoch.validation_loss:.4f}, {took:.0f} s",
            flush=True,
        )
        if epoch.epoch < plan.epochs:
            clock.check(1.2 * took)

    psf = plan.truth()["psf_fwhm_arcsec"]
    trained = models.train(
        plan.images(),
        plan.labels(),
        settings=plan.settings,
        extras=models.Extras(psf_fwhm_arcsec=psf),
        session=models.Session(
            device=plan.device, checkpoint=plan.workdir / "checkpoint.pt", resume=True, on_epoch=after
        ),
    )
    models.save_bundle(str(plan.workdir / "bundle.pt"), models.script_of(trained.network), trained.metadata)


def evaluate(plan: Plan, clock: Clock) -> None:
    """The correction of the validation set, and the results on the test set, as JSON and as tables."""
    bundle, parts = plan.bundle(), plan.parts
    chosen = parts.validation[:CALIBRATION_OBJECTS]
    outputs = {
        name: run_passes(plan, bundle, rows, name, clock)
        for name, rows in (("validation", chosen), ("test", parts.test))
    }
    labels = plan.labels()
    parameters = bundle.metadata.parameters
    kept = outputs["validation"].finite
    passes = read_passes(outputs["validation"].numbers[kept], bundle.metadata)
    factors = inflation_factors(passes, labels[chosen][kept], parameters)
    held_out = HeldOut(plan.images(), labels[parts.test], rows=parts.test)
    found = {
        "as trained": judge(outputs["test"], bundle.metadata, held_out),
        "corrected": judge(outputs["test"], bundle.metadata, held_out, factors=factors),
    }
    content = report(plan, bundle, found, factors)
    name = "reproduce_gampen.json" if is_full(plan) else "reproduce_gampen_toy.json"
    target = (RESULTS if is_full(plan) else plan.workdir) / name
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(target)


def is_full(plan: Plan) -> bool:
    """Whether this is the paper's size: other results are not kept with the project."""
    return plan.n_objects >= 150_000 and plan.size_px == 239 and plan.width == 1.0


@torch.inference_mode()
def run_passes(plan: Plan, bundle: models.Bundle, rows: Rows, name: str, clock: Clock) -> Outputs:
    """Passes of some objects on the device, a fixed number at a time, into files; what is there is not run again."""
    keys = draw_keys(rows, seed=1, bundle_sha256=bundle.sha256, passes=np.arange(plan.passes))
    script = bundle.script.to(plan.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    folder = plan.workdir / f"{name}_{bundle.sha256[:12]}_{plan.passes}"
    folder.mkdir(exist_ok=True)
    images, took = plan.images(), 0.0
    unit = np.float32(njy_per_unit(bundle.metadata.input.zero_point_mag))
    for start in range(0, len(rows), CHUNK):
        path = folder / f"{start}.npy"
        if path.exists():
            continue
        clock.check(took)
        started = time.monotonic()
        some = slice(start, start + CHUNK)
        chunk = torch.from_numpy(images[rows[some]] / unit)
        numbers = [
            _passes_of(script, image[None], of_object, plan.device)
            for image, of_object in zip(chunk, keys[some], strict=True)
        ]
        temporary = folder / "writing.npy"
        np.save(temporary, np.stack(numbers))
        temporary.replace(path)
        took = time.monotonic() - started
        print(f"{name}: {min(start + CHUNK, len(rows))} of {len(rows)}, {took:.0f} s", flush=True)
    script.to("cpu")
    numbers_of_all = np.concatenate(
        [np.load(folder / f"{start}.npy") for start in range(0, len(rows), CHUNK)]
    )
    return Outputs(numbers_of_all, keys, np.asarray(np.isfinite(numbers_of_all).all(axis=(1, 2))))


def _passes_of(
    script: Any, image: torch.Tensor, keys: npt.NDArray[np.int64], device: str
) -> npt.NDArray[np.float32]:
    """(pass, output) of one object (1, band, y, x) in the network's unit."""
    features = script.prefix(image.to(device))
    parts = []
    for start in range(0, len(keys), ROWS_AT_ONCE):
        some = torch.from_numpy(keys[start : start + ROWS_AT_ONCE]).to(device)
        parts.append(script.sample(features.expand(len(some), -1, -1, -1).contiguous(), some))
    return torch.cat(parts).float().cpu().numpy()


def report(
    plan: Plan, bundle: models.Bundle, found: dict[str, Evaluation], factors: Sequence[float]
) -> dict[str, Any]:
    """Print table 2 and figure 12 beside the paper's; returns what the JSON holds."""
    trained = found["as trained"]
    print(f"\n{len(trained)} test galaxies, {trained.n_passes} passes; factors {list(factors)}")
    return {
        "question": "reproduce_gampen",
        "device": torch.cuda.get_device_name() if plan.device == "cuda" else "cpu",
        "plan": {
            f.name: getattr(plan, f.name) for f in dataclasses.fields(plan) if f.name not in ("workdir",)
        },
        "training": bundle.metadata.training,
        "n_test": len(trained),
        "inflation_factors": list(factors),
        **paper_tables(found),
        "tables": {
            name: [dataclasses.asdict(t) for t in models.evaluation_tables(e)] for name, e in found.items()
        },
    }


def paper_tables(found: dict[str, Evaluation]) -> dict[str, list[dict[str, Any]]]:
    """Print table 2 and figure 12 of posteriors "as trained" and "corrected" beside the paper's; return their rows."""
    table_2, figure_12 = list(coverage_rows(found)), list(residual_rows(found["corrected"]))
    print("Table 2: coverage in percent; intervals as the released code defines them, and equal-tailed ones")
    _print_rows(table_2)
    print("Figure 12: residuals of the most probable value; R^2 as equation 17, of the median")
    _print_rows(figure_12)
    return {"table_2": table_2, "figure_12": figure_12}


def coverage_rows(found: dict[str, Evaluation]) -> Iterator[dict[str, Any]]:
    """Coverage of each parameter and level. Reached: as near to the level as the paper, or within two binomial errors of that."""
    for posterior, evaluation in found.items():
        for name, published in TABLE_2.items():
            index = evaluation.index(name)
            for level, paper in zip(LEVELS, published, strict=True):
                share = share_of(evaluation.covered_released(level)[:, index])
                tails = share_of(evaluation.covered(level)[:, index])
                miss, error = abs(share.value - level), max(share.error, 1.0 / share.n)
                yield {
                    "posterior": posterior,
                    "parameter": name,
                    "level": round(100 * level, 2),
                    "paper": paper,
                    "here": round(100 * share.value, 2),
                    "error": round(100 * share.error, 2),
                    "equal-tailed": round(100 * tails.value, 2),
                    "reached": bool(miss <= abs(paper / 100 - level) + 2 * error),
                }


def residual_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Typical errors and R^2 beside the paper's.

    Here: sigma; of relative errors what 68.27 % are within, since a few tiny galaxies rule their sigma. Reached: no larger than
    the paper's, with the bias counted in.
    """
    for i, quantity in enumerate(evaluation.quantities):
        truth = evaluation.truth(quantity)
        residual = evaluation.mode[:, i] - truth
        if quantity.name in TYPICAL_ERROR:
            yield _residual_row(quantity.name, residual, TYPICAL_ERROR[quantity.name], relative=False)
        if quantity.name in TYPICAL_PERCENT:
            percent = 100 * residual / truth
            yield _residual_row(
                f"{quantity.name}, percent", percent, TYPICAL_PERCENT[quantity.name], relative=True
            )
        if quantity.name in R2:
            found = evaluation.r2(quantity.name)
            yield {
                "quantity": f"{quantity.name}, R^2",
                "paper": R2[quantity.name],
                "here": round(found, 4),
                "reached": bool(found >= R2[quantity.name]),
            }


def _residual_row(
    name: str, residual: npt.NDArray[np.float64], paper: float, *, relative: bool
) -> dict[str, Any]:
    sigma, within = float(residual.std()), float(np.quantile(np.abs(residual), LEVELS[0]))
    with_bias = within if relative else float(np.sqrt(np.square(residual).mean()))
    return {
        "quantity": name,
        "paper": paper,
        "here": float(f"{within if relative else sigma:.4g}"),
        "mean": float(f"{residual.mean():.4g}"),
        "median": float(f"{np.median(residual):.4g}"),
        "68.27 % within": float(f"{within:.4g}"),
        "reached": bool(with_bias <= paper),
    }


def _print_rows(rows: Sequence[dict[str, Any]]) -> None:
    heads = list(dict.fromkeys(key for row in rows for key in row))
    print("  " + "".join(f"{head:>20}" for head in heads))
    for row in rows:
        print("  " + "".join(f"{row.get(head, '')!s:>20}" for head in heads))


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True, help="folder for images, checkpoint, bundle")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--objects", type=int, default=150_000, help="galaxies to simulate")
    parser.add_argument("--size-px", type=int, default=239)
    parser.add_argument("--width", type=float, default=1.0, help="factor on the paper's channels")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--passes", type=int, default=64, help="of each object at the evaluation")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--processes", type=int, default=1, help="that simulate")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop before this many have passed"
    )
    return parser.parse_args(arguments)


def plan_of(given: argparse.Namespace) -> Plan:
    """What the command line asks for."""
    others = {field.name: getattr(given, field.name) for field in dataclasses.fields(Plan)[2:]}
    return Plan(given.workdir, given.objects, **others)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; returns the exit code."""
    given = read_arguments(arguments)
    plan = plan_of(given)
    plan.workdir.mkdir(parents=True, exist_ok=True)
    clock = Clock(time.monotonic() + given.seconds)
    stages = {"simulate": simulate, "train": train, "evaluate": evaluate}
    try:
        for name in STAGES if given.stage == "all" else (given.stage,):
            stages[name](plan, clock)
    except OutOfTimeError:
        print("time is over; the same command continues from here", flush=True)
        return UNFINISHED
    return 0


if __name__ == "__main__":
    sys.exit(main())

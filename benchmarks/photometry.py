"""What does the photometry of a cutout cost, against one extraction by SEP, photutils, and GaMPEN's passes at full width?

    OMP_NUM_THREADS=1 python benchmarks/photometry.py [--sizes 96 239] [--objects 60] [--rounds 5] [--no-passes]

Galaxies of the simulated survey, with neighbors and correlated noise, in three bands. All contenders work on the same cutouts, take turns, and are compared by the processor time of one thread;
a figure is the median of the ratios of the rounds. photutils detects and measures Kron fluxes and half-light radii without separating sources, for which it needs scikit-image.
A pass of GaMPEN is one image through a network of the paper's width with random weights. What pixels without data do to either library is printed, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import sep
from harness import RESULTS
from photutils.segmentation import SourceCatalog, detect_sources

from galbatch import photometry, simulation
from galbatch.config import PhotometryConfig
from galbatch.core.sky_noise import clipped_sky, in_frame, thinned
from galbatch.core.types import CutoutBlock, Grid
from galbatch.photometry import stacked

BANDS = ("g", "r", "i")
MIN_PASSES = 32
"""The fewest passes that a run with adaptive passes makes of an object."""


def drawn_block(n_objects: int, size_px: int) -> CutoutBlock:
    """Cutouts of simulated galaxies, as a store of the image alone has them."""
    drawn = simulation.training_set(n_objects, bands=BANDS, size_px=size_px, population="survey", seed=3)
    grid = Grid(size_px, simulation.PIXEL_SCALE_ARCSEC)
    return CutoutBlock.of_images(drawn.images, BANDS, grid, psf_fwhm_arcsec=drawn.psf_fwhm_arcsec)


def detection_images(block: CutoutBlock) -> list[tuple[np.ndarray, float]]:
    """The stack of each object's bands and its noise: what sources are found in."""
    flat = block.image.reshape(*block.image.shape[:2], -1)
    sky, noise = clipped_sky(flat[:, :, thinned(in_frame(block.grid.size_px))])
    return [stacked(*one) for one in zip(block.image, sky, noise, strict=True)]


def by_photutils(images: list[tuple[np.ndarray, float]]) -> None:
    """Detection, Kron flux and half-light radius of all sources."""
    for image, noise in images:
        found = detect_sources(image, 1.5 * noise, 5)
        sources = SourceCatalog(image, found)
        assert len(sources.kron_flux) == len(sources.flux_radius(0.5))


def ratios(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """The processor time of each over the first one's, round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            before = time.process_time()
            contender()
            if number:  # the first round warms up
                seconds[name].append(time.process_time() - before)
    first = next(iter(seconds.values()))
    found = {}
    for name, mine in seconds.items():
        each = [a / b for a, b in zip(mine, first, strict=True)]
        found[name] = {
            "seconds": statistics.median(mine),
            "ratio": statistics.median(each),
            "least": min(each),
            "most": max(each),
        }
    return found


def gampen_pass(size_px: int) -> Callable[[], object]:
    """One image through GaMPEN of the paper's width."""
    import torch

    from galbatch.models.networks.gampen import Gampen

    network, keys = Gampen(size_px, 9).eval(), torch.arange(8)
    images = torch.randn(8, len(BANDS), size_px, size_px)

    def run() -> None:
        with torch.inference_mode():
            network(images, keys)

    return run


def missing_pixels() -> dict[str, object]:
    """What NaN in a cutout do to both libraries: sources found with the NaN as they are, and masked."""
    image, noise = detection_images(drawn_block(1, 96))[0]
    holed = image.copy()
    holed[:, :20] = np.nan
    bad = ~np.isfinite(holed)
    masked, segments = sep.extract(holed, 1.5, err=noise, mask=bad, segmentation_map=True)
    return {
        "sep, whole": len(sep.extract(image, 1.5, err=noise)),
        "sep, NaN": len(sep.extract(holed, 1.5, err=noise)),
        "sep, NaN masked": len(masked),
        "sep, pixels without data in segments": int((segments[bad] > 0).sum()),
        "photutils, NaN": detect_sources(np.nan_to_num(holed, nan=0.0), 1.5 * noise, 5).n_labels,
    }


def measure(size_px: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The ratios at one cutout size, in milliseconds an object and over one extraction."""
    block, settings = drawn_block(args.objects, size_px), PhotometryConfig()
    images, known = detection_images(block), {}
    contenders: dict[str, Callable[[], object]] = {
        "sep.extract of the stack": lambda: [
            sep.extract(image, 1.5, err=noise, segmentation_map=True) for image, noise in images
        ],
        "photometry of three bands": lambda: photometry.measure_photometry(block, settings),
        "photutils, of the stack": lambda: by_photutils(images),
    }
    if args.passes:
        contenders["eight passes of GaMPEN"] = gampen_pass(size_px)
    known = ratios(contenders, args.rounds)
    for name, one in known.items():
        n = 8 if "passes" in name else args.objects
        one["ms_each"] = 1e3 * one.pop("seconds") / n
        print(
            f"{size_px} px: {name:<28} {one['ms_each']:9.2f} ms each, {one['ratio']:7.2f} x the first ({one['least']:.2f} to {one['most']:.2f})"
        )
    if args.passes:
        of_passes = known["photometry of three bands"]["ms_each"] / (
            MIN_PASSES * known["eight passes of GaMPEN"]["ms_each"]
        )
        print(f"{size_px} px: photometry takes {100 * of_passes:.2f} % of {MIN_PASSES} passes")
        known["share of passes"] = {"of_min_passes": of_passes, "n_passes": float(MIN_PASSES)}
    return known


def main() -> None:
    """Measure at each size and keep the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 239])
    parser.add_argument("--objects", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-passes", dest="passes", action="store_false")
    args = parser.parse_args()
    found = {f"{size_px} px": measure(size_px, args) for size_px in args.sizes}
    missing = missing_pixels()
    print(missing)
    RESULTS.mkdir(exist_ok=True)
    content = {"objects": args.objects, "rounds": args.rounds, "sizes": found, "missing_pixels": missing}
    (RESULTS / "photometry.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""How fast are galaxies simulated, against plain GalSim?

The same galaxies of the paper's table 1, light alone, by galbatch and by GalSim's own drawImage (n in steps of 0.05, which
GalSim needs to keep its tables; warmed up), at 96 and 239 px; then whole training stamps (light, neighbors, noise) of both
populations, in galaxies a second of one core's processor time. Run: OMP_NUM_THREADS=1 python benchmarks/simulate.py
"""

from __future__ import annotations

import time

import galsim
import numpy as np
from harness import compare, report

from galbatch import simulation

N_COMPARED = 12
N_STAMPS = {96: 400, 239: 120}
MOFFAT_BETA = 3.5


def main() -> None:
    """Ratios first, then the rates."""
    for size_px in N_STAMPS:
        truth = simulation.draw_population(N_COMPARED, bands=("g",), seed=4)
        rows = truth.to_pylist()

        def by_galbatch(truth=truth, size_px=size_px) -> None:
            simulation.draw_stamps(
                truth, bands=("g",), size_px=size_px, seed=4, sky=simulation.Sky(noise=False)
            )

        def by_galsim(rows=rows, size_px=size_px) -> None:
            for row in rows:
                drawn_by_galsim(row, size_px)

        measured = compare({"galbatch": by_galbatch, "GalSim drawImage": by_galsim}, rounds=3)
        report(f"light of galaxies at {size_px} px", measured, items=N_COMPARED, unit="galaxy")
    for size_px, n_objects in N_STAMPS.items():
        for population in ("paper", "survey"):
            print(
                f"  {population} at {size_px} px: {stamps_a_second(population, size_px, n_objects):.0f} galaxies/s"
            )


def drawn_by_galsim(row: dict[str, float | None], size_px: int) -> np.ndarray:
    """The summed components under a Moffat PSF, with a Fourier grid as large as GalSim asks for."""
    accurate = galsim.GSParams(maximum_fft_size=32768)
    parts = []
    for part in ("disk", "bulge"):
        if row[f"{part}_n"] is not None:
            radius = row[f"{part}_re_arcsec"] * row[f"{part}_axis_ratio"] ** 0.5
            n = round(row[f"{part}_n"] / 0.05) * 0.05
            profile = galsim.Sersic(
                n, half_light_radius=radius, flux=row[f"{part}_flux_g_njy"], gsparams=accurate
            )
            parts.append(
                profile.shear(q=row[f"{part}_axis_ratio"], beta=row[f"{part}_angle_deg"] * galsim.degrees)
            )
    psf = galsim.Moffat(beta=MOFFAT_BETA, fwhm=0.85)
    image = galsim.Convolve(galsim.Sum(parts), psf, gsparams=accurate)
    return image.drawImage(nx=size_px, ny=size_px, scale=0.168, dtype=float).array


def stamps_a_second(population: str, size_px: int, n_objects: int) -> float:
    """Of one core, tables made."""
    settings = {"bands": ("g",), "size_px": size_px, "population": population}
    simulation.training_set(60, seed=1, **settings)
    started = time.process_time()
    simulation.training_set(n_objects, seed=2, **settings)
    return n_objects / (time.process_time() - started)


if __name__ == "__main__":
    main()

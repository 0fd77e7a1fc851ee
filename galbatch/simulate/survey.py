"""A small survey of known galaxies on disk, laid out as HSC lays out its coadds."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.io import fits

from galbatch import storage, tables
from galbatch.errors import OutputError
from galbatch.simulate.defects import (
    MASK_PLANES,
    NO_DATA_LEG_PX,
    Defects,
    Planes,
    apply_defects,
    bits,
    draw_defects,
)
from galbatch.simulate.field import CELL_PX, TRACT, Box, Field, Patch, plan_field, psf_at
from galbatch.simulate.fourier import MOFFAT_BETA
from galbatch.simulate.noise import SKY_SIGMA_NJY, add_noise
from galbatch.simulate.population import BANDS, draw_population
from galbatch.simulate.render import PIXEL_SCALE_ARCSEC, Psf
from galbatch.simulate.stamps import draw_galaxy
from galbatch.types import njy_per_unit

__all__ = ["SimulatedSurvey", "simulate_survey"]

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

FLUXMAG0 = 6.309573e10
ZERO_POINT_MAG = 27.0  # 2.5 log10(FLUXMAG0)
NJY_PER_ADU = njy_per_unit(ZERO_POINT_MAG)

JITTER_PX = 1.5
EDGE_OFFSET_PX = -38.0  # edge galaxies sit 12 px from the field's left edge
REDSHIFTS = (0.05, 0.25)
DETECTION_SIGMA = 5.0

# One defect of each kind per so many galaxies: each flag then fires for up to a few percent.
GALAXIES_PER_STAR = 400
GALAXIES_PER_COLUMN = 500
GALAXIES_PER_TRACK = 20
GALAXIES_PER_STRAY = 500


@dataclass(frozen=True, slots=True)
class SimulatedSurvey:
    """What was written: paths, and how many there are of each.

    `tiles` is a glob for ``[survey] tiles``; `n_listed` counts the rows of the list, `n_objects` the
    galaxies, which are the rows of the truth.
    """

    tiles: str
    objects: str
    truth: str
    bands: tuple[str, ...]
    n_tiles: int
    n_listed: int
    n_objects: int


@dataclass(frozen=True, slots=True)
class _Scene:
    """What the patches are drawn from; all arrays (object,)."""

    field: Field
    truth: pa.Table
    cell: npt.NDArray[np.int64]
    position_px: Floats  # (object, 2), x and y
    defects: Defects
    bands: tuple[str, ...]
    seed: int

    def within(self, box: Box) -> _Scene:
        """Only the galaxies whose cells touch `box`."""
        inside = np.isin(self.cell, self.field.cells_in(box))
        truth = self.truth.filter(pa.array(inside))
        return _Scene(
            self.field,
            truth,
            self.cell[inside],
            self.position_px[inside],
            self.defects,
            self.bands,
            self.seed,
        )


def simulate_survey(
    out: str,
    *,
    n_objects: int = 2000,
    patches: int = 4,
    bands: Sequence[str] = ("g", "r"),
    population: str = "paper",
    seed: int = 1,
    processes: int | None = None,
) -> SimulatedSurvey:
    """Simulate a survey with known truth: HSC patches, an object list and the truth.

    Each galaxy has a cell of 100 x 100 px to itself; its light is cut off at the cell's edge, so no
    galaxy reaches into another's 96 px cutout, as in the paper's isolated stamps. Patches overlap by
    100 px, share the tract's TAN WCS and agree there pixel by pixel, noise included. The PSF varies
    smoothly over the field; noise is independent from pixel to pixel (real coadds' is correlated).
    Masked stars, bad columns, cosmic rays and a corner without data make the flags fire for a few
    percent. Besides `n_objects` galaxies the list has some at the very edge (true galaxies, in the truth
    too), entries outside the footprint and second entries for a galaxy (not in the truth).

    Written again with the same arguments, the files come out the same: an interrupted call is mended by
    another.

    Parameters
    ----------
    out
        Folder or s3:// prefix: gets ``deepCoadd-results/HSC-<B>/9813/<x,y>/calexp-HSC-<B>-9813-<x,y>.fits``,
        ``objects.parquet`` (object_id, ra_deg, dec_deg, z_best) and ``truth.parquet`` (as
        `draw_population`, with ra_deg, dec_deg and psf_fwhm_<band>_arcsec).
    n_objects
        Galaxies wholly inside the footprint.
    patches
        Patches of the tract, in a rectangle as near to a square as their number allows.
    bands
        Out of g, r, i.
    population
        ``paper``; ``survey`` is not in this version.
    seed
        The same seed gives the same survey, whatever `processes`.
    processes
        Worker processes; None: one a core. They are spawned: call this under
        ``if __name__ == "__main__"`` in a script of your own, or with 1.

    Raises
    ------
    OutputError
        `out` holds tiles of another survey, or cannot be written.
    ConfigError
        A band without colors.
    NotInThisVersion
        Another population.
    """
    tiles, objects, truth = (
        storage.join(out, name) for name in ("deepCoadd-results", "objects.parquet", "truth.parquet")
    )
    scene = _draw_scene(n_objects, patches, tuple(bands), population=population, seed=seed)
    listed = _object_list(scene)
    storage.check_writable(out)
    _refuse_foreign_tiles(scene, tiles)
    n_tiles = _write_patches(scene, tiles, processes or os.cpu_count() or 1)
    tables.write_parquet(truth, scene.truth)
    tables.write_parquet(objects, listed)
    pattern = storage.join(tiles, "**", "calexp-*.fits")
    return SimulatedSurvey(
        pattern, objects, truth, scene.bands, n_tiles, n_listed=len(listed), n_objects=len(scene.truth)
    )


def _draw_scene(
    n_objects: int, n_patches: int, bands: tuple[str, ...], *, population: str, seed: int
) -> _Scene:
    n_edge = max(2, n_objects // GALAXIES_PER_STRAY)
    n_stars = max(1, n_objects // GALAXIES_PER_STAR)
    truth = draw_population(n_objects + n_edge, bands=bands, population=population, seed=seed)
    # Up to 6 cells have their centers in the corner without data.
    field = plan_field(n_objects + n_edge + n_stars + 6, n_patches)
    rng = np.random.default_rng([seed, 4])
    edge, star, regular = _assign_cells(field, (n_edge, n_stars, n_objects), rng)
    cell = np.concatenate([regular, edge])
    position = field.cell_centers(cell) + rng.uniform(-JITTER_PX, JITTER_PX, (len(cell), 2))
    position[n_objects:, 0] += EDGE_OFFSET_PX
    defects = draw_defects(
        field,
        star,
        n_columns=max(1, n_objects // GALAXIES_PER_COLUMN),
        n_tracks=max(4, n_objects // GALAXIES_PER_TRACK),
        seed=seed,
    )
    truth = _with_places(truth, field, position, bands, seed)
    return _Scene(field, truth, cell, position, defects, bands, seed)


def _assign_cells(
    field: Field, counts: tuple[int, int, int], rng: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """Cells for edge galaxies (on the left border), stars (inside) and the other galaxies."""
    cells = np.arange(field.cells_x * field.cells_y)
    x, y = field.cell_centers(cells).T
    height, width = field.box.shape_px
    whole = (x + CELL_PX / 2 <= width) & (y + CELL_PX / 2 <= height)
    with_data = (width - x) + (height - y) > NO_DATA_LEG_PX
    left = x < CELL_PX
    taken = np.zeros(len(cells), dtype=bool)
    assigned = []
    for count, suitable in zip(counts, (left, ~left, np.ones_like(left)), strict=True):
        chosen = rng.choice(cells[whole & with_data & suitable & ~taken], count, replace=False)
        taken[chosen] = True
        assigned.append(chosen)
    return assigned


def _with_places(
    truth: pa.Table, field: Field, position_px: Floats, bands: tuple[str, ...], seed: int
) -> pa.Table:
    ra_dec = field.wcs(field.box).all_pix2world(position_px, 0)
    truth = truth.append_column("ra_deg", pa.array(ra_dec[:, 0])).append_column(
        "dec_deg", pa.array(ra_dec[:, 1])
    )
    psfs = psf_at(field, position_px, bands, seed=seed)
    for index, band in enumerate(bands):
        widths = pa.array([of_bands[index].fwhm_arcsec for of_bands in psfs])
        truth = truth.append_column(f"psf_fwhm_{band}_arcsec", widths)
    return truth


def _object_list(scene: _Scene) -> pa.Table:
    """The survey's list: all galaxies, entries outside the footprint, second entries for a galaxy."""
    rng = np.random.default_rng([scene.seed, 5])
    n_stray = max(2, len(scene.truth) // GALAXIES_PER_STRAY)
    height, width = scene.field.box.shape_px
    outside = rng.uniform((1.02 * width, 0), (1.05 * width + CELL_PX, height), (n_stray, 2))
    outside[0] = width - 20, height - 20  # in the corner without data
    # Shreds, as deblenders make them: 1.5 arcsec off the galaxy's own entry; the first 0.1 arcsec off.
    distance_px = np.where(np.arange(n_stray) == 0, 0.1, 1.5) / PIXEL_SCALE_ARCSEC
    shreds = scene.position_px[:n_stray] + np.stack([distance_px, np.zeros(n_stray)], axis=1)
    position = np.concatenate([scene.position_px, outside, shreds])
    ra_dec = scene.field.wcs(scene.field.box).all_pix2world(position, 0)
    first = scene.truth["object_id"][0].as_py()
    columns = {
        "object_id": first + np.arange(len(position), dtype=np.int64),
        "ra_deg": ra_dec[:, 0],
        "dec_deg": ra_dec[:, 1],
        "z_best": rng.uniform(*REDSHIFTS, len(position)),
    }
    return pa.table(columns)


def _tile_path(band: str, patch: Patch) -> str:
    """Path of a tile below deepCoadd-results."""
    name = f"HSC-{band.upper()}"
    return storage.join(name, str(TRACT), patch.name, f"calexp-{name}-{TRACT}-{patch.name}.fits")


def _refuse_foreign_tiles(scene: _Scene, folder: str) -> None:
    """Tiles of another survey would stay between ours and be read with them."""
    ours = {_tile_path(band, patch) for band in scene.bands for patch in scene.field.patches()}
    if foreign := [path for path in storage.list_files(folder, suffix=".fits") if path not in ours]:
        raise OutputError(
            f"{folder}: holds {len(foreign)} tiles of another survey ({foreign[0]}); "
            "choose another folder or remove it"
        )


def _write_patches(scene: _Scene, folder: str, processes: int) -> int:
    patches = scene.field.patches()
    tasks = [(scene.within(patch.box), patch, folder) for patch in patches]
    processes = min(len(patches), processes)
    if processes == 1:
        return sum(_write_patch(*task) for task in tasks)
    # Spawn: fork copies locks that threads of the parent (BLAS, Arrow) may hold.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return sum(pool.map(_write_patch, *zip(*tasks, strict=True)))


def _write_patch(scene: _Scene, patch: Patch, folder: str) -> int:
    """Draw and write one patch in all bands; the number of files."""
    for band, planes in zip(scene.bands, _draw_patch(scene, patch.box), strict=True):
        apply_defects(scene.field, scene.defects, planes)
        path = storage.join(folder, _tile_path(band, patch))
        storage.publish(path, _encode(planes, scene.field))
        log.info("%s written", path)
    return len(scene.bands)


def _draw_patch(scene: _Scene, box: Box) -> list[Planes]:
    """Light and noise of one patch in each band, cell by cell: overlapping patches agree."""
    shape = box.shape_px
    patch = [
        Planes(box, np.empty(shape, np.float32), np.zeros(shape, np.int32), np.empty(shape, np.float32))
        for _ in scene.bands
    ]
    rows = dict(zip(scene.cell.tolist(), range(len(scene.cell)), strict=True))
    galaxies = scene.truth.to_pylist()
    psfs = psf_at(scene.field, scene.position_px, scene.bands, seed=scene.seed)
    stars = _star_light(scene)
    empty = np.zeros((len(scene.bands), CELL_PX, CELL_PX))
    for cell in scene.field.cells_in(box):
        light = stars.get(cell, empty)
        if (row := rows.get(cell)) is not None:
            x, y = scene.position_px[row] - scene.field.cell_centers(scene.cell[row])
            light = draw_galaxy(
                galaxies[row], scene.bands, psfs[row], size_px=CELL_PX, offset_px=(float(x), float(y))
            )
        _add_cell(patch, scene, cell, light)
    return patch


def _add_cell(patch: Sequence[Planes], scene: _Scene, cell: int, light: Floats) -> None:
    """Put one cell's light (band, y, x) with its noise into the planes of each band."""
    cell_box = scene.field.cell_box(cell)
    for planes, band, band_light in zip(patch, scene.bands, light, strict=True):
        image, variance = add_noise(
            band_light, band, np.random.default_rng([scene.seed, 6, cell, BANDS.index(band)])
        )
        inside = cell_box.overlap(planes.box)
        if inside is None:
            continue
        there, here = inside.slices(planes.box), inside.slices(cell_box)
        planes.image[there] = image[here]
        planes.variance[there] = variance[here]
        detected = band_light[here] > DETECTION_SIGMA * SKY_SIGMA_NJY[band]
        planes.mask[there][detected] |= bits("DETECTED")


def _star_light(scene: _Scene) -> dict[int, Floats]:
    """Light (band, y, x) of each star's cell; a Moffat profile falls below the noise within the cell."""
    positions = np.array([(star.x, star.y) for star in scene.defects.stars]).reshape(-1, 2)
    psfs = psf_at(scene.field, positions, scene.bands, seed=scene.seed)
    light = {}
    for star, star_psfs in zip(scene.defects.stars, psfs, strict=True):
        box = scene.field.cell_box(star.cell)
        y, x = np.ogrid[box.y0 : box.y1, box.x0 : box.x1]
        radius = np.hypot(x - star.x, y - star.y) * PIXEL_SCALE_ARCSEC
        light[star.cell] = np.stack([star.flux_njy * _moffat(radius, psf) for psf in star_psfs])
    return light


def _moffat(radius_arcsec: Floats, psf: Psf) -> Floats:
    """A round Moffat profile of unit flux, per pixel."""
    scale = psf.fwhm_arcsec / (2 * np.sqrt(2 ** (1 / MOFFAT_BETA) - 1))
    peak = (MOFFAT_BETA - 1) / (np.pi * scale**2) * PIXEL_SCALE_ARCSEC**2
    return np.asarray(peak * (1 + (radius_arcsec / scale) ** 2) ** -MOFFAT_BETA)


def _encode(planes: Planes, field: Field) -> bytes:
    """A calexp file: empty primary HDU with FLUXMAG0, then image, mask and variance in ADU."""
    primary = fits.PrimaryHDU()
    primary.header["FLUXMAG0"] = (FLUXMAG0, "counts of a source of magnitude 0")
    primary.header["TRACT"] = TRACT
    wcs = _wcs_cards(field, planes.box)
    hdus = [primary]
    for name, data in (
        ("IMAGE", planes.image / np.float32(NJY_PER_ADU)),
        ("MASK", planes.mask),
        ("VARIANCE", planes.variance / np.float32(NJY_PER_ADU**2)),
    ):
        hdu = fits.ImageHDU(data, header=wcs, name=name)
        hdu.header["EXTTYPE"] = name
        if name == "MASK":
            hdu.header.update({_mask_keyword(plane): bit for plane, bit in MASK_PLANES.items()})
        hdus.append(hdu)
    buffer = io.BytesIO()
    fits.HDUList(hdus).writeto(buffer)
    return buffer.getvalue()


def _wcs_cards(field: Field, box: Box) -> fits.Header:
    """The WCS with CD cards, as HSC writes it; astropy's own to_header would write PC and CDELT."""
    wcs = field.wcs(box).wcs
    header = fits.Header({"RADESYS": "ICRS"})
    for axis in (0, 1):
        header[f"CTYPE{axis + 1}"] = wcs.ctype[axis]
        header[f"CUNIT{axis + 1}"] = "deg"
        header[f"CRVAL{axis + 1}"] = float(wcs.crval[axis])
        header[f"CRPIX{axis + 1}"] = float(wcs.crpix[axis])
        header.update({f"CD{axis + 1}_{other + 1}": float(wcs.cd[axis, other]) for other in (0, 1)})
    return header


def _mask_keyword(plane: str) -> str:
    """The MP_* card's keyword; FITS allows more than eight characters behind HIERARCH only."""
    keyword = f"MP_{plane}"
    return keyword if len(keyword) <= 8 else f"HIERARCH {keyword}"

"""The sources and defects of a simulated survey, and the images of any part of it.

In the population `paper` each galaxy is alone in a cell of 100 x 100 px, and its light is cut off at the cell's edge. In
`survey` galaxies and stars are at random positions and overlap. Tiles that overlap agree in the common pixels, including
the noise.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.wcs import WCS

from galbatch.simulation.counts import (
    BRIGHTEST_STAR_MAG,
    FAINTEST_NEIGHBOR_MAG,
    GALAXY_COUNTS,
    STAR_COUNTS,
    TARGET_MAG,
    draw_survey_galaxies,
)
from galbatch.simulation.defects import (
    NO_DATA_LEG_PX,
    SATURATION_NJY,
    Defects,
    Planes,
    Star,
    apply_defects,
    bits,
    draw_defects,
)
from galbatch.simulation.field import CELL_PX, Box, Field, plan_field, psf_at
from galbatch.simulation.light.camera import BANDS, PSF_FWHM_ARCSEC
from galbatch.simulation.light.fourier import Psf, moffat_intensity
from galbatch.simulation.light.noise import STATED_SIGMA, correlated, noise_variance, sky_sigma_njy
from galbatch.simulation.light.sources import BOX_SIZES_PX, Profiles, paint, profiles_of
from galbatch.simulation.population import draw_population
from galbatch.simulation.stamps import draw_galaxy
from galbatch.simulation.surroundings import draw_star_fluxes, points

__all__ = ["Scene", "draw_scene", "draw_tile", "psf_map"]

Floats = npt.NDArray[np.float64]

JITTER_PX = 1.5
EDGE_X_PX = (
    12.0  # Position of galaxies at the left edge of the field, whose cutouts are covered only in part.
)
DETECTION_SIGMA = 5.0
PSF_MAP_NODES = (
    5  # Per axis of a tile: enough, because the PSF varies by less than one period over the field.
)

# Number of galaxies per defect of each kind, so that each flag is set for up to a few percent of the galaxies.
GALAXIES_PER_STAR = 400
GALAXIES_PER_COLUMN = 500
GALAXIES_PER_TRACK = 20
GALAXIES_PER_STRAY = 500

# Stars of the population `survey`: bleed trails grow with the flux, and stars brighter than i = 16 (1.4e6 nJy) have a
# BRIGHT_OBJECT mask.
BRIGHT_STAR_NJY = 1.4e6
BLEED_PX_AT_BRIGHT = 25
RADIUS_PX_AT_BRIGHT = 45.0


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything from which tiles are drawn.

    Attributes
    ----------
    field : Field
    truth : pyarrow.Table
        One row per galaxy of the object list.
    position_px : (object, 2) float64
        Position x, y of these galaxies in field pixels.
    cell : (object,) int64
        Numbers of their cells in the population `paper`; empty for `survey`.
    sources : Profiles or None
        All galaxies and stars of the population `survey`, in field pixels; None for `paper`.
    defects : Defects
    bands : tuple of str
    seed : int
    own_wcs : bool
        True if each tile has its own projection.
    """

    field: Field
    truth: pa.Table
    position_px: Floats
    cell: npt.NDArray[np.int64]
    sources: Profiles | None
    defects: Defects
    bands: tuple[str, ...]
    seed: int
    own_wcs: bool = False

    @property
    def population(self) -> str:
        """The name of the population, ``paper`` or ``survey``."""
        return "paper" if self.sources is None else "survey"

    def near(self, box: Box) -> Scene:
        """Return the scene without sources that cannot be seen in `box`, so that less is sent to another process."""
        if self.sources is None:
            inside = np.isin(self.cell, self.field.cells_in(box))
            return dataclasses.replace(
                self,
                truth=self.truth.filter(pa.array(inside)),
                position_px=self.position_px[inside],
                cell=self.cell[inside],
            )
        # Half of the largest box in which a source is drawn, and one pixel for rounding.
        reach = BOX_SIZES_PX[-1] / 2 + 1
        x, y = self.sources.position_px.T
        inside = (x > box.x0 - reach) & (x < box.x1 + reach) & (y > box.y0 - reach) & (y < box.y1 + reach)
        return dataclasses.replace(
            self,
            truth=self.truth.slice(0, 0),
            position_px=np.empty((0, 2)),
            sources=self.sources.where(inside),
        )

    def wcs(self, box: Box) -> WCS:
        """Return the WCS of a tile with the field pixels in `box`."""
        return self.field.own_wcs(box) if self.own_wcs else self.field.wcs(box)

    def seen_at(self, position_px: Floats, box: Box) -> Floats:
        """Return positions (source, 2) as they appear in the tile at `box`, in field pixels.

        They differ from `position_px` only if the tile has its own projection.
        """
        if not self.own_wcs or not len(position_px):
            return position_px
        ra_dec = self.field.wcs(self.field.box).all_pix2world(position_px, 0)
        return self.wcs(box).all_world2pix(ra_dec, 0) + np.array([box.x0, box.y0])


def draw_scene(
    n_objects: int,
    n_patches: int,
    bands: tuple[str, ...],
    *,
    population: str,
    seed: int,
    pixel_scale_arcsec: float,
) -> Scene:
    """Draw what is in a survey's images, without drawing pixels: galaxies, their positions, stars, and detector defects.

    Parameters
    ----------
    n_objects : int
        Number of galaxies whose cutouts are inside the field. Some galaxies at the edge are added.
    n_patches : int
        Number of overlapping patches of the tract that the field fills.
    bands : tuple of str
        Out of g, r, i.
    population : str
        ``paper`` (isolated galaxies of Table 1 of the GaMPEN paper) or ``survey`` (magnitude counts, neighbors, stars).
    seed : int
        The same seed draws the same scene.
    pixel_scale_arcsec : float

    Returns
    -------
    Scene
        Its truth is the table of `draw_population` with sky positions (``ra_deg``, ``dec_deg``) and PSF widths
        (``psf_fwhm_<band>_arcsec``) added.
    """
    # Each needs its own cell at the left edge, which has about as many cells as the square root of their number.
    n_edge = max(2, min(n_objects // GALAXIES_PER_STRAY, math.isqrt(n_objects // n_patches)))
    truth = draw_population(n_objects + n_edge, bands=bands, population=population, seed=seed)
    arrange = _isolated if population == "paper" else _crowded
    scene = arrange(
        truth, (n_objects, n_edge), n_patches, bands, seed=seed, pixel_scale_arcsec=pixel_scale_arcsec
    )
    field = scene.field
    ra_dec = field.wcs(field.box).all_pix2world(scene.position_px, 0)
    truth = truth.append_column("ra_deg", pa.array(ra_dec[:, 0]))
    truth = truth.append_column("dec_deg", pa.array(ra_dec[:, 1]))
    psfs = psf_at(field, scene.position_px, scene.bands, seed=seed)
    for index, band in enumerate(scene.bands):
        widths = pa.array([of_bands[index].fwhm_arcsec for of_bands in psfs])
        truth = truth.append_column(f"psf_fwhm_{band}_arcsec", widths)
    return dataclasses.replace(scene, truth=truth)


def _isolated(
    truth: pa.Table,
    counts: tuple[int, int],
    n_patches: int,
    bands: tuple[str, ...],
    *,
    seed: int,
    pixel_scale_arcsec: float,
) -> Scene:
    """Return a scene of the population `paper`: galaxies and saturated stars have a cell each."""
    n_objects, n_edge = counts
    n_stars = max(1, n_objects // GALAXIES_PER_STAR)
    # Six cells more, because up to six have their centers in the corner without data.
    field = plan_field(n_objects + n_edge + n_stars + 6, n_patches, pixel_scale_arcsec=pixel_scale_arcsec)
    rng = np.random.default_rng([seed, 4])
    x, y = field.cell_centers(np.arange(field.cells_x * field.cells_y)).T
    height, width = field.box.shape_px
    is_whole = (x + CELL_PX / 2 <= width) & (y + CELL_PX / 2 <= height)
    is_free = is_whole & ((width - x) + (height - y) > NO_DATA_LEG_PX)
    at_left = x < CELL_PX
    assigned = []
    # Galaxies at the edge take cells at the left border, stars those inside, and other galaxies any that are left.
    for count, suitable in ((n_edge, at_left), (n_stars, ~at_left), (n_objects, np.ones_like(at_left))):
        chosen = rng.choice(np.flatnonzero(is_free & suitable), count, replace=False)
        is_free[chosen] = False
        assigned.append(chosen)
    edge, star, regular = assigned
    cell = np.concatenate([regular, edge])
    position = field.cell_centers(cell) + rng.uniform(-JITTER_PX, JITTER_PX, (len(cell), 2))
    position[n_objects:, 0] += EDGE_X_PX - CELL_PX / 2
    return Scene(field, truth, position, cell, None, _defects(field, star, n_objects, seed), bands, seed)


def _crowded(
    truth: pa.Table,
    counts: tuple[int, int],
    n_patches: int,
    bands: tuple[str, ...],
    *,
    seed: int,
    pixel_scale_arcsec: float,
) -> Scene:
    """Return a scene of the population `survey`: galaxies and stars at random positions, as dense as on the sky."""
    n_objects, n_edge = counts
    cell_arcmin2 = (CELL_PX * pixel_scale_arcsec / 60) ** 2
    # The field gets the area in which the sky has this number of galaxies.
    n_cells = n_objects / (GALAXY_COUNTS.per_arcmin2(*TARGET_MAG) * cell_arcmin2)
    field = plan_field(max(int(np.ceil(n_cells)) + 6, 12), n_patches, pixel_scale_arcsec=pixel_scale_arcsec)
    height, width = field.box.shape_px
    rng = np.random.default_rng([seed, 4])
    inside = _places_inside(field, n_objects, rng)
    edge = np.stack([np.full(n_edge, EDGE_X_PX), rng.uniform(0.2 * height, 0.5 * height, n_edge)], axis=1)
    position = np.concatenate([inside, edge])
    area = height * width * (pixel_scale_arcsec / 60) ** 2
    faint_limits = TARGET_MAG[1], FAINTEST_NEIGHBOR_MAG
    n_faint = int(rng.poisson(area * GALAXY_COUNTS.per_arcmin2(*faint_limits)))
    _, columns, fluxes = draw_survey_galaxies(n_faint, faint_limits, rng)
    faint, _ = profiles_of(columns, rng.uniform(0, (width, height), (n_faint, 2)), fluxes, bands=bands)
    n_stars = int(rng.poisson(area * STAR_COUNTS.per_arcmin2(BRIGHTEST_STAR_MAG, FAINTEST_NEIGHBOR_MAG)))
    star_flux = draw_star_fluxes(n_stars, rng)
    stars = points(rng.uniform(0, (width, height), (n_stars, 2)), star_flux, bands=bands)
    # Galaxies of the list, fainter galaxies and stars become one set of sources.
    parts = [_listed_profiles(truth, position, bands, seed), faint, stars]
    sources = Profiles(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in Profiles.__slots__)
    )
    defects = _defects(field, np.empty(0, np.int64), n_objects, seed)
    defects = dataclasses.replace(defects, stars=_saturated(field, stars))
    return Scene(field, truth, position, np.empty(0, np.int64), sources, defects, bands, seed)


def _places_inside(field: Field, n: int, rng: np.random.Generator) -> Floats:
    """Draw positions (object, 2) in field pixels that have data and are at least half a cell from the edges."""
    height, width = field.box.shape_px
    places = np.empty((0, 2))
    while len(places) < n:
        more = rng.uniform(CELL_PX / 2, (width - CELL_PX / 2, height - CELL_PX / 2), (2 * n, 2))
        with_data = (width - more[:, 0]) + (height - more[:, 1]) > NO_DATA_LEG_PX + CELL_PX
        places = np.concatenate([places, more[with_data]])
    return places[:n]


def _listed_profiles(truth: pa.Table, position_px: Floats, bands: tuple[str, ...], seed: int) -> Profiles:
    """Return the profiles of the galaxies in the truth table.

    They are drawn again in all bands, because the truth may lack some, and the size of a source's box depends on all.
    """
    full = draw_population(len(truth), bands=BANDS, population="survey", seed=seed)
    columns = {
        name: full[name].to_numpy(zero_copy_only=False)
        for name in full.column_names
        if name.startswith(("disk_", "bulge_"))
    }
    fluxes = {
        (part, band): np.nan_to_num(columns[f"{part}_flux_{band}_njy"])
        for part in ("disk", "bulge")
        for band in BANDS
    }
    return profiles_of(columns, position_px, fluxes, bands=bands)[0]


def _saturated(field: Field, stars: Profiles) -> tuple[Star, ...]:
    """Return the stars whose peak exceeds the saturation level in some band."""
    # The fraction of a star's flux in its central pixel, for the sharpest PSF.
    peak = float(moffat_intensity(np.zeros(()), min(PSF_FWHM_ARCSEC.values()))) * field.pixel_scale_arcsec**2
    found = []
    for (x, y), flux in zip(stars.position_px.tolist(), stars.brightest_njy.tolist(), strict=True):
        if flux * peak > SATURATION_NJY:
            relative = flux / BRIGHT_STAR_NJY
            bleed = int(BLEED_PX_AT_BRIGHT * relative**0.5)
            radius = RADIUS_PX_AT_BRIGHT * relative**0.25 if relative > 1 else 0.0
            found.append(Star(-1, x, y, flux, bleed, radius))
    return tuple(found)


def _defects(field: Field, star_cells: npt.NDArray[np.int64], n_objects: int, seed: int) -> Defects:
    """Draw defects in numbers that suit the number of galaxies, at least a few of each kind."""
    return draw_defects(
        field,
        star_cells,
        n_columns=max(1, n_objects // GALAXIES_PER_COLUMN),
        n_tracks=max(4, n_objects // GALAXIES_PER_TRACK),
        seed=seed,
    )


def draw_tile(scene: Scene, box: Box) -> list[Planes]:
    """Return image, mask and variance of the pixels in `box`, with noise and defects, for each band."""
    tile = []
    for band, light in zip(scene.bands, draw_light_of(scene, box), strict=True):
        white = _white(scene, box, band)
        variance = noise_variance(light, band, scene.field.pixel_scale_arcsec)
        image = light + white * np.sqrt(variance)
        # The variance plane of a coadd with correlated noise is too small, see STATED_SIGMA.
        stated = variance if scene.population == "paper" else variance * STATED_SIGMA**2
        mask = np.zeros(box.shape_px, np.int32)
        mask[light > DETECTION_SIGMA * sky_sigma_njy(band, scene.field.pixel_scale_arcsec)] |= bits(
            "DETECTED"
        )
        planes = Planes(box, image.astype(np.float32), mask, stated.astype(np.float32))
        apply_defects(scene.field, scene.defects, planes)
        tile.append(planes)
    return tile


def draw_light_of(scene: Scene, box: Box) -> Floats:
    """Return the light (band, y, x) in the pixels of `box`, nJy per pixel, without noise and defects."""
    if scene.sources is None:
        return _cells_light(scene, box)
    near = scene.near(box).sources
    assert near is not None
    light = np.zeros((len(scene.bands), *box.shape_px))
    # The PSF belongs to the place in the field; only the position in the image depends on the tile's projection.
    psfs = psf_at(scene.field, near.position_px, scene.bands, seed=scene.seed)
    moved = dataclasses.replace(near, position_px=scene.seen_at(near.position_px, box))
    paint(light, moved, psfs, corner_px=(box.x0, box.y0), pixel_scale_arcsec=scene.field.pixel_scale_arcsec)
    return light


def _cells_light(scene: Scene, box: Box) -> Floats:
    """Return the light (band, y, x) of the population `paper`, drawn cell by cell: each has one galaxy, one star or nothing."""
    near = scene.near(box)
    light = np.zeros((len(scene.bands), *box.shape_px))
    psfs = psf_at(scene.field, near.position_px, scene.bands, seed=scene.seed)
    positions = scene.seen_at(near.position_px, box)
    drawn = [
        (
            int(cell),
            draw_galaxy(
                galaxy,
                scene.bands,
                of_bands,
                size_px=CELL_PX,
                offset_px=tuple((position - scene.field.cell_centers(cell)).tolist()),
                pixel_scale_arcsec=scene.field.pixel_scale_arcsec,
            ),
        )
        for cell, galaxy, position, of_bands in zip(
            near.cell, near.truth.to_pylist(), positions, psfs, strict=True
        )
    ]
    for cell, cell_light in [*drawn, *_star_light(scene, box)]:
        cell_box = scene.field.cell_box(cell)
        if (inside := cell_box.overlap(box)) is not None:
            light[:, *inside.slices(box)] += cell_light[:, *inside.slices(cell_box)]
    return light


def _star_light(scene: Scene, box: Box) -> list[tuple[int, Floats]]:
    """Return the cell and the light (band, y, x) of each star. It is cut at the cell, where a Moffat profile is below the noise."""
    cells = set(scene.field.cells_in(box))
    stars = [star for star in scene.defects.stars if star.cell in cells]
    positions = np.array([(star.x, star.y) for star in stars]).reshape(-1, 2)
    psfs = psf_at(scene.field, positions, scene.bands, seed=scene.seed)
    scale = scene.field.pixel_scale_arcsec
    light = []
    for star, (at_x, at_y), of_bands in zip(stars, scene.seen_at(positions, box).tolist(), psfs, strict=True):
        cell = scene.field.cell_box(star.cell)
        y, x = np.ogrid[cell.y0 : cell.y1, cell.x0 : cell.x1]
        radius = np.hypot(x - at_x, y - at_y) * scale
        shapes = [moffat_intensity(radius, psf.fwhm_arcsec) * scale**2 for psf in of_bands]
        light.append((star.cell, star.flux_njy * np.stack(shapes)))
    return light


def _white(scene: Scene, box: Box, band: str) -> Floats:
    """Return noise (y, x) with a standard deviation of 1.

    It is a function of the field pixel, so that tiles agree where they overlap. Tiles with their own projection have their
    own noise.
    """
    # Correlating the noise takes one more pixel on each side.
    halo = 0 if scene.population == "paper" else 1
    wide = Box(box.x0 - halo, box.y0 - halo, box.x1 + halo, box.y1 + halo)
    white = np.empty(wide.shape_px)
    tile_key = [box.x0, box.y0] if scene.own_wcs else []
    for row in range(wide.y0 // CELL_PX, -(-wide.y1 // CELL_PX)):
        for column in range(wide.x0 // CELL_PX, -(-wide.x1 // CELL_PX)):
            # Only the halo is outside the field: there any noise will do, and the numbers of cells wrap around.
            cell = row % scene.field.cells_y * scene.field.cells_x + column % scene.field.cells_x
            rng = np.random.default_rng([scene.seed, 6, cell, BANDS.index(band), *tile_key])
            of_cell = Box(column * CELL_PX, row * CELL_PX, (column + 1) * CELL_PX, (row + 1) * CELL_PX)
            inside = of_cell.overlap(wide)
            if inside is not None:
                noise = rng.standard_normal((CELL_PX, CELL_PX))
                white[inside.slices(wide)] = noise[inside.slices(of_cell)]
    return correlated(white) if halo else white


def psf_map(scene: Scene, box: Box, *, nodes: int = PSF_MAP_NODES) -> Floats:
    """Return PSF widths (band, y, x), FWHM in arcsec, at `nodes` x `nodes` points from the first to the last pixel of a tile."""
    x = np.linspace(box.x0, box.x1 - 1, nodes)
    y = np.linspace(box.y0, box.y1 - 1, nodes)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)  # (y x, xy)
    psfs: list[list[Psf]] = psf_at(scene.field, grid, scene.bands, seed=scene.seed)
    widths = np.array([[psf.fwhm_arcsec for psf in of_bands] for of_bands in psfs])  # (y x, band)
    return widths.T.reshape(len(scene.bands), nodes, nodes)

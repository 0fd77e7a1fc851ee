"""What is simulated in a survey's layout is what galbatch's adapter of that layout reads: light, masks, PSF, units."""

import tomllib

import numpy as np
import pyarrow as pa
import pytest

from galbatch.config import FlagsConfig, SurveyConfig
from galbatch.core.flags import MaskBit
from galbatch.core.types import CutoutSpec, Grid, ObjectTable
from galbatch.errors import ConfigError
from galbatch.ingest import cut_block, read_tiles
from galbatch.simulation import WRITERS, simulate_survey
from galbatch.simulation.scene import draw_light_of, draw_scene

N_OBJECTS = 12
SIZE_PX = 41
BAD = int(MaskBit.BAD | MaskBit.SAT | MaskBit.INTRP | MaskBit.CR | MaskBit.NO_DATA)
KNOWS_PSF = {"legacysurvey", "generic", "stamps"}


@pytest.fixture(
    scope="module", params=[(name, "survey") for name in WRITERS] + [("legacysurvey", "paper")], ids="-".join
)
def simulated(request, tmp_path_factory):
    """(layout, population, tiles, truth as pandas, scene) of a survey of a few galaxies in two tiles and two bands."""
    layout, population = request.param
    folder = tmp_path_factory.mktemp("simulated")
    kinds = {"n_objects": N_OBJECTS, "bands": ("g", "r"), "population": population, "seed": 8}
    survey = simulate_survey(str(folder), patches=2, layout=layout, processes=1, **kinds)
    config = SurveyConfig.model_validate(tomllib.loads(survey.run_toml)["survey"])
    scene = draw_scene(
        N_OBJECTS,
        2,
        ("g", "r"),
        population=population,
        seed=8,
        pixel_scale_arcsec=WRITERS[layout].pixel_scale_arcsec,
    )
    return layout, population, read_tiles(config), scene


def cut(tiles, scene, size_px):
    truth = scene.truth.to_pandas()
    table = ObjectTable(
        truth.object_id.to_numpy(),
        truth.ra_deg.to_numpy(),
        truth.dec_deg.to_numpy(),
        np.arange(len(truth)),
        pa.table({}),
    )
    grid = Grid(size_px, tiles[0].pixel_scale_arcsec)
    return cut_block(
        table,
        tiles,
        spec=CutoutSpec(grid, ("g", "r")),
        flags=FlagsConfig(),
        object_flags=np.zeros(len(table), np.int32),
    )


def test_cutouts_hold_the_true_light_within_the_noise(simulated):
    layout, population, tiles, scene = simulated
    block = cut(tiles, scene, SIZE_PX)
    light = draw_light_of(scene, scene.field.box)
    checked = 0
    for row, (x, y) in enumerate(np.rint(scene.position_px).astype(int).tolist()):
        half = SIZE_PX // 2
        if min(x, y) < half + 2 or x + half + 2 > light.shape[2] or y + half + 2 > light.shape[1]:
            continue
        true = light[:, y - half : y + half + 1, x - half : x + half + 1]
        image = block.image[row]
        # Bricks have projections of their own: there a galaxy may lie a fraction of a pixel off the field's lattice.
        usable = np.isfinite(image) & (true < (50 if layout == "legacysurvey" else 2e3))
        if block.mask is not None:
            usable &= block.mask[row] & BAD == 0
        if usable.sum() < 1000:
            continue
        checked += 1
        for band, sky in enumerate((2.0, 2.6)):
            sigma = sky * tiles[0].pixel_scale_arcsec / 0.168
            seen = (image[band] - true[band])[usable[band]] / np.sqrt(
                sigma**2 + true[band][usable[band]] / 66
            )
            scatter = 1.4826 * np.median(np.abs(seen - np.median(seen)))
            assert scatter == pytest.approx(1.0, abs=0.12)
            assert abs(np.median(seen)) < 0.15
    assert checked >= (8 if population == "survey" else 3)  # the paper's galaxies fill their cutouts


def test_fluxes_are_in_nanojansky(simulated):
    """Light in 15 x 15 px about galaxies, seen against drawn: within the noise, and within 2 % all together."""
    _, _, tiles, scene = simulated
    block = cut(tiles, scene, 15)
    light = draw_light_of(scene, scene.field.box)
    seen, true = [], []
    for row, (x, y) in enumerate(np.rint(scene.position_px).astype(int).tolist()):
        bad = 0 if block.mask is None else block.mask[row] & BAD
        if min(x, y) > 12 and np.isfinite(block.image[row]).all() and np.all(bad == 0):
            seen.append(block.image[row].sum(axis=(1, 2)))
            true.append(light[:, y - 7 : y + 8, x - 7 : x + 8].sum(axis=(1, 2)))
    seen, true = np.array(seen), np.array(true)
    assert len(seen) >= 8
    # Noise of a sum of 225 correlated pixels, and 1 % where a brick's pixels lie a little off the field's.
    sigma = np.hypot(15 * np.array([2.0, 2.6]) * 1.41 * tiles[0].pixel_scale_arcsec / 0.168, 0.01 * true)
    assert np.abs((seen - true) / np.hypot(sigma, np.sqrt(true / 66))).max() < 4
    assert seen.sum() / true.sum() == pytest.approx(1.0, abs=0.02)


def test_masks_and_weights_are_read_where_the_layout_has_them(simulated):
    layout, population, tiles, scene = simulated
    block = cut(tiles, scene, SIZE_PX)
    if layout == "galaxiesml":
        assert (block.mask is None) or not block.mask.any()
        return
    sigma = np.sqrt(np.nanmedian(block.variance[:, 0]))
    stated = 1.0 if population == "paper" else 1 / 1.08
    expected = 2.0 * stated * tiles[0].pixel_scale_arcsec / 0.168
    assert expected * 0.99 < sigma < expected * 1.2  # photons add
    names = set().union(*(tile.mask_planes for tile in tiles))
    assert {"SAT", "BRIGHT_OBJECT"} <= {
        "SAT" if n == "SATUR" else "BRIGHT_OBJECT" if n == "BRIGHT" else n for n in names
    }
    assert tiles[0].pixel_scale_arcsec == pytest.approx(WRITERS[layout].pixel_scale_arcsec, rel=1e-6)


def test_psf_is_known_where_the_layout_knows_it(simulated):
    layout, _, tiles, scene = simulated
    block = cut(tiles, scene, SIZE_PX)
    if layout not in KNOWS_PSF:
        assert np.isnan(block.psf_fwhm_arcsec).all()
        return
    true = np.stack([scene.truth[f"psf_fwhm_{band}_arcsec"].to_numpy() for band in "gr"], axis=1)
    seen = np.isfinite(block.psf_fwhm_arcsec)
    assert seen.mean() > 0.9
    # A card has one number for the tile (generic), a map and stamps the value at the object.
    rtol = 0.12 if layout == "generic" else 0.01
    np.testing.assert_allclose(block.psf_fwhm_arcsec[seen], true[seen], rtol=rtol)


def test_an_unknown_layout_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="layout 'sdss' cannot be simulated; expected one of hsc, lsst"):
        simulate_survey(str(tmp_path), n_objects=4, layout="sdss", processes=1)
    assert not list(tmp_path.iterdir())

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.errors import ConfigError, OutputError
from galbatch.simulation import WRITERS, scene, simulate_survey
from galbatch.simulation.defects import Defects, Planes, apply_defects
from galbatch.simulation.field import Box, plan_field

NJY_PER_ADU = 57.54399
PATCHES = ("4,4", "5,4", "4,5", "5,5")


def open_patch(folder, name, band="G"):
    path = folder / f"deepCoadd-results/HSC-{band}/9813/{name}/calexp-HSC-{band}-9813-{name}.fits"
    return fits.open(path, memmap=False)


def centroid(cutout):
    """Center (x, y) under a Gaussian window that moves with it."""
    y, x = np.mgrid[: cutout.shape[0], : cutout.shape[1]]
    center = np.array([30.0, 30.0])
    for _ in range(30):
        weight = cutout * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / 18)
        center = np.array([(axis * weight).sum() / weight.sum() for axis in (x, y)])
    return center


def mask_of(hdus, plane):
    return (hdus["MASK"].data >> hdus["MASK"].header[f"MP_{plane}"]) & 1 == 1


def test_files_are_laid_out_as_hsc_does(survey):
    folder, made = survey
    found = sorted(path.name for path in (folder / "deepCoadd-results").rglob("*.fits"))
    assert found == sorted(f"calexp-HSC-{band}-9813-{name}.fits" for band in "GR" for name in PATCHES)
    assert made.n_tiles == 8
    with open_patch(folder, "4,4") as hdus:
        assert hdus[0].header["FLUXMAG0"] == pytest.approx(10 ** (0.4 * 27.0), rel=1e-5)
        assert hdus[0].data is None
        assert [hdu.header["BITPIX"] for hdu in hdus[1:4]] == [-32, 32, -32]


def test_mask_planes_are_named_with_bits_that_are_not_in_order(survey):
    with open_patch(survey[0], "5,4", "R") as hdus:
        bits = {key: value for key, value in hdus["MASK"].header.items() if key.startswith("MP_")}
    names = [
        "BAD",
        "SAT",
        "INTRP",
        "CR",
        "EDGE",
        "DETECTED",
        "DETECTED_NEGATIVE",
        "SUSPECT",
        "NO_DATA",
        "BRIGHT_OBJECT",
        "CLIPPED",
    ]
    assert sorted(bits) == sorted(f"MP_{name}" for name in names)
    assert len(set(bits.values())) == len(names)
    assert [bits[f"MP_{name}"] for name in names] != list(range(len(names)))


def test_list_holds_every_galaxy_and_entries_that_are_none(survey, truth):
    listed = pq.read_table(survey[1].objects)
    assert listed.column_names == ["object_id", "ra_deg", "dec_deg", "z_best"]
    ids, true_ids = (set(table["object_id"].to_pylist()) for table in (listed, truth))
    assert len(truth) == 62  # 60 inside, 2 at the edge
    assert true_ids < ids
    assert len(ids) == len(listed) == survey[1].n_listed == 66
    assert {"ra_deg", "dec_deg", "psf_fwhm_g_arcsec", "psf_fwhm_r_arcsec"} < set(truth.column_names)


def test_patches_of_the_tract_differ_by_whole_pixels_and_overlap_by_100(survey):
    reference = {}
    for name in PATCHES:
        with open_patch(survey[0], name) as hdus:
            header = hdus["IMAGE"].header
            reference[name] = np.array([header["CRPIX1"], header["CRPIX2"]])
            size = header["NAXIS1"]
    shift = reference["4,4"] - reference["5,5"]
    assert (shift == np.round(shift)).all()
    np.testing.assert_array_equal(size - shift, 100)


@pytest.mark.parametrize("plane", ["IMAGE", "MASK", "VARIANCE"])
def test_overlapping_patches_agree_pixel_by_pixel(survey, plane):
    with open_patch(survey[0], "4,4") as left, open_patch(survey[0], "5,4") as right:
        np.testing.assert_array_equal(left[plane].data[:, -100:], right[plane].data[:, :100])
    with open_patch(survey[0], "4,4") as low, open_patch(survey[0], "4,5") as high:
        np.testing.assert_array_equal(low[plane].data[-100:], high[plane].data[:100])


def test_galaxies_are_at_their_positions_with_their_flux(survey, truth):
    """The centroid within 0.2 px of the sky position, and the light that of Table 1's flux in nJy."""
    galaxies = truth.slice(0, 60).to_pandas()
    bright = galaxies[(galaxies.flux_njy > 3e5) & (galaxies.re_arcsec < 2.0)]
    n_seen = 0
    for name in PATCHES:
        with open_patch(survey[0], name) as hdus:
            image, wcs = hdus["IMAGE"].data * NJY_PER_ADU, WCS(hdus["IMAGE"].header)
            bad = hdus["MASK"].data & ~(1 << hdus["MASK"].header["MP_DETECTED"])
            for galaxy in bright.itertuples():
                x, y = wcs.all_world2pix(galaxy.ra_deg, galaxy.dec_deg, 0)
                column, row = round(float(x)), round(float(y))
                box = slice(row - 30, row + 31), slice(column - 30, column + 31)
                if row < 30 or column < 30 or image[box].shape != (61, 61) or bad[box].any():
                    continue
                n_seen += 1
                cutout = image[box]
                np.testing.assert_allclose(centroid(cutout), [x - column + 30, y - row + 30], atol=0.2)
                assert 0.6 < cutout.sum() / galaxy.flux_njy < 1.02
    assert n_seen >= 5


def test_noise_of_the_sky_is_what_the_variance_plane_says(survey):
    with open_patch(survey[0], "4,4", "R") as hdus:
        image, variance = hdus["IMAGE"].data, hdus["VARIANCE"].data
    faint = variance < 2.602**2 / NJY_PER_ADU**2
    assert faint.sum() > 5000
    scaled = image[faint] / np.sqrt(variance[faint])
    robust = 1.4826 * np.median(np.abs(scaled - np.median(scaled)))
    assert robust == pytest.approx(1.0, abs=0.04)
    assert np.sqrt(variance.min()) * NJY_PER_ADU == pytest.approx(2.6, rel=1e-5)


def test_defects_are_masked(survey):
    with open_patch(survey[0], "5,5") as hdus:
        missing = mask_of(hdus, "NO_DATA")
        np.testing.assert_array_equal(missing, np.isnan(hdus["IMAGE"].data))
        assert missing.sum() == pytest.approx(230**2 / 2, rel=0.02)
        edge = mask_of(hdus, "EDGE")
        assert edge[-1, 0]
        assert edge[0, -1]
        assert not edge[0, 0]  # inside the field
    seen = set()
    for name in PATCHES:
        with open_patch(survey[0], name) as hdus:
            seen |= {
                plane
                for plane in ("SAT", "BRIGHT_OBJECT", "BAD", "CR", "INTRP")
                if mask_of(hdus, plane).any()
            }
    assert seen == {"SAT", "BRIGHT_OBJECT", "BAD", "CR", "INTRP"}


def test_two_processes_write_what_one_writes(survey, tmp_path):
    simulate_survey(str(tmp_path), n_objects=60, seed=5, processes=2)
    for path in survey[0].rglob("*.*"):
        assert path.read_bytes() == (tmp_path / path.relative_to(survey[0])).read_bytes(), path.name


def test_tiles_of_another_survey_are_refused(tmp_path):
    simulate_survey(str(tmp_path), n_objects=4, bands=("g",), patches=2, processes=1)
    with pytest.raises(OutputError, match="holds 2 tiles of another survey"):
        simulate_survey(str(tmp_path), n_objects=4, bands=("r",), patches=2, processes=1)
    again = simulate_survey(str(tmp_path), n_objects=4, bands=("g",), patches=2, processes=1)
    assert again.n_tiles == 2


@pytest.mark.parametrize("bands", [(), ("g", "g")])
def test_no_bands_or_one_twice_are_refused(tmp_path, bands):
    with pytest.raises(ConfigError, match="give one or more, each once"):
        simulate_survey(str(tmp_path), n_objects=4, bands=bands, patches=2, processes=1)


@pytest.mark.parametrize("n_patches", [1, 2, 3, 4, 6, 9])
def test_a_field_has_the_cells_and_patches_asked_for(n_patches):
    field = plan_field(500, n_patches)
    assert len({patch.name for patch in field.patches()}) == n_patches
    height, width = field.box.shape_px
    assert (width // 100) * (height // 100) >= 500
    assert width * height < 1.35 * 500 * 100**2


def test_fields_wider_than_a_tract_have_a_file_for_each_patch():
    names = [patch.name for patch in plan_field(500, 22).patches()]  # 11 x 2
    for layout in ("hsc", "lsst", "legacysurvey", "generic"):
        paths = {path for name in names for path in WRITERS[layout].paths(name, ("g",))}
        assert len(paths) == 22 * len(WRITERS[layout].paths("4,4", ("g",))), layout


def test_flat_fields_have_room_at_the_edge(monkeypatch):
    monkeypatch.setattr(scene, "GALAXIES_PER_STRAY", 10)
    drawn = scene.draw_scene(130, 13, ("g",), population="paper", seed=1, pixel_scale_arcsec=0.168)
    at_edge = drawn.position_px[:, 0] < 20
    assert at_edge.sum() == 3  # of 13 wanted: the one patch high field has that many cells there
    assert len(drawn.truth) == 133


@pytest.mark.parametrize("column_px", [0, 19])
def test_a_bad_column_at_the_rim_of_a_margin_is_left_alone(column_px):
    box = Box(0, 0, 20, 20)
    image = np.random.default_rng(1).normal(size=(20, 20)).astype(np.float32)
    planes = Planes(box, image.copy(), np.zeros((20, 20), np.int32), np.ones((20, 20), np.float32))
    column = Box(column_px, 3, column_px + 1, 9)
    apply_defects(plan_field(500, 1), Defects((), (column,), ()), planes)
    assert np.array_equal(planes.image, image)

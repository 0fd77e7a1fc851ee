import pytest
from astropy.io.votable.ucd import parse_ucd

from galbatch.core.columns import OWN_COLUMNS, PIXEL_FLAGS, photometry_columns
from galbatch.core.ucds import BAND_WORDS, NAME_WORDS, is_redshift, quantity_ucd
from galbatch.models import bundle_path, read_bundle_metadata, result_columns


@pytest.mark.parametrize(
    ("name", "unit", "bands", "ucd"),
    [
        ("flux_njy", "nJy", "g", "phot.flux.density;em.opt.B"),
        ("mag", "mag", "g", "phot.mag;em.opt.B"),
        ("mag_r", "mag", "gr", "phot.mag;em.opt.R"),
        ("mag", "mag", "gr", "phot.mag"),
        ("color_gr_mag", "mag", "gri", "phot.color;em.opt.B;em.opt.R"),
        ("flux_w2_njy", "uJy", ("r", "w2"), "phot.flux.density;em.IR.4-8um"),
        ("flux_njy", "nJy", ("F814W",), "phot.flux.density"),
        ("re_arcsec", "arcsec", "g", "phys.angSize"),
        ("pa_deg", "deg", "g", "pos.posAng"),
        ("bt", "", "g", "src.morph.param"),
        ("z", "", "griz", "src.redshift.phot"),
        ("oh_p50", "", "gri", "stat.param"),
        ("odd", "furlong^x", "gri", "stat.param"),
    ],
)
def test_a_quantity_is_known_by_its_name_unit_and_bands(name, unit, bands, ucd):
    assert quantity_ucd(name, unit, tuple(bands)) == ucd


def in_vocabulary(ucd):
    parse_ucd(ucd, check_controlled_vocabulary=True)
    return True


def test_words_are_in_the_controlled_vocabulary():
    assert all(in_vocabulary(f"phot.mag;{word}") for word in BAND_WORDS.values())
    assert all(in_vocabulary(word) for word in NAME_WORDS.values())


@pytest.mark.parametrize("spec", ["demo:gampen", "demo:gampen_survey", "demo:sfnet"])
def test_every_column_has_a_ucd_of_the_controlled_vocabulary(spec):
    metadata, _ = read_bundle_metadata(bundle_path(spec))
    columns = result_columns(metadata, name="net", quantiles=(0.15865, 0.5, 0.84135))
    assert all(in_vocabulary(column.ucd) for column in (*OWN_COLUMNS, PIXEL_FLAGS, *columns))
    ucds = {column.name: column.ucd for column in columns}
    if spec == "demo:gampen":
        assert ucds["net_flux_njy_q500"] == "phot.flux.density;em.opt.B;stat.median"
        assert ucds["net_mag_q15865"] == "phot.mag;em.opt.B;stat.percentile"
        assert ucds["net_re_arcsec_std"] == "stat.stdev;phys.angSize"
        assert ucds["net_corr_bt_re_arcsec"] == "stat.correlation;src.morph.param;phys.angSize"
    if spec == "demo:sfnet":
        assert ucds["net_color_gr_mag_mean"] == "phot.color;em.opt.B;em.opt.R;stat.mean"


def test_a_redshift_is_known_by_its_name_or_by_the_ucd_that_is_stated():
    assert is_redshift(quantity_ucd("z", "", ()), "")
    assert is_redshift(quantity_ucd("z_phot", "", ("g", "z")), "")
    assert is_redshift("src.redshift;stat.median", "")
    assert not is_redshift(quantity_ucd("mag_z", "mag", ("g", "z")), "mag")
    assert not is_redshift(quantity_ucd("z_kpc", "kpc", ()), "kpc")
    assert not is_redshift("src.redshiftless", "")


def test_photometry_states_the_part_of_the_spectrum():
    columns = photometry_columns(["g", "HSC-X"])
    assert all(in_vocabulary(column.ucd) for column in columns)
    ucds = {column.name: column.ucd for column in columns}
    assert ucds["phot_flux_njy_g"] == "phot.flux.density;em.opt.B"
    assert ucds["phot_flux_err_njy_g"] == "stat.error;phot.flux.density;em.opt.B"
    assert ucds["phot_peak_njy_g"] == "phot.flux.density;em.opt.B;stat.max"
    # A band that the table does not have is an optical one.
    assert ucds["phot_half_light_radius_arcsec_HSC-X"] == "phys.angSize;em.opt"

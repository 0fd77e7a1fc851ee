import numpy as np
import pytest
from astropy import units as u

from galbatch.errors import UsageError
from galbatch.reporting.comparison.units import converted, unit_of_name

VALUES = np.array([1.0, 250.0, np.nan])


@pytest.mark.parametrize(
    ("unit", "wanted"), [("arcmin", "arcsec"), ("uJy", "nJy"), ("%", ""), ("57.544 nJy", "nJy")]
)
def test_units_become_each_other_as_in_astropy(unit, wanted):
    expected = (VALUES * u.Unit(unit)).to_value(u.Unit(wanted))
    np.testing.assert_allclose(converted(VALUES, unit, wanted, where="t"), expected, rtol=1e-12)


def test_fluxes_and_magnitudes_become_each_other():
    magnitudes = converted(VALUES, "uJy", "mag", where="t")
    np.testing.assert_allclose(magnitudes, (VALUES * u.uJy).to_value(u.ABmag), atol=1e-3)
    np.testing.assert_allclose(converted(magnitudes, "mag", "nJy", where="t"), 1000 * VALUES)
    np.testing.assert_allclose(converted(VALUES, "mag(AB)", "mag", where="t"), VALUES)


def test_a_flux_that_is_not_positive_has_no_magnitude():
    assert np.isnan(converted(np.array([0.0, -3.0]), "nJy", "mag", where="t")).all()


@pytest.mark.parametrize(
    ("unit", "said"), [("kpc", "is in kpc, which does not become arcsec"), ("asecs", "asecs")]
)
def test_other_units_are_refused(unit, said):
    with pytest.raises(UsageError, match=rf"t.fits: column R: .*{said}.*; .*state its unit by --column"):
        converted(VALUES, unit, "arcsec", where="t.fits: column R")


def test_names_state_units():
    assert unit_of_name("preds_R_e_asec") == "arcsec"
    assert unit_of_name("flux_uJy") == "uJy"
    # milli or mega
    assert unit_of_name("flux_mjy") == unit_of_name("mag_r") == ""

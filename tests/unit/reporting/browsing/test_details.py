import re

import pytest

import galbatch
from galbatch.core.flags import PixelFlag
from galbatch.reporting.browsing.details import corner_html, object_html


@pytest.fixture(scope="module")
def shown(made):
    """HTML of the first object of the list, which is saturated."""
    one = galbatch.open_catalog(made[0]).object(40000000000000001)
    return object_html(one, made[2])


def test_all_bands_are_shown_with_their_marks(shown):
    assert re.findall(r"<figcaption>(.*?)</figcaption>", shown) == ["r, g as red to blue", "g", "r"]
    assert shown.count("<svg") == 3


def test_values_and_flags_are_those_of_the_object(shown, made):
    row = galbatch.open_catalog(made[0]).ids(40000000000000001).to_pandas().iloc[0]
    low, high = row["gampen_re_arcsec_q15865"], row["gampen_re_arcsec_q84135"]
    assert f"<td>{row['gampen_re_arcsec_q500']:.2f}</td><td>{low:.2f} to {high:.2f}</td>" in shown
    assert f'<b class="quality">SATURATED</b> {PixelFlag.SATURATED.text}' in shown


def test_without_a_store_the_panel_says_so(made, tmp_path):
    one = galbatch.open_catalog(made[0]).object(40000000000000001)
    text = object_html(one, str(tmp_path / "nothing.zarr"))
    assert "no cutout store" in text
    assert "SATURATED" in text


def test_without_pass_outputs_the_panel_says_how_to_keep_them(made):
    text = corner_html(made[0], 40000000000000001)
    assert "<img" not in text
    assert "Posterior" in text

import base64
import html
import re
import shutil

import numpy as np
import pytest

from galbatch.api.pictures import BLANK_RGB, intensity_stretch
from galbatch.core.flags import ModelFlag, PixelFlag
from galbatch.errors import CatalogError
from galbatch.models import Audit
from galbatch.reporting import write_report
from galbatch.reporting.cards import _caption
from galbatch.reporting.contents import Quantity


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(made[0], str(path), truth=made[1], store=made[2])
    return path.read_text(encoding="utf-8")


def cells(page, name):
    """Text of the table row that begins with `name`."""
    row = re.search(rf"<tr[^>]*><td><code>{name}</code>.*?</tr>", page, flags=re.DOTALL)[0]
    return [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, flags=re.DOTALL)]


def test_page_needs_nothing_from_outside(page):
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)


def test_every_figure_is_a_png(page):
    pictures = re.findall(r"base64,([A-Za-z0-9+/=]+)", page)
    assert len(pictures) >= 1 + 1 + 3 + 12  # sky, distributions, three comparisons, gallery
    assert all(base64.b64decode(picture)[:8] == b"\x89PNG\r\n\x1a\n" for picture in pictures)


def test_page_says_what_the_catalog_is(page):
    assert "tiny: posteriors of 400 galaxies" in page
    assert ">complete<" in page
    assert "3fa1" * 16 in page


def test_page_says_that_stated_errors_are_doubtful(made, tmp_path):
    """The sentence of an audit whose errors are larger than stated, before the audit itself."""
    path = tmp_path / "catalog"
    shutil.copytree(made[0], path)
    found = Audit((0.16, 0.5), 150, 10, 2, stated=(2.0, 1.0), actual=(4.0, 2.0))
    lines = (
        f"galbatch_{kind}_gampen={text}\n" for kind, text in (("audit", found.text), ("doubt", found.doubt))
    )
    with (path / "hats.properties").open("a", encoding="utf-8") as properties:
        properties.writelines(lines)
    write_report(str(path), str(tmp_path / "report.html"))
    text = html.unescape(re.sub(r"<[^>]+>", " ", (tmp_path / "report.html").read_text(encoding="utf-8")))
    assert re.search(
        r"doubt of gampen\s+Monte Carlo errors are 1\.41 times those stated \(140 audited objects\)", text
    )
    assert "actual over stated 1.41" in text


def test_flags_are_counted_and_explained(page):
    assert cells(page, "SATURATED") == ["SATURATED", "4", "1.0 %", PixelFlag.SATURATED.text]
    assert cells(page, "NEIGHBOR")[1] == "4"
    assert cells(page, "MODEL_FAILED")[1] == "1"
    assert cells(page, "RESAMPLED")[1:3] == ["0", ""]


def test_every_flag_is_explained_in_the_words_of_the_table(page):
    text = html.unescape(page)
    for flag in (*PixelFlag, *ModelFlag):
        assert flag.text in text


def test_gallery_shows_some_objects_of_each_flag(page):
    flagged = page.split("<h3>Flagged</h3>")[1]
    assert 1 <= flagged.count('<span class="chip">SATURATED') <= 2
    assert 1 <= flagged.count('<span class="chip">NEIGHBOR') <= 2


def test_without_truth_and_store_there_is_no_comparison_and_no_gallery(made, tmp_path):
    write_report(made[0], str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Truth and posterior" not in page
    assert "Gallery" not in page
    assert "What the networks found" in page


def test_no_catalog_is_said_so(tmp_path):
    with pytest.raises(CatalogError, match="nothing"):
        write_report(str(tmp_path / "nothing"), str(tmp_path / "page.html"))


def test_the_intensity_stretch_keeps_color_and_grays_out_missing_pixels():
    image = np.full((2, 8, 8), 100.0)
    image[1, :4] *= 2  # redder in the lower half
    image[:, 7, 7] = 1e5  # the brightest pixel sets the white
    image[:, 0, 0] = np.nan
    rgb = intensity_stretch(image, np.array([2.0, 2.0]))
    np.testing.assert_allclose(rgb[0, 0], BLANK_RGB)
    np.testing.assert_allclose(rgb[6, 6, 0], rgb[6, 6, 2])
    assert rgb[2, 2, 0] > rgb[2, 2, 1] > rgb[2, 2, 2]
    assert 0 <= rgb.min() <= rgb.max() <= 1


@pytest.mark.parametrize(
    ("quantiles", "value", "up"),
    [([1.2, 1.234, 1.3], "1.234", "+0.066"), ([np.nan, 1.234, np.nan], "1.23", "")],
    ids=["posterior", "point value"],
)
def test_caption_shows_two_figures_of_the_width(quantiles, value, up):
    quantity = Quantity("m", "re_arcsec", "arcsec", (0.15865, 0.5, 0.84135), np.array([quantiles]))
    caption = _caption(quantity, 0, {})
    assert (caption["value"], caption["up"], caption["true"]) == (value, up, "")

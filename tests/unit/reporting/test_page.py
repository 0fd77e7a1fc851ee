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
from galbatch.reporting.contents import Quantity, read_contents
from galbatch.reporting.gallery import choose_pictures

BUNDLE = "3fa1" * 16


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(made[0], str(path), truth=made[1], store=made[2])
    return path.read_text(encoding="utf-8")


def cells(page, name):
    """Text of the table row that begins with `name`."""
    row = re.search(rf"<tr[^>]*><td class=\"title\"><code>{name}</code>.*?</tr>", page, flags=re.DOTALL)[0]
    return [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, flags=re.DOTALL)]


def test_page_needs_nothing_from_outside(page):
    # Bokeh's own code, which is inside the page, has names of namespaces and of its makers; test_report_browser.py sees that it asks for nothing.
    page = re.sub("<!-- Bokeh -->.*?<!-- /Bokeh -->", "", page, flags=re.DOTALL)
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)


def test_every_figure_is_a_png(page):
    pictures = re.findall(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"', page)
    assert len(pictures) >= 1 + 1 + 3 + 12  # sky, distributions, three comparisons, gallery
    assert all(base64.b64decode(picture)[:8] == b"\x89PNG\r\n\x1a\n" for picture in pictures)


def test_page_says_what_the_catalog_is(page):
    assert "tiny: posteriors of 400 galaxies" in page
    assert ">complete<" in page
    assert BUNDLE in page


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


def test_the_page_says_what_it_sampled(made, tmp_path, monkeypatch, page):
    assert "random sample" not in re.sub("<!-- Bokeh -->.*?<!-- /Bokeh -->", "", page, flags=re.DOTALL)
    monkeypatch.setattr("galbatch.reporting.page.MOST_POINTS", 100)
    write_report(made[0], str(tmp_path / "report.html"), truth=made[1])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Points are those of a random sample of up to 100 objects" in text


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


def test_the_gallery_comes_by_itself_where_the_store_is_beside_the_catalog(made, tmp_path):
    write_report(made[0], str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Truth and posterior" not in page
    assert "What the networks found" in page
    assert page.count('<figure id="object-4000') >= 12


def test_no_object_has_two_cards(made):
    """Flags of information leave an object fine, and do not show it a second time."""
    clean, flagged = choose_pictures(made[2], read_contents(made[0]))
    rows = [one.row for one in (*clean, *flagged)]
    assert len(clean) == 12
    assert len(set(rows)) == len(rows)


def test_pictures_have_a_bar_and_directions(page):
    assert page.count('<svg class="marks"') == page.count("<figure id=")
    assert "r, g from red to blue" in page


def test_the_training_range_is_shown_with_the_share_outside(made, tmp_path):
    """Of 399 medians of a ratio those above 0.5 are outside."""
    path = tmp_path / "catalog"
    shutil.copytree(made[0], path)
    with (path / "hats.properties").open("a", encoding="utf-8") as properties:
        properties.write("galbatch_trained_gampen=bt -9 0.5\n")
    write_report(str(path), str(tmp_path / "report.html"))
    median = next(one for one in read_contents(made[0]).quantities if one.parameter == "bt").median
    share = np.mean(median[np.isfinite(median)] > 0.5)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"bulge-to-total ratio {100 * share:.1f} % (-9 to 0.5)" in text


def test_without_a_store_there_is_no_gallery(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "catalog")
    write_report(str(tmp_path / "catalog"), str(tmp_path / "page.html"))
    assert "Gallery" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_every_anchor_that_is_linked_is_there_once(page):
    ids = re.findall(r' id="([^"]+)"', page)
    assert [one for one in set(ids) if ids.count(one) > 1] == []
    linked = re.findall(r'href="#([^"]+)"', page)
    assert set(linked) <= set(ids)
    assert {"usable", "catalog", "truth", "found", "flags", "gallery", "use"} <= set(linked)


def test_the_headline_says_what_is_usable_and_why_the_rest_is_not(page):
    """Of 400 objects four are saturated and one has no values; neighbors are information."""
    text = html.unescape(re.sub(r"<[^>]+>", " ", page.split("</section>")[0]))
    assert "98.8 % usable" in " ".join(text.split())
    assert "395 of 400 galaxies" in text
    rows = re.findall(r"<li><code>(\w+)</code>.*?class=\"n\">(\d+) · ([\d.]+ %)", page, flags=re.DOTALL)
    assert rows == [("SATURATED", "4", "1.0 %"), ("MODEL_FAILED", "1", "0.2 %")]


def test_hashes_are_folded_away(page):
    folded = re.search(r"<details>.*?</details>", page, flags=re.DOTALL)[0]
    assert BUNDLE in folded
    assert page.count(BUNDLE) == 1


def test_the_code_that_loads_the_catalog_gives_the_usable_objects(page):
    blocks = re.findall(r"<pre><code>(.*?)</code></pre>", page, flags=re.DOTALL)
    found = {}
    exec(html.unescape(blocks[0]), found)  # what a reader would copy
    assert len(found["usable"]) == 395


def test_the_paragraph_on_methods_says_passes_and_quantiles(page):
    text = html.unescape(re.search(r'<pre class="text">(.*?)</pre>', page, flags=re.DOTALL)[1])
    assert text.startswith("Posteriors of 400 galaxies were inferred with galbatch")
    assert "0.02275, 0.15865, 0.5, 0.84135, 0.97725" in text


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

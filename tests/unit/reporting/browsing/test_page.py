"""The page's Python side: what a browser would send, and what the page shows after it."""

import re

import numpy as np
import pytest
from astropy.table import QTable
from bokeh.document import Document
from bokeh.events import ButtonClick, SelectionGeometry, Tap

import galbatch
from galbatch.objects import read_table
from galbatch.reporting.browsing import panels
from galbatch.reporting.browsing.page import BrowsePage
from galbatch.reporting.browsing.rows import BrowsedRows


@pytest.fixture(scope="module")
def rows(made):
    return BrowsedRows.read(galbatch.open_catalog(made[0]))


@pytest.fixture
def document(rows, made, tmp_path):
    document = Document()
    BrowsePage(rows, made[2], str(tmp_path / "chosen.csv")).add_to(document)
    return document


def root(document, name):
    return document.get_model_by_name(name)


def click(document, name):
    document.callbacks.trigger_event(ButtonClick(root(document, name)))


def enclose(document, name, x, y):
    geometry = {"type": "rect", "x0": x[0], "x1": x[1], "y0": y[0], "y1": y[1]}
    document.callbacks.trigger_event(SelectionGeometry(root(document, name), geometry, final=True))


def counts(document):
    return [
        int(n.replace(",", "")) for n in re.findall(r"<b[^>]*>([\d,]+)</b>", root(document, "counts").text)
    ]


def drawn(document, name):
    """Points of a panel, and whether it shows their density."""
    shading, points = (one.data_source.data for one in root(document, name).renderers[:2])
    return len(points["x"]), len(shading["image"]) == 1


def test_both_panels_show_all_objects_with_values(document):
    assert counts(document) == [400, 0]
    assert drawn(document, "sky") == (400, False)
    assert drawn(document, "scatter") == (399, False)


def test_all_quality_flags_leave_the_good_objects(document):
    click(document, "usable")
    assert counts(document)[0] == 395
    root(document, "flags_are").active = 1
    assert counts(document)[0] == 5
    assert drawn(document, "sky") == (5, False)


def test_boxes_add_take_away_and_are_saved(document, rows, tmp_path):
    bt = rows.values("gampen_bt_q500")
    n_low, n_lowest = int((bt <= 0.3).sum()), int((bt <= 0.1).sum())
    enclose(document, "scatter", (-9, 0.3), (-9, 9))
    assert counts(document) == [400, n_low]
    root(document, "mode").active = 2
    enclose(document, "scatter", (-9, 0.1), (-9, 9))
    assert counts(document) == [400, n_low - n_lowest]
    click(document, "save")
    saved = read_table(str(tmp_path / "chosen.csv"))["object_id"].to_pylist()
    assert set(saved) == set(rows.ids(np.flatnonzero((bt > 0.1) & (bt <= 0.3))))
    click(document, "clear")
    assert counts(document) == [400, 0]
    click(document, "save")
    assert "nothing is selected" in root(document, "saved").text


def test_a_lasso_selects_what_lies_in_it(document, rows):
    x, y = rows.values("gampen_bt_q500"), rows.values("gampen_re_arcsec_q500")
    corners = {"type": "poly", "x": [0.0, 1.0, 0.0], "y": [0.0, 0.0, 6.0]}
    document.callbacks.trigger_event(SelectionGeometry(root(document, "scatter"), corners, final=True))
    inside = (x > 0) & (y > 0) & (y < 6 * (1 - x))
    assert counts(document)[1] == inside.sum() > 50


def test_a_click_opens_the_nearest_object(document, rows):
    row = 123
    place = {"x": rows.values("ra_deg")[row], "y": rows.values("dec_deg")[row]}
    document.callbacks.trigger_event(Tap(root(document, "sky"), **place))
    assert str(rows.ids(np.array([row]))[0]) in root(document, "object").text


def test_neighbors_in_the_embedding_are_shown_and_opened(rows, made, tmp_path, monkeypatch):
    """The catalog of these tests has none: they stand in for what `Catalog.similar` finds."""
    document = Document()
    nearest = rows.ids(np.array([5, 7, 9]))
    found = QTable({"object_id": nearest, "distance": [0.25, 0.5, 1.25]})
    asked = []
    monkeypatch.setattr(BrowsedRows, "embedded", "gampen")
    monkeypatch.setattr(
        galbatch.Catalog, "similar", lambda catalog, *given, model: asked.append((*given, model)) or found
    )
    page = BrowsePage(rows, made[2], str(tmp_path / "chosen.csv"))
    page.add_to(document)
    object_id = rows.ids(np.array([3]))[0]
    root(document, "go_to").value = str(object_id)
    page._show_similar(3, object_id)
    assert asked == [(object_id, 7, "gampen")]
    text = root(document, "similar").text
    assert text.count("<img") == 3
    assert "distance 1.25" in text
    buttons = root(document, "neighbors")
    assert (buttons.labels, buttons.visible) == ([str(one) for one in nearest], True)
    buttons.active = 1
    assert str(nearest[1]) in root(document, "object").text


def test_an_unknown_id_is_said_so(document):
    root(document, "go_to").value = "12"
    assert "no object 12" in root(document, "saved").text


def test_many_objects_are_shown_as_density(document, monkeypatch):
    monkeypatch.setattr(panels, "SHADED_ABOVE", 100)
    root(document, "x_log").active = [0]
    assert drawn(document, "scatter") == (0, True)
    image = root(document, "scatter").renderers[0].data_source.data["image"][0]
    # Logarithms of the counts; a third of the medians of a ratio of 0 are negative, and have none.
    n_positive = int((medians(document) > 0).sum())
    assert np.nansum(10**image) == pytest.approx(n_positive, rel=0.02)


def medians(document):
    catalog = galbatch.open_catalog(document.template_variables["path"])
    return catalog.to_pandas(["gampen_bt_q500"])["gampen_bt_q500"].to_numpy()

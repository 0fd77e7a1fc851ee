"""The cards that notebooks show, in a browser with the style that JupyterLab gives to the output of cells."""

from __future__ import annotations

import pytest

from galbatch.core.texts import html_card

# The rules of JupyterLab 4.6 for lists of terms.
JUPYTERLAB = """
.jp-OutputArea-output dl, .jp-OutputArea-output dt, .jp-OutputArea-output dd { display: block; }
.jp-OutputArea-output dl { width: 100%; overflow: hidden; padding: 0px; margin: 0px; }
.jp-OutputArea-output dt { font-weight: bold; float: left; width: 20%; padding: 0px; margin: 0px; }
.jp-OutputArea-output dd { float: left; width: 80%; padding: 0px; margin: 0px; }
"""

MEASURE = """() => [...document.querySelectorAll('dt, dd')].map(found => {
    const range = document.createRange(); range.selectNodeContents(found);
    return [range.getClientRects().length, found.getBoundingClientRect().left];
})"""


def test_labels_and_texts_are_not_broken_in_jupyterlab(browser: object) -> None:
    card = html_card("galbatch plan", [("measured on", "4 of the objects, on this machine"), ("path", "cat")])
    page = browser.new_page(viewport={"width": 1000, "height": 600})  # type: ignore[attr-defined]
    try:
        page.set_content(f"<style>{JUPYTERLAB}</style><div class='jp-OutputArea-output'>{card}</div>")
        (label, text, second, value) = page.evaluate(MEASURE)
    finally:
        page.close()
    # One box for each line of the text.
    assert [one[0] for one in (label, text, second, value)] == [1, 1, 1, 1]
    # Texts begin in one column, labels in another to its left.
    assert (label[1], text[1]) == pytest.approx((second[1], value[1]))
    assert label[1] + 60 < text[1]

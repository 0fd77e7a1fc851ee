import numpy as np
import pytest

from galbatch.objects import read_table
from galbatch.reporting.contents import read_contents
from galbatch.reporting.panels import interactive, interactive_panels
from galbatch.reporting.recovery import compare_truth


@pytest.fixture(scope="module")
def contents(made):
    return read_contents(made[0])


@pytest.fixture(scope="module")
def comparisons(contents, made):
    return compare_truth(contents, read_table(made[1]))


def test_the_panels_have_the_catalogs_numbers(contents, comparisons, truth):
    rows = np.array([3, 200, 399])
    columns = interactive._columns(contents, contents.quantities, comparisons, rows)
    assert columns["id"] == [str(contents.object_id[row]) for row in rows]
    np.testing.assert_allclose(columns["q1"], contents.quantities[1].median[rows], rtol=1e-6)
    # Spoiled objects are not compared with the truth.
    assert (columns["color"] == interactive.VERMILION).tolist() == (~contents.clean[rows]).tolist()
    number = next(i for i, one in enumerate(comparisons) if one.quantity.parameter == "re_arcsec")
    true = dict(zip(truth["object_id"].tolist(), truth["re_arcsec"].tolist(), strict=True))
    for place, row in enumerate(rows):
        expected = true[contents.object_id[row]] if contents.clean[row] else np.nan
        np.testing.assert_allclose(columns[f"t{number}"][place], expected, rtol=1e-6)
        median = contents.quantities[1].median[row]
        np.testing.assert_allclose(columns[f"r{number}"][place], median - expected, atol=1e-5)


def test_large_catalogs_are_sampled_and_it_is_said(contents, comparisons, monkeypatch):
    assert interactive_panels(contents, comparisons).n_shown == 400
    monkeypatch.setattr(interactive, "SAMPLED", 100)
    found = interactive_panels(contents, [])
    assert found.n_shown == 100
    assert len(found.panels) == 2
    assert len(interactive_panels(contents, comparisons).panels) == 3

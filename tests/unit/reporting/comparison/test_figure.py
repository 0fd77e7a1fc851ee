import matplotlib.image
import pytest

from galbatch.errors import OutputError, UsageError
from galbatch.reporting import ComparisonOptions, compare, write_comparison


@pytest.fixture(scope="module")
def compared(made):
    return compare(*made[:2], options=ComparisonOptions(n_bootstrap=20))


def test_each_quantity_has_a_row_of_panels(compared, tmp_path):
    path = str(tmp_path / "x.png")
    write_comparison(path, compared)
    picture = matplotlib.image.imread(path)
    # Three quantities, each 3.1 inches high, at 180 dots per inch.
    assert picture.shape[:2] == (round(3 * 3.1 * 180), round(13.4 * 180))
    assert (picture[..., :3] < 0.5).any(axis=2).mean() > 0.01


def test_without_bins_the_panels_of_bins_stay_empty(made, tmp_path):
    write_comparison(
        str(tmp_path / "x.svg"), compare(*made[:2], options=ComparisonOptions(bins=(), n_bootstrap=0))
    )
    assert "coverage" not in (tmp_path / "x.svg").read_text(encoding="utf-8")


def test_other_suffixes_are_refused(compared, tmp_path):
    with pytest.raises(OutputError, match=r"x\.jpg: unknown kind of picture"):
        write_comparison(str(tmp_path / "x.jpg"), compared)


def test_where_nothing_matched_there_is_no_figure(made, tmp_path):
    nothing = compare(*made[:2], match="sky", options=ComparisonOptions(ra="bt", dec="bt"))
    with pytest.raises(UsageError, match="no object has values in both tables"):
        write_comparison(str(tmp_path / "x.png"), nothing)

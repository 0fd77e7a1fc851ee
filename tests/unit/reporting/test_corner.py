"""Corner plots: what they show, and draws that are hard to show."""

import matplotlib.image
import numpy as np
import pytest

from galbatch.api import Drawn
from galbatch.core.columns import Column
from galbatch.errors import OutputError, UsageError
from galbatch.reporting import corner, write_corner


def drawn(n=2000, **changes):
    random = np.random.default_rng(1)
    normal = random.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], n)
    bt = np.clip(0.3 + 0.2 * normal[:, 0], 0.0, 1.0)
    flux = np.exp(9 + 0.05 * normal[:, 1])
    values = {
        "bt": bt,
        "re_arcsec": 0.3 + random.random(n),
        "flux_njy": flux,
        "mag": 31.4 - 2.5 * np.log10(flux),
    }
    units = {"bt": "", "re_arcsec": "arcsec", "flux_njy": "nJy", "mag": "mag"}
    columns = {name: Column(f"gampen_{name}", "float64", unit, "") for name, unit in units.items()}
    return Drawn(**{"object_id": 43158176442374224, "model": "gampen", "samples": values, "columns": columns,
                    "derived": {"mag": "flux_njy"}, "n_passes": 177, **changes})  # fmt: skip


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, kept to be looked at."""
    kept = []
    make = corner._figure
    monkeypatch.setattr(corner, "_figure", lambda *arguments: kept.append(make(*arguments)) or kept[-1])
    return kept


def grid(figure):
    n = int(len(figure.axes) ** 0.5)
    return np.array(figure.axes).reshape(n, n)


def test_parameters_have_labels_with_units_and_the_magnitude_stands_for_the_flux(tmp_path, figures):
    write_corner(f"{tmp_path}/c.png", drawn())
    axes = grid(figures[0])
    assert [one.get_xlabel() for one in axes[-1]] == ["B/T", "radius (arcsec)", "magnitude (mag)"]
    assert [one.get_ylabel() for one in axes[1:, 0]] == ["radius (arcsec)", "magnitude (mag)"]
    caption = "".join(text.get_text() for text in figures[0].texts)
    assert "43158176442374224" in caption
    assert "gampen: 2,000 draws of 177 passes" in caption
    assert matplotlib.image.imread(f"{tmp_path}/c.png").shape[0] > 800


def test_a_flux_of_which_some_draws_are_negative_stands_for_its_magnitude(tmp_path, figures):
    flux = np.random.default_rng(3).normal(3.0, 1.0, 2000)
    mag = 31.4 - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))
    write_corner(f"{tmp_path}/c.png", drawn(samples={**drawn().samples, "flux_njy": flux, "mag": mag}))
    assert [one.get_xlabel() for one in grid(figures[0])[-1]] == ["B/T", "radius (arcsec)", "flux (nJy)"]


def test_lines_and_titles_are_the_quantiles_of_the_draws(tmp_path, figures):
    of = drawn()
    write_corner(f"{tmp_path}/c.png", of)
    expected = np.quantile(of.samples["mag"], [0.15865, 0.5, 0.84135])
    panel = grid(figures[0])[2, 2]
    lines = [line.get_xdata()[0] for line in panel.get_lines()]
    assert lines == pytest.approx(expected, abs=1e-9)
    minus, plus = np.diff(expected)
    assert panel.get_title() == f"magnitude = ${expected[1]:.3f}_{{-{minus:.3f}}}^{{+{plus:.3f}}}$"


def test_contours_hold_their_shares(tmp_path, figures):
    """Of correlated normal draws: 39 and 86 % lie within the lines, as in two dimensions 1 and 2 sigma."""
    random = np.random.default_rng(2)
    x, y = random.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 20_000).T
    columns = {name: Column(f"gampen_{name}", "float64", "", "") for name in "ab"}
    write_corner(f"{tmp_path}/c.png", drawn(samples={"a": x, "b": y}, columns=columns, derived={}))
    panel = grid(figures[0])[1, 0]
    (lines,) = [c for c in panel.collections if len(c.get_paths()) == 2 and not c.get_fill()]
    shares = sorted(path.contains_points(np.stack([x, y], axis=1)).mean() for path in lines.get_paths())
    assert shares == pytest.approx([0.393, 0.865], abs=0.04)


@pytest.mark.parametrize("suffix", corner.CORNER_KINDS)
def test_kinds_of_files(tmp_path, suffix):
    write_corner(f"{tmp_path}/c{suffix}", drawn(n=300))
    begins = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert (tmp_path / f"c{suffix}").read_bytes().startswith(begins)


@pytest.mark.parametrize(
    "values",
    [
        {"bt": np.zeros(300)},
        {"bt": np.zeros(300), "re_arcsec": np.full(300, 2.0)},
        {"bt": np.repeat([0.0, 1.0], 150), "re_arcsec": np.linspace(1e-9, 1e9, 300)},
        {"bt": np.tile(np.linspace(0, 1, 4), 75), "re_arcsec": np.linspace(1, 2, 300)},
        {"bt": np.r_[np.zeros(299), 1e30], "re_arcsec": np.linspace(1, 1 + 1e-12, 300)},
    ],
    ids=["one, all equal", "all equal", "two values", "a few points", "far out"],
)
def test_draws_that_hardly_vary_are_shown_without_warnings(tmp_path, values, caplog):
    write_corner(f"{tmp_path}/c.png", drawn(samples=values, derived={}))
    assert matplotlib.image.imread(f"{tmp_path}/c.png").ndim == 3
    assert not caplog.records


def test_what_cannot_be_shown_is_refused(tmp_path):
    with pytest.raises(UsageError, match="-n 199: a corner plot needs 200 draws or more"):
        write_corner(f"{tmp_path}/c.png", drawn(n=199))
    with pytest.raises(OutputError, match=r"c.jpg: unknown kind of picture; known are .png, .pdf, .svg"):
        write_corner(f"{tmp_path}/c.jpg", drawn())
    assert list(tmp_path.iterdir()) == []

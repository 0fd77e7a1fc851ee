"""The table of injected galaxies, of posteriors whose bias, scatter and coverage are known."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galbatch import api, config
from galbatch.core.flags import ModelFlag, PixelFlag
from galbatch.errors import UsageError
from galbatch.reporting.contents import Quantity
from galbatch.reporting.injection import Evidence, EvidenceRow, InjectionSettings, evidence_rows, inject
from galbatch.reporting.injection.placing import random_places, stated_places, true_values
from galbatch.simulation import draw_population

N = 4000
RNG = np.random.default_rng(7)
LEVELS = (0.02275, 0.15865, 0.5, 0.84135, 0.97725)


@pytest.fixture(scope="module")
def rows():
    """Rows of 4,000 galaxies whose posterior is a normal distribution of std 0.2, biased by 0.1; every tenth is flagged."""
    truth = RNG.normal(1, 0.5, N)
    middle = truth + 0.1 + RNG.normal(0, 0.2, N)
    sigmas = np.array([-2, -1, 0, 1, 2])
    quantity = Quantity("net", "x", "mag", LEVELS, middle[:, None] + 0.2 * sigmas)
    flags = np.where(np.arange(N) % 10 == 0, int(PixelFlag.BAD_CENTER), int(PixelFlag.MOSAICKED))
    columns = {
        "flags": flags.astype(np.int32),
        "net_flags": np.where(np.arange(N) % 20 == 1, int(ModelFlag.EXTRAPOLATED), 0).astype(np.int32),
        "tile_id": np.where(np.arange(N) < 3000, "9813/4,4", "9814/0,0").astype(object),
        "true_mag": np.repeat([17.5, 18.5, 19.5, 20.5], N // 4),
        "true_re_arcsec": np.full(N, 0.7),
        "nearest_listed_arcsec": np.where(np.arange(N) < 100, 1.0, 50.0),
    }
    return list(evidence_rows(quantity, truth, columns))


def test_all_galaxies_have_the_numbers_that_were_put_in(rows):
    row = rows[0]
    assert (row.binned_by, row.bin, row.n) == ("", "all", N)
    # Every tenth has bad pixels, every twentieth another quality flag; MOSAICKED is information.
    assert row.completeness == pytest.approx(0.85)
    assert row.n_usable == 3400
    assert row.bias == pytest.approx(0.1, abs=0.015)
    assert row.scatter == pytest.approx(0.2, abs=0.015)
    # A bias of half a sigma leaves the 68 % interval 62.5 % of the truths, and that of 95 % 92.7 %.
    assert row.coverage68 == pytest.approx(0.6247, abs=0.03)
    assert row.coverage95 == pytest.approx(0.927, abs=0.02)
    assert row.flags == {"BAD_CENTER": 0.1, "MOSAICKED": 0.9, "EXTRAPOLATED": 0.05}


def test_bins_of_magnitude_size_crowding_and_tract(rows):
    found = {(row.binned_by, row.bin): row.n for row in rows}
    magnitudes = {label: n for (kind, label), n in found.items() if kind == "magnitude"}
    assert magnitudes == {"16 to 18": 1000, "18 to 19": 1000, "19 to 20": 1000, "20 to 21": 1000}
    assert found["size", "0.6 to 1.2"] == N
    assert (found["crowding", "0 to 3"], found["crowding", "12 and more"]) == (100, 3900)
    assert (found["tract", "9813"], found["tract", "9814"]) == (3000, 1000)
    for kind in ("magnitude", "size", "crowding", "tract"):
        assert sum(n for (one, _), n in found.items() if one == kind) == N


def test_few_galaxies_tell_of_no_bias():
    quantity = Quantity("net", "x", "", (0.5,), np.array([[1.0], [np.nan], [2.0]]))
    columns = {
        "flags": np.zeros(3, np.int32),
        "net_flags": np.zeros(3, np.int32),
        "tile_id": np.array(["", "", ""], object),
        "true_mag": np.full(3, 20.0),
        "true_re_arcsec": np.ones(3),
        "nearest_listed_arcsec": np.full(3, np.inf),
    }
    row, *bins = evidence_rows(quantity, np.zeros(3), columns)
    # The list has no object: all places are far from one.
    assert [(one.bin, one.n) for one in bins if one.binned_by == "crowding"] == [("12 and more", 3)]
    assert (row.n_usable, row.bias, row.coverage68) == (2, None, None)
    assert row.completeness == pytest.approx(2 / 3)


def test_truth_is_that_of_the_band():
    truth = draw_population(50, bands=("g", "r"), population="survey", seed=3)
    bulge, disk = (
        np.nan_to_num(truth[f"{part}_flux_r_njy"].to_numpy(zero_copy_only=False))
        for part in ("bulge", "disk")
    )
    np.testing.assert_allclose(true_values(truth, "bt", "r"), bulge / (bulge + disk))
    np.testing.assert_allclose(true_values(truth, "bt", "g"), truth["bt"].to_numpy(), atol=1e-12)
    np.testing.assert_allclose(true_values(truth, "flux_njy", "r"), bulge + disk)
    np.testing.assert_array_equal(true_values(truth, "mag", "r"), truth["mag_r"].to_numpy())
    np.testing.assert_array_equal(true_values(truth, "color_gr_mag", "g"), truth["color_gr_mag"].to_numpy())
    assert true_values(truth, "redshift", "g") is None
    assert isinstance(truth, pa.Table)


def test_the_line_of_the_properties_says_what_was_found():
    row = EvidenceRow("net", "mag", "mag", "", "all", 10, 0.9, 9, 0.0123, 0.2, 0.7, 0.95, {})
    text = Evidence(10, "paper", (row,)).text()
    assert text == (
        "10 galaxies of population paper; net mag: completeness 0.90, bias +0.0123, scatter 0.2 mag, 68 % interval holds 70 %"
    )


@pytest.mark.parametrize(
    ("ra", "dec", "message"),
    [
        ([150.0, None], [2.0, 2.0], "row 1 has ra_deg nan and dec_deg 2; expected a place on the sky"),
        ([150.0], [95.0], "row 0 has ra_deg 150 and dec_deg 95"),
        (["a"], [2.0], "ra_deg holds string, expected degrees as numbers"),
        ([], [], "has no rows"),
    ],
    ids=["missing", "beyond the pole", "text", "empty"],
)
def test_places_that_are_none_are_refused(tmp_path, ra, dec, message):
    kind = pa.string() if ra == ["a"] else pa.float64()
    table = pa.table({"ra_deg": pa.array(ra, kind), "dec_deg": pa.array(dec, pa.float64())})
    pq.write_table(table, tmp_path / "places.parquet")
    with pytest.raises(UsageError, match=message):
        stated_places(str(tmp_path / "places.parquet"))


def test_places_may_be_given_on_either_side_of_0_deg(tmp_path):
    pq.write_table(
        pa.table({"ra_deg": [-10.0, 359.0, 361.0], "dec_deg": [0.0, 90.0, -90.0]}), tmp_path / "at.parquet"
    )
    ra, dec = stated_places(str(tmp_path / "at.parquet"))
    assert (ra.tolist(), dec.tolist()) == ([350.0, 359.0, 1.0], [0.0, 90.0, -90.0])


@pytest.fixture
def run(tmp_path):
    """A run whose inputs are not there."""
    (tmp_path / "run.toml").write_text(
        '[survey]\nlayout = "hsc"\nbands = ["g"]\ntiles = "tiles"\n[objects]\npath = "objects.parquet"\n'
        '[[models]]\nname = "gampen"\nbundle = "demo:gampen"\n'
    )
    return config.read_config(tmp_path / "run.toml")


@pytest.mark.parametrize("n_inside", [2, 0])
def test_a_footprint_that_is_as_good_as_empty_is_refused(monkeypatch, run, n_inside):
    asked = []

    def area(config, *, n_points, seed):
        asked.append(n_points)
        inside = np.full(n_inside, 1.0)
        return SimpleNamespace(points=pa.table({"ra_deg": inside, "dec_deg": inside}))

    monkeypatch.setattr(api, "area_of_run", area)
    with pytest.raises(UsageError, match=f"{n_inside} of 1600000 random points .* 4 are needed"):
        random_places(run, 4, seed=1)
    assert asked == [16 * 10**power for power in range(6)]
    assert random_places(run, n_inside, seed=1)[0].tolist() == [1.0] * n_inside


def test_the_folder_of_the_run_is_refused(tmp_path, run):
    with pytest.raises(UsageError, match="holds the run's own catalog; name another folder"):
        inject(run, InjectionSettings(10), folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]

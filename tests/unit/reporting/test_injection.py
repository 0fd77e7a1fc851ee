"""The table of injected galaxies, of posteriors whose bias, scatter and coverage are known."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galbatch import api, config
from galbatch.config import ModelConfig
from galbatch.core.flags import ModelFlag, PixelFlag
from galbatch.errors import UsageError
from galbatch.reporting.contents import Quantity
from galbatch.reporting.injection import Evidence, EvidenceRow, InjectionSettings, evidence_rows, inject
from galbatch.reporting.injection.placing import bands_of, random_places, stated_places, true_values
from galbatch.simulation import BandLight, InjectedLight, draw_population, with_survey_bands

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
    assert row.frequent_flags == "MOSAICKED 90 %, BAD_CENTER 10 %, EXTRAPOLATED 5 %"


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
    text = "10 galaxies of population paper; net mag: completeness 0.90, bias +0.0123, scatter 0.2 mag, 68 % interval holds 70 %"
    assert Evidence(10, "paper", (row,)).text() == text
    without = Evidence(10, "paper", (row,), ("g", "y"))
    assert without.text() == f"{text}; without photon noise of the galaxies in g, y"


def network(*bands):
    return ModelConfig(name="net", bundle=("demo:gampen",), bands=bands)


def test_a_band_of_the_survey_shines_as_one_of_the_simulation_or_as_stated():
    light = BandLight.parse("i-0.35")
    found = bands_of([network("HSC_G"), network("y", "r")], {"y": light})
    assert found == {"HSC_G": BandLight("g"), "y": light, "r": BandLight("r")}
    assert list(found) == ["HSC_G", "y", "r"]
    truth = with_survey_bands(draw_population(20, bands=("g", "r", "i"), seed=3), found)
    np.testing.assert_allclose(truth["mag_y"].to_numpy(), truth["mag_i"].to_numpy() - 0.35)
    np.testing.assert_allclose(truth["flux_y_njy"].to_numpy(), truth["flux_i_njy"].to_numpy() * 10**0.14)
    parts = [
        np.nan_to_num(truth[f"{part}_flux_y_njy"].to_numpy(zero_copy_only=False))
        for part in ("disk", "bulge")
    ]
    np.testing.assert_allclose(sum(parts), truth["flux_y_njy"].to_numpy())
    assert truth["mag_HSC_G"].equals(truth["mag_g"])
    np.testing.assert_array_equal(true_values(truth, "mag", "y"), truth["mag_y"].to_numpy())
    bulge = true_values(truth, "bt", "y")
    np.testing.assert_allclose(bulge, true_values(truth, "bt", "i"))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (
            {},
            "are fed y, u: simulated galaxies have colors in g, r and i only; say how .* --band y=i-0.2 for 0.2 mag brighter",
        ),
        ({"y": "i", "u": "g+1", "z": "i"}, "--band z: networks are fed y, u, g; leave it out"),
        ({"y": "i", "u": "g+1", "g": "r"}, "--band g: simulated galaxies have it; leave it out"),
    ],
    ids=["none", "not fed", "known"],
)
def test_bands_that_are_not_known_are_refused_with_what_to_do(stated, message):
    lights = {band: BandLight.parse(text) for band, text in stated.items()}
    with pytest.raises(UsageError, match=message):
        bands_of([network("y", "u", "g")], lights)


@pytest.mark.parametrize("text", ["z", "i-", "i-a", "i*2", "", "ii", "i-nan"])
def test_a_light_that_is_none_is_refused(text):
    with pytest.raises(
        UsageError, match=r"expected one of g, r, i and a number of magnitudes, such as i-0\.2"
    ):
        BandLight.parse(text)


def test_photon_noise_has_the_variance_that_the_gain_says():
    light = np.full((3, 200, 200), 50.0)
    injected = InjectedLight(pa.table({"object_id": [7]}), {"r": 20.0})
    noise, variance = injected.photon_noise(7, ("g", "r", "i"), light, electrons_per_njy=[4.0, 4.0, np.nan])
    # In r what the user states goes before the tile's; in i nothing is known.
    np.testing.assert_array_equal(variance[:, 0, 0], [12.5, 2.5, 0.0])
    # The variance of 40,000 draws is good to 0.7 %: five of these.
    np.testing.assert_allclose(noise[:2].var(axis=(1, 2)), [12.5, 2.5], rtol=0.035)
    assert not noise[2].any()
    alone, _ = injected.photon_noise(7, ("r",), light[:1], electrons_per_njy=[np.nan])
    np.testing.assert_array_equal(alone[0], noise[1])
    other, _ = injected.photon_noise(8, ("r",), light[:1], electrons_per_njy=[np.nan])
    assert abs(np.corrcoef(other.ravel(), alone.ravel())[0, 1]) < 0.03


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

"""Comparisons whose bias, scatter, outliers and coverage are planted."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.coordinates import Angle
from astropy.table import Table
from scipy.special import ndtr, ndtri

from galbatch import catalog
from galbatch.errors import ObjectListError, UsageError
from galbatch.reporting import ComparisonOptions, compare

WIDTH = 0.1
"""The standard deviation of the posteriors of re_arcsec."""

N_CLEAN = 400 - 4 - 1  # without the saturated ones and the one without values


@pytest.fixture(scope="module")
def medians(made):
    columns = ["object_id", "ra_deg", "dec_deg", "gampen_bt_q500", "gampen_re_arcsec_q500", "gampen_mag_q500"]
    return catalog.read_catalog(made[0], columns=columns).to_pandas()


@pytest.fixture(scope="module")
def planted(medians):
    """The catalog's medians of re_arcsec minus 0.1, with the scatter of the posteriors: the quantiles of a normal distribution."""
    z = ndtri((np.random.default_rng(5).permutation(len(medians)) + 0.5) / len(medians))
    return medians.assign(re_arcsec=medians["gampen_re_arcsec_q500"] - 0.1 - WIDTH * z)[
        ["object_id", "re_arcsec", "ra_deg", "dec_deg"]
    ]


def as_arrow(frame):
    return pa.Table.from_pandas(frame, preserve_index=False)


def values(compared, quantity="re_arcsec"):
    """The row of all objects."""
    table = compared.table().to_pandas()
    return table[(table["quantity"] == quantity) & (table["bins"] == "")].iloc[0]


def without_bins(**options):
    return ComparisonOptions(bins=(), **options)


def test_bias_scatter_and_coverage_are_those_that_were_planted(made, planted):
    row = values(compare(made[0], as_arrow(planted), options=without_bins()))
    assert (row["n"], row["n_coverage"]) == (N_CLEAN, N_CLEAN)
    assert row["bias"] == pytest.approx(0.1, abs=0.003)
    assert row["std"] == pytest.approx(WIDTH, rel=0.02)
    assert row["nmad"] == pytest.approx(WIDTH, rel=0.03)
    assert row["outliers"] == 0
    # The reference is one standard deviation off: it lies within one if -2 < z < 0, within two if -3 < z < 1.
    assert row["coverage68"] == pytest.approx(ndtr(0) - ndtr(-2), abs=0.01)
    assert row["coverage95"] == pytest.approx(ndtr(1) - ndtr(-3), abs=0.01)


def test_errors_are_those_of_the_sampling_distribution(made, planted):
    row = values(compare(made[0], as_arrow(planted), options=without_bins(n_bootstrap=400)))
    assert row["bias_error"] == pytest.approx(np.sqrt(np.pi / 2) * WIDTH / np.sqrt(N_CLEAN), rel=0.25)
    assert row["std_error"] == pytest.approx(WIDTH / np.sqrt(2 * N_CLEAN), rel=0.2)
    share = row["coverage68"]
    assert row["coverage68_error"] == pytest.approx(np.sqrt(share * (1 - share) / N_CLEAN), rel=0.15)
    again = values(compare(made[0], as_arrow(planted), options=without_bins(n_bootstrap=400)))
    assert again["bias_error"] == row["bias_error"]
    assert np.isnan(
        values(compare(made[0], as_arrow(planted), options=without_bins(n_bootstrap=0)))["bias_error"]
    )


def test_outliers_are_counted_beyond_so_many_nmads(made, planted):
    far = planted.copy()
    clean = np.arange(20, 400, 38)[:10]
    order = np.argsort(far["object_id"].to_numpy())[clean]
    far.loc[order, "re_arcsec"] += 50 * WIDTH
    row = values(compare(made[0], as_arrow(far), options=without_bins()))
    assert row["outliers"] == pytest.approx(10 / N_CLEAN)
    assert row["nmad"] == pytest.approx(WIDTH, rel=0.06)
    row = values(compare(made[0], as_arrow(planted), options=without_bins(outlier_nmads=1.0)))
    assert row["outliers"] == pytest.approx(2 * ndtr(-1), abs=0.02)


def test_objects_with_spoiled_pixels_are_left_out_unless_asked_for(made, planted):
    compared = compare(made[0], as_arrow(planted), options=without_bins())
    assert (len(compared.matching), compared.n_flagged) == (400, 4)
    assert values(compare(made[0], as_arrow(planted), options=without_bins(flagged=True)))["n"] == N_CLEAN + 4


def test_bins_have_edges_or_equal_numbers(made, planted, medians):
    table = compare(
        made[0], as_arrow(planted), options=ComparisonOptions(bins=["re_arcsec:0,1,3", "dec_deg:4"])
    ).table()
    frame = table.to_pandas()
    by_size = frame[frame["bins"] == "re_arcsec"]
    assert by_size[["bin_low", "bin_high"]].to_numpy().tolist() == [[0, 1], [1, 3]]
    sizes = planted.set_index("object_id")["re_arcsec"].drop(
        planted["object_id"].sort_values().iloc[[0, 1, 2, 3, 8]]
    )
    assert by_size["n"].tolist() == [
        int(((sizes >= 0) & (sizes < 1)).sum()),
        int(((sizes >= 1) & (sizes <= 3)).sum()),
    ]
    by_place = frame[frame["bins"] == "dec_deg"]
    assert sorted(by_place["n"]) == [98, 99, 99, 99]
    assert by_place["bias"].to_numpy() == pytest.approx(0.1, abs=0.05)


def test_a_bias_in_some_bins_is_seen_there(made, planted, medians):
    tilted = planted.assign(
        re_arcsec=np.where(planted["re_arcsec"] > 2, planted["re_arcsec"] - 0.2, planted["re_arcsec"])
    )
    frame = (
        compare(
            made[0], as_arrow(tilted), options=ComparisonOptions(bins=["gampen_re_arcsec_q500:0,1.5,2.5,6"])
        )
        .table()
        .to_pandas()
    )
    small, _, large = frame[frame["bins"] != ""]["bias"]
    assert small == pytest.approx(0.1, abs=0.03)
    assert large == pytest.approx(0.3, abs=0.03)


def test_relative_differences_are_divided_by_the_reference(made, medians):
    scaled = medians.assign(re_arcsec=medians["gampen_re_arcsec_q500"] / 1.1)
    compared = compare(
        made[0], as_arrow(scaled[["object_id", "re_arcsec"]]), options=without_bins(relative=["re_arcsec"])
    )
    row = values(compared)
    assert row["bias"] == pytest.approx(0.1, abs=1e-6)
    assert row["nmad"] == pytest.approx(0, abs=1e-6)
    assert (row["unit"], compared.quantities[0].is_relative) == ("", True)


def test_fractions_of_exactly_zero_do_not_count_for_the_coverage(made):
    frame = compare(*made[:2], options=without_bins()).table().to_pandas().set_index("quantity")
    assert frame.index.tolist() == ["bt", "re_arcsec", "mag"]
    assert frame.loc["bt", "n_coverage"] == 300
    assert frame.loc["mag", "column"] == "flux_njy"
    assert frame.loc["mag", "coverage68"] == pytest.approx(0.683, abs=0.07)


def test_the_usual_bins_are_by_magnitude(made):
    compared = compare(*made[:2], options=ComparisonOptions(n_bootstrap=2))
    assert {binned.name for one in compared.quantities for binned in one.binned} == {"mag"}


GAMPEN = {"R_e_asec": "re_arcsec", "bt": "bt", "total_mag": "mag"}


def test_published_summaries_of_gampen_are_read(made, medians, tmp_path):
    path = tmp_path / "gampen.csv"
    frame = pd.DataFrame({"object_id": medians["object_id"]})
    for published, quantity in GAMPEN.items():
        for shift, statistic in enumerate(("median", "mode", "mean")):
            frame[f"preds_{published}_{statistic}"] = medians[f"gampen_{quantity}_q500"] - 0.1 * (shift + 1)
        frame[f"preds_{published}_sig_ci"] = "[0.1, 0.2]"
    frame.to_csv(path, index=False)
    table = compare(made[0], str(path), options=without_bins()).table().to_pandas().set_index("quantity")
    assert table["column"].tolist() == ["preds_bt_median", "preds_R_e_asec_median", "preds_total_mag_median"]
    assert table["bias"].to_numpy() == pytest.approx(0.1, abs=1e-6)
    modes = {"re_arcsec": "preds_R_e_asec_mode"}
    row = values(compare(made[0], str(path), columns=modes, options=without_bins()))
    assert row["bias"] == pytest.approx(0.2, abs=1e-6)


def test_counts_of_gampen_become_magnitudes_by_their_zero_point(made, medians):
    counts = 10 ** (0.4 * (27.0 - medians["gampen_mag_q500"]))
    frame = pd.DataFrame({"object_id": medians["object_id"], "preds_total_flux_adus_mode": counts})
    row = values(compare(made[0], as_arrow(frame), options=without_bins()), "mag")
    assert row["bias"] == pytest.approx(0, abs=1e-5)
    assert row["nmad"] < 1e-5


def test_summaries_in_several_bands_ask_which(made, medians):
    frame = pd.DataFrame(
        {"object_id": medians["object_id"], "g_preds_bt_median": 0.5, "r_preds_bt_median": 0.4}
    )
    with pytest.raises(
        UsageError, match="2 columns may be bt: g_preds_bt_median, r_preds_bt_median; choose by --column bt="
    ):
        compare(made[0], as_arrow(frame))
    row = values(
        compare(made[0], as_arrow(frame), columns={"bt": "r_preds_bt_median"}, options=without_bins()), "bt"
    )
    assert row["column"] == "r_preds_bt_median"


def test_units_of_files_are_converted(made, medians, tmp_path):
    path = str(tmp_path / "sizes.fits")
    table = Table({"objID": medians["object_id"], "R_e": medians["gampen_re_arcsec_q500"] / 60})
    table["R_e"].unit = "arcmin"
    table.write(path)
    assert values(compare(made[0], path, options=without_bins()))["bias"] == pytest.approx(0, abs=1e-6)
    # The unit that is stated goes before that of the file.
    row = values(compare(made[0], path, columns={"re_arcsec": "R_e:deg"}, options=without_bins()))
    assert row["bias"] == pytest.approx(
        float(np.median(medians["gampen_re_arcsec_q500"].dropna())) * -59, rel=0.1
    )


def test_another_catalog_is_compared_with_itself(made):
    table = (
        compare(made[0], made[0], match="sky", radius_arcsec=1e-3, options=without_bins()).table().to_pandas()
    )
    assert table["quantity"].tolist() == ["bt", "re_arcsec", "mag", "unknown"]
    assert table["column"].iloc[1] == "gampen_re_arcsec_q500"
    assert (table["bias"] == 0).all()
    assert (table["coverage68"] == 1).all()


def test_rows_of_both_sides_are_counted(made, planted):
    half = as_arrow(
        planted.sort_values("object_id").iloc[150:].assign(object_id=lambda f: f["object_id"] + 50)
    )
    compared = compare(made[0], half, options=without_bins())
    # 200 .. 399 of the ids are in both; those of the other table go on to 449.
    assert (len(compared.matching), compared.matching.n_only_here, compared.matching.n_only_there) == (
        200,
        200,
        50,
    )
    on_sky = compare(made[0], half, match="sky", radius_arcsec=0.01, options=without_bins())
    assert (len(on_sky.matching), on_sky.matching.n_only_here, on_sky.matching.n_only_there) == (250, 150, 0)


@pytest.mark.parametrize("unit", ["rad", "hourangle"])
def test_positions_of_the_other_table_in_other_angles(made, planted, tmp_path, unit):
    table = Table.from_pandas(planted.rename(columns={"ra_deg": "ra", "dec_deg": "dec"}))
    for name in ("ra", "dec"):
        table[name] = Angle(np.asarray(table[name]), "deg").to_value(unit)
        table[name].unit = unit
    table.write(tmp_path / "other.ecsv")
    found = compare(
        made[0], str(tmp_path / "other.ecsv"), match="sky", radius_arcsec=0.01, options=without_bins()
    )
    assert len(found.matching) == len(planted)


def test_nothing_matched_gives_empty_statistics(made, planted):
    row = values(
        compare(made[0], as_arrow(planted.assign(object_id=-planted["object_id"])), options=without_bins())
    )
    assert row["n"] == 0
    assert pd.isna(row["bias"])
    assert pd.isna(row["coverage68"])


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"match": "name"}, UsageError, "--match name: expected id or sky"),
        (
            {"columns": {"size": "re_arcsec"}},
            UsageError,
            "--column size: the catalog's quantities are bt, re_arcsec, mag",
        ),
        ({"columns": {"bt": "B_T"}}, UsageError, "has no column B_T; there are object_id, re_arcsec"),
        (
            {"options": ComparisonOptions(relative=["bt"])},
            UsageError,
            "--relative bt: the quantities of both tables are re_arcsec",
        ),
        ({"options": ComparisonOptions(bins=["snr"])}, UsageError, "--bins snr: no quantity or column snr"),
        ({"options": ComparisonOptions(bins=["ra_deg:3,2"])}, UsageError, "expected NAME, NAME:5"),
        ({"options": ComparisonOptions(bins=["ra_deg:2.5"])}, UsageError, "expected NAME, NAME:5"),
        ({"options": ComparisonOptions(bins=["ra_deg:x"])}, UsageError, "expected NAME, NAME:5"),
        (
            {"options": ComparisonOptions(id="none")},
            ObjectListError,
            "the other table: no column none; there are",
        ),
    ],
)
def test_what_does_not_fit_is_refused(made, planted, arguments, error, said):
    with pytest.raises(error, match=said):
        compare(made[0], as_arrow(planted), **arguments)


def test_a_table_without_a_quantity_says_how_to_name_it(made, medians):
    with pytest.raises(
        UsageError,
        match=r"none of its columns is known as a quantity of the catalog .*--column QUANTITY=COLUMN",
    ):
        compare(made[0], as_arrow(medians[["object_id", "ra_deg"]]))
    with pytest.raises(ObjectListError, match="no column looks like the id; name it with --id"):
        compare(
            made[0],
            as_arrow(medians.rename(columns={"object_id": "nr", "gampen_bt_q500": "bt"})[["nr", "bt"]]),
        )

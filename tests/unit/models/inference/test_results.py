import dataclasses

import pytest
from astropy.io.votable.ucd import parse_ucd

from galbatch.config import DensityGrid, PosteriorConfig
from galbatch.core.columns import EMBEDDING, Statistic, parse_columns, quantile_suffix
from galbatch.models import (
    INFER_VERSION,
    AuxiliaryInput,
    InputInfo,
    ParameterInfo,
    draw_columns,
    result_columns,
)
from galbatch.models.bundle import Embedding
from galbatch.models.inference.dereddening import CaseInfo, dereddened
from galbatch.models.metadata import ImageInfo


@pytest.mark.parametrize(
    ("level", "suffix"),
    [
        (0.5, "q500"),
        (0.15865, "q15865"),
        (0.02275, "q02275"),
        (0.84135, "q84135"),
        (0.1, "q100"),
        (0.001, "q001"),
    ],
)
def test_quantile_suffix(level, suffix):
    assert quantile_suffix(level) == suffix


def test_a_ucd_that_the_bundle_states_goes_before_one_that_is_guessed(make):
    metadata = make.gampen_metadata()
    stated = dataclasses.replace(metadata.parameters[0], ucd="phys.abund.Z")
    metadata = dataclasses.replace(metadata, parameters=(stated, *metadata.parameters[1:]))
    columns = result_columns(metadata, name="net", quantiles=(0.5,))
    ucds = {column.name: column.ucd for column in columns}
    assert ucds["net_bt_q500"] == "phys.abund.Z;stat.median"
    assert ucds["net_bt_std"] == "stat.stdev;phys.abund.Z"
    assert ucds["net_corr_bt_re_arcsec"] == "stat.correlation;phys.abund.Z;phys.angSize"
    assert ucds["net_re_arcsec_q500"] == "phys.angSize;stat.median"
    assert draw_columns(metadata, name="net")["bt"].ucd == "phys.abund.Z"
    for ucd in filter(None, ucds.values()):
        parse_ucd(ucd, check_controlled_vocabulary=True)


def test_columns_of_gampen(make):
    columns = result_columns(make.gampen_metadata(), name="gampen", quantiles=(0.15865, 0.5, 0.84135))
    of_each = ["q15865", "q500", "q84135", "mean", "std", "mode", "epistemic_std"]
    assert [column.name.removeprefix("gampen_") for column in columns] == [
        *(f"bt_{part}" for part in of_each),
        "bt_label",
        *(f"{name}_{part}" for name in ("re_arcsec", "flux_njy", "mag") for part in of_each),
        "corr_bt_re_arcsec",
        "corr_bt_flux_njy",
        "corr_re_arcsec_flux_njy",
        "passes",
        "mc_error",
        "identity",
        "flags",
    ]
    kind = {column.name: (column.dtype, column.unit) for column in columns}
    assert kind["gampen_flux_njy_q500"] == ("float32", "nJy")
    assert kind["gampen_mag_mean"] == ("float32", "mag")
    assert kind["gampen_re_arcsec_std"] == ("float32", "arcsec")
    assert kind["gampen_bt_label"] == ("string", "")
    assert kind["gampen_passes"] == kind["gampen_flags"] == ("int32", "")


def test_fluxes_and_magnitudes_say_that_extinction_is_not_corrected(make):
    columns = result_columns(make.gampen_metadata(), name="gampen", quantiles=PosteriorConfig().quantiles)
    for column in columns:
        is_said = "not corrected for Galactic extinction" in column.description
        assert is_said == column.name.startswith(("gampen_flux_njy", "gampen_mag"))


def test_columns_of_sfnet(make):
    columns = result_columns(make.sfnet_metadata(), name="sfnet", quantiles=PosteriorConfig().quantiles)
    kind = {column.name: column.dtype for column in columns}
    assert [kind[f"sfnet_feature_{i}"] for i in range(4)] == ["int16"] * 4
    assert [kind[f"sfnet_activation_{i}"] for i in range(4)] == ["float32"] * 4
    assert "sfnet_feature_4" not in kind
    assert all(column.description for column in columns)


def test_new_statistics_raise_the_version():
    """A leaf of an older version lacks a new column: change version and list together, and name it in CHANGELOG.md.

    Columns of a density are parts of the fingerprint themselves, and no older bundle has a vector.
    """
    assert INFER_VERSION == 13
    assert [statistic.value for statistic in Statistic] == [
        *("q", "mean", "std", "mode", "epistemic_std", "label"),
        *(
            "density",
            "vector",
            "hpd68_low",
            "hpd68_high",
            "hpd95_low",
            "hpd95_high",
            "hpd68_parts",
            "hpd95_parts",
        ),
        *("peaks", "corr"),
        *(
            "passes",
            "mc_error",
            "ood_distance",
            "disagreement",
            "feature",
            "activation",
            "frequency",
            "embedding",
            "case",
            "identity",
            "flags",
        ),
    ]


def test_correlations_stand_where_there_is_a_posterior_and_parameters_are_few(make):
    def pairs(n_parameters, **changes):
        parameters = tuple(ParameterInfo(f"p{i}", "", "", "identity") for i in range(n_parameters))
        metadata = make.sfnet_metadata(parameters=parameters)
        columns = result_columns(metadata, name="net", quantiles=(0.5,), **changes)
        return [column.name for column in columns if column.key.statistic is Statistic.CORRELATION]

    assert len(pairs(8)) == 8 * 7 / 2
    assert pairs(9) == pairs(34) == []
    assert pairs(2) == ["net_corr_p0_p1"]
    assert pairs(2, has_posterior=False) == []


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_embedding_is_one_column_of_vectors_before_identity_and_flags(make, dtype):
    columns = result_columns(
        make.sfnet_metadata(), name="net", quantiles=(0.5,), embedding=Embedding(64, dtype)
    )
    assert [column.name for column in columns[-3:]] == ["net_embedding", "net_identity", "net_flags"]
    of_vectors = columns[-3]
    assert (of_vectors.dtype, of_vectors.length) == (dtype, 64)
    assert of_vectors.description.endswith(f"beyond the range of {dtype}")
    assert of_vectors.empty(3).shape == (3, 64)
    assert parse_columns([column.name for column in columns])["net_embedding"] == ("net", EMBEDDING)


def test_a_density_states_its_grid_and_its_unit(make):
    grid = DensityGrid(parameter="re_arcsec", low=0.0, high=5.0, bins=50)
    columns = result_columns(make.gampen_metadata(), name="net", quantiles=(0.5,), densities=(grid,))
    names = [column.name for column in columns]
    start = names.index("net_re_arcsec_density")
    words = ["density", "hpd68_low", "hpd68_high", "hpd95_low", "hpd95_high"]
    words += ["hpd68_parts", "hpd95_parts", "peaks"]
    assert names[start : start + 8] == [f"net_re_arcsec_{word}" for word in words]
    density, low, *_, peaks = columns[start : start + 8]
    assert (density.dtype, density.length, density.grid) == ("float32", 50, (0.0, 5.0))
    assert (density.unit, low.unit, peaks.unit) == ("arcsec**-1", "arcsec", "")
    assert "in each of 50 equal bins from 0 to 5" in density.description
    assert parse_columns(["flags", *names])["net_re_arcsec_hpd68_low"][1].statistic is Statistic.HPD68_LOW
    for column in columns[start : start + 8]:
        parse_ucd(column.ucd, check_controlled_vocabulary=True)
    # Only of the parameter that is named.
    assert not [name for name in names if "density" in name and "re_arcsec" not in name]


MAG = ParameterInfo("mag_b_i", "mag", "total light", "identity")
SEVERAL_GRIDS = InputInfo(
    ("a_g",), 16, 0.2, "nJy", 31.4, more_grids=(ImageInfo(("b_r", "b_i"), 8, 0.4, "nJy", 31.4),)
)


def test_of_several_grids_all_bands_are_told_and_dereddened(make):
    flux = ParameterInfo("flux_njy", "nJy", "flux", "ln")
    metadata = make.gampen_metadata(input=SEVERAL_GRIDS, parameters=(MAG, flux))
    columns = {column.name: column for column in result_columns(metadata, name="net", quantiles=(0.5,))}
    assert "observed in a_g+b_r+b_i;" in columns["net_mag_b_i_q500"].description
    # Of three bands the name tells no band, though the first grid has one alone.
    assert "em." not in columns["net_flux_njy_q500"].ucd
    found = dereddened(
        CaseInfo("", metadata, ("s_g", "s_r", "s_i")), name="net", quantiles=(0.5,), a_b={"s_i": 1.7}
    )
    assert next((one.column, one.a_b) for one in found) == ("net_dered_mag_b_i_q500", 1.7)


def test_of_columns_alone_no_band_is_told(make):
    metadata = make.gampen_metadata(input=InputInfo(auxiliary_inputs=(AuxiliaryInput("color"),)))
    columns = result_columns(metadata, name="net", quantiles=(0.5,))
    assert not [column.name for column in columns if "observed in" in column.description]

import dataclasses

from galbatch.models import (
    AuxiliaryInput,
    CalibrationInfo,
    DomainInfo,
    HeadInfo,
    InputInfo,
    LabelInfo,
    ParameterInfo,
    ResultTable,
    card_summary,
    card_text,
)
from galbatch.models.metadata import ImageInfo


def lines_of(metadata):
    return card_text(metadata, "ab" * 32).splitlines()


def test_a_card_says_what_the_metadata_say(make):
    domain = DomainInfo(
        psf_fwhm_arcsec=((0.7, 1.05),),
        sky_sigma_njy=((1.63, 3.975),),
        flux_njy=(2380.04, 4987037.2),
        features_mean=(0.0, 0.0),
        features_covariance=((1.0, 0.0), (0.0, 1.0)),
        distance_limit=10.355,
        false_alarm_rate=0.01,
        n_held_out=2400,
    )
    results = ResultTable("Coverage, in percent", ("parameter", "68.27 %"), (("bt", 67.9), ("a|b", None)))
    calibration = CalibrationInfo((0.98, 1.02, 1.1), True, 1500, "stamps of seed 3", (results,))
    lines = lines_of(
        make.gampen_metadata(
            domain=domain,
            calibration=calibration,
            training_data="24,000 stamps",
            training={"epochs": 10, "learning_rate": 0.0005, "loss": "equation 8"},
            licence="BSD-3-Clause",
            citation="somebody 2026",
        )
    )
    assert lines[0] == "# tiny-gampen 0"
    assert f"- sha256: `{'ab' * 32}`" in lines
    assert "- passes: Monte Carlo dropout, rate 0.02" in lines
    assert "- grid: 48 px at 0.168 arcsec" in lines
    assert "| bt |  | bulge-to-total ratio | logit | 0.02 to 0.98 | 0 to 1 |" in lines
    assert (
        '- bt_label, by the median: "highly bulge-dominated" \u2265 0.85; "highly disk-dominated" \u2264 0.1; '
        '"intermediate" otherwise'
    ) in lines
    assert "- mag: AB magnitude of flux_njy" in lines
    assert "Trained on 24,000 stamps." in lines
    assert "| learning_rate | 0.0005 |" in lines
    assert "Coverage, in percent:" in lines
    assert "| bt | 67.9 |" in lines
    assert "| a\\|b |  |" in lines
    assert "| re_arcsec | 1.02 |" in lines
    assert "| FWHM of the PSF, arcsec, g | 0.7 to 1.05 | yes |" in lines
    assert "| sky noise of a pixel, nJy, g | 1.63 to 3.975 | yes |" in lines
    assert "| light in the brightest band, nJy | 2380 to 4.987e+06 | no |" in lines
    assert "| distance of the 2 last features | to 10.36 | yes |" in lines
    assert any(
        line.startswith("Of objects like those it was trained on, 1 % get OUT_OF_DOMAIN") for line in lines
    )
    assert "Licence: BSD-3-Clause." in lines
    assert "Citation: somebody 2026." in lines


def test_tables_are_whole(make):
    """Every row of a table has as many cells as its head."""
    lines = lines_of(make.gampen_metadata(training={"history": [[1, 2.5]] * 100, "a|b": "c|d\ne"}))
    cells = 0
    for line in lines:
        if line.startswith("|"):
            found = line.replace("\\|", "").count("|")
            assert found == cells or cells == 0, line
            cells = found
        else:
            cells = 0
    (history,) = [line for line in lines if line.startswith("| history")]
    assert len(history) < 250
    assert history.endswith("\u2026 |")


def test_what_is_not_known_is_said(make):
    lines = lines_of(make.gampen_metadata())
    assert "Not measured." in lines
    assert "None: the posterior's widths are the network's own." in lines
    assert "What the training set looked like is not stated: OUT_OF_DOMAIN is never set." in lines
    assert "Licence: not stated." in lines


def test_heads_members_columns_and_origin(make):
    image = dataclasses.replace(
        make.sfnet_metadata().input, auxiliary_inputs=(AuxiliaryInput("ebv", "mag", "reddening"),)
    )
    metadata = make.sfnet_metadata(
        head=HeadInfo("mixture", components=3), members=2, input=image, origin={"weights": "a.pth"}
    )
    lines = lines_of(metadata)
    assert "- output: a mixture of Gaussians a pass, 3 components; 15 numbers, of each of 2 members" in lines
    assert "- features: the 4 largest are kept, the others set to 0" in lines
    assert "- auxiliary input: ebv [mag]: reddening" in lines
    assert "Converted from:" in lines
    assert "| weights | a.pth |" in lines
    point = make.sfnet_metadata(head=HeadInfo("point"), dropout_rate=0.0)
    assert "- passes: no dropout, so all are equal and there is no posterior (NO_POSTERIOR)" in lines_of(
        point
    )


def test_labels_of_ranges_and_of_several_parameters(make):
    size = ParameterInfo(
        "re_arcsec",
        "arcsec",
        "half-light radius",
        "ln",
        labels=(LabelInfo("below the seeing", at_most=1.0), LabelInfo("middle", at_least=1.0, at_most=3.0)),
    )
    lines = lines_of(make.gampen_metadata(parameters=(make.gampen_metadata().parameters[0], size)))
    assert (
        '- re_arcsec_label, by the median: "below the seeing" \u2264 1; "middle" \u2265 1 and \u2264 3'
        in lines
    )
    assert sum("_label, by the median" in line for line in lines) == 2


def test_all_grids_and_their_bands_are_told(make):
    more = ImageInfo(("b_r", "b_i"), 8, 0.4, "nmgy", 22.5)
    domain = DomainInfo(sky_sigma_njy=((1.0, 2.0), (3.0, 4.0), (5.0, 6.0)))
    metadata = make.gampen_metadata(
        input=InputInfo(("a_g",), 16, 0.2, "nJy", 31.4, more_grids=(more,)), domain=domain
    )
    lines = lines_of(metadata)
    for line in (
        "- bands: a_g",
        "- grid: 16 px at 0.2 arcsec",
        "- bands: b_r, b_i",
        "- grid: 8 px at 0.4 arcsec",
    ):
        assert line in lines
    assert "| sky noise of a pixel, nJy, b_i | 5 to 6 | yes |" in lines
    takes = "a_g: 16 px at 0.2 arcsec, nJy, b_r, b_i: 8 px at 0.4 arcsec, nmgy"
    assert ("takes", takes) in card_summary(metadata, "ab" * 32)

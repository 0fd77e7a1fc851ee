"""Provenance columns, and the look-ups by place and id that growth counts on."""

import dataclasses

import numpy as np
import pytest

from galbatch.core.columns import (
    parse_columns,
    photometry_columns,
    pixel_names,
    provenance_columns,
    provenance_names,
)
from galbatch.core.pixels import HealpixPixel, PixelIndex
from galbatch.core.types import places_of


def test_provenance_is_told_from_networks_of_the_same_name():
    names = [column.name for column in provenance_columns(("g", "des_r"))]
    assert names[:5] == ["tile_id", "n_tiles", "coverage_g", "psf_fwhm_arcsec_g", "sky_sigma_njy_g"]
    assert provenance_names([*names, "coverage_bt_q500", "coverage_flags"]) == names
    found = parse_columns(["flags", *names, "coverage_bt_q500", "coverage_passes", "coverage_flags"])
    assert {model for model, _ in found.values()} == {"coverage"}
    assert len(found) == 3
    # Older catalogs lack the level of the sky, still older ones the width of stars; those of INGEST_VERSION 6 do not say where the sky noise comes from.
    later = ("sky_level", "psf_fwhm_stars", "sky_source")
    for lacking in (later[:1], later[:2], later):
        older = [name for name in names if not name.startswith(lacking)]
        assert provenance_names([*older, "coverage_bt_q500", "coverage_flags"]) == older
    # Catalogs of before had none.
    assert provenance_names(["coverage_bt_q500"]) == []


def test_photometry_is_told_from_a_network_called_phot():
    provenance = [column.name for column in provenance_columns(("g", "des_r"))]
    photometry = [column.name for column in photometry_columns(("g", "des_r"))]
    network = ["phot_flux_njy_q500", "phot_passes", "phot_flags"]
    assert pixel_names([*provenance, *photometry, *network]) == [*provenance, *photometry]
    assert pixel_names([*provenance, *network]) == provenance
    found = parse_columns(["flags", *provenance, *photometry, *network])
    assert {model for model, _ in found.values()} == {"phot"}
    assert len(found) == 3


@pytest.mark.parametrize("lacking", ["phot_asymmetric_share_", "phot_peak_"])
def test_networks_are_found_beside_photometry_of_other_versions(lacking):
    photometry = [column.name for column in photometry_columns(("g", "des_r"))]
    older = [name for name in photometry if not name.startswith(lacking)]
    assert pixel_names([*older, "net_bt_q500", "net_flags"]) == older
    assert set(parse_columns(["flags", *older, "net_bt_q500", "net_flags"])) == {"net_bt_q500", "net_flags"}


def test_pixels_that_share_sky_are_found():
    index = PixelIndex([HealpixPixel(1, 5), HealpixPixel(2, 0), HealpixPixel(2, 1), HealpixPixel(0, 11)])
    assert index.overlapping(HealpixPixel(0, 0)) == (HealpixPixel(2, 0), HealpixPixel(2, 1))
    assert index.overlapping(HealpixPixel(3, 20)) == (HealpixPixel(1, 5),) * (20 >> 4 == 5)
    assert index.overlapping(HealpixPixel(3, 5 << 4)) == (HealpixPixel(1, 5),)
    assert index.overlapping(HealpixPixel(2, 1)) == (HealpixPixel(2, 1),)
    assert index.overlapping(HealpixPixel(5, 12 * 4**5 - 1)) == (HealpixPixel(0, 11),)
    assert index.overlapping(HealpixPixel(0, 3)) == ()
    assert PixelIndex(()).overlapping(HealpixPixel(0, 3)) == ()


@pytest.mark.parametrize("kind", [np.int64, object])
def test_ids_are_found_among_others(kind):
    among = np.array([7, 3, 40_000_000_000_000_001, 5], np.int64)
    wanted = np.array([5, 6, 40_000_000_000_000_001, 40_000_000_000_000_000, 7], np.int64)
    if kind is object:
        among, wanted = (np.array([str(one) for one in ids], object) for ids in (among, wanted))
    assert places_of(wanted, among).tolist() == [3, -1, 2, -1, 0]
    assert places_of(wanted, among[:0]).tolist() == [-1] * 5
    assert places_of(wanted, np.arange(3.0)).tolist() == [-1] * 5


def test_definitions_state_unit_meaning_and_ucd():
    for column in [*provenance_columns(("g",)), *photometry_columns(("g",))]:
        assert column.description
        assert column.ucd
        assert column.dtype in ("string", "int16", "float32")
        assert dataclasses.replace(column, name="x").empty(1).size == 1

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import galbatch
from galbatch import ingest
from galbatch.errors import UsageError
from tests.unit.api.conftest import BANDS, GRID, IDS


@pytest.fixture
def store(small: str) -> galbatch.Store:
    return galbatch.open_store(str(Path(small).parent / "cutouts.zarr"))


def test_what_a_store_holds(store: galbatch.Store) -> None:
    assert (len(store), store.grids, store.bands) == (3, (GRID,), BANDS)
    assert sorted(store.object_ids()) == sorted(IDS)
    html = store._repr_html_()
    for text in ("24 x 24 px of 0.2 arcsec in g, r", "image, mask, variance"):
        assert text in html


def test_cutouts_by_id(store: galbatch.Store) -> None:
    assert store.cutout(IDS[2], "g").data.max() == np.float32(100.0)
    opened = galbatch.open_catalog(str(Path(store.path).parent / "catalog"))
    for key in IDS:
        np.testing.assert_array_equal(store.cutout(key).data, opened.object(key).cutout().data)
    for unknown in (7, 2**63 - 1, 2**70, "7"):
        with pytest.raises(UsageError, match=f"no cutout of object {unknown}"):
            store.cutout(unknown)
    # A float would be another id than the one it was made of.
    with pytest.raises(UsageError, match="no cutout of object"):
        store.cutout(float(IDS[0]))


def test_the_store_is_searched_once(store: galbatch.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    right = ingest.read_object_ids
    monkeypatch.setattr(ingest, "read_object_ids", lambda *place: read.append(place) or right(*place))
    for key in IDS:
        store.cutout(key)
    # Each partition once for all ids, and that of each cutout once with it.
    assert len(read) == len([grid for _, grid in store.groups if grid == store.grids[0]]) + len(IDS)


def test_a_folder_without_a_store_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no cutout store; give the folder that"):
        galbatch.open_store(str(tmp_path))

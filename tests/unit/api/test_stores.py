from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import galbatch
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
    with pytest.raises(UsageError, match="no cutout of object 7"):
        store.cutout(7)


def test_a_folder_without_a_store_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no cutout store; give the folder that"):
        galbatch.open_store(str(tmp_path))

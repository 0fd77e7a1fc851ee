"""Neighbors in an embedding: equal to sorting all distances, whatever the blocks, leaves, metrics and missing vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import galbatch
from galbatch import api, catalog
from galbatch.api.catalogs import similar
from galbatch.core import sky
from galbatch.core.columns import EMBEDDING, MODEL_FLAGS, PIXEL_FLAGS
from galbatch.core.pixels import Partition
from galbatch.errors import UsageError

N, LENGTH = 300, 5
IDS = 1000 + np.arange(N)
MISSING = 1007


@pytest.fixture(scope="module")
def vectors() -> np.ndarray[Any, Any]:
    found = np.random.default_rng(3).normal(size=(N, LENGTH)).astype(np.float16)
    found[MISSING - 1000] = np.nan
    found[20] = found[10]  # of equal distance to any other
    found[30] = 0.0  # without a direction
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray[Any, Any]) -> str:
    """A catalog of several leaves, in which one network has its embedding as float32 and another as float16."""
    random = np.random.default_rng(1)
    ra, dec = random.uniform(150.0, 150.5, N), random.uniform(2.0, 2.5, N)
    columns = [PIXEL_FLAGS]
    values = {PIXEL_FLAGS.name: np.zeros(N, np.int32)}
    for model, dtype in (("net", "float32"), ("half", "float16")):
        embedding = replace(EMBEDDING.column(model, dtype=dtype), dtype=dtype, length=LENGTH)
        columns += [embedding, MODEL_FLAGS.column(model)]
        values |= {embedding.name: vectors.astype(dtype), f"{model}_flags": np.zeros(N, np.int32)}
    index = sky.healpix_29(ra, dec)
    order = np.argsort(index)
    schema = catalog.leaf_schema(columns, id_type=pa.int64(), kept=pa.schema([]))
    own = [pa.array(a[order]) for a in (index, IDS, ra, dec)]
    table = pa.table([*own, *(c.as_arrow(values[c.name][order]) for c in columns)], schema=schema)
    folder = str(tmp_path_factory.mktemp("similar") / "catalog")
    pixels = sky.pixel_of(table.column("_healpix_29").to_numpy(), 7)
    partitions, start = [], 0
    for pixel in dict.fromkeys(pixels.tolist()):
        n = int((pixels == pixel).sum())
        partitions.append(Partition(7, pixel, start, start + n))
        catalog.write_leaf(folder, partitions[-1], table.slice(start, n), footer={})
        start += n
    catalog.finish(folder, partitions=partitions, properties={}, n_rows_expected=N)
    assert len(partitions) > 2
    return folder


def distances(vectors: np.ndarray[Any, Any], of: int, metric: str) -> np.ndarray[Any, Any]:
    all_of, one = vectors.astype(np.float64), vectors[of].astype(np.float64)
    if metric == "euclidean":
        return np.linalg.norm(all_of - one, axis=1)
    with np.errstate(invalid="ignore"):
        return 1 - all_of @ one / np.linalg.norm(all_of, axis=1) / np.linalg.norm(one)


@pytest.mark.parametrize("model", ["net", "half"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("block", [7, 8192])
def test_they_are_the_nearest_of_all(
    path: str,
    vectors: np.ndarray[Any, Any],
    model: str,
    metric: Any,
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(similar, "BLOCK_ROWS", block)
    found = galbatch.open_catalog(path).similar(1042, 25, model=model, metric=metric)
    expected = distances(vectors, 42, metric)
    others = np.delete(np.argsort(expected), 0)  # NaN comes last
    np.testing.assert_allclose(found["distance"], expected[others[:25]], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["distance"], expected[found["object_id"] - 1000], rtol=1e-5, atol=1e-6)
    assert len(set(found["object_id"])) == 25
    assert found["ra_deg"].unit == "deg"


def test_all_others_that_have_an_embedding_are_found_if_asked_for(path: str) -> None:
    found = galbatch.open_catalog(path).similar(1042, 1000, model="net")
    assert set(found["object_id"]) == set(IDS.tolist()) - {1042, MISSING}
    cosine = galbatch.open_catalog(path).similar(1042, 1000, model="net", metric="cosine")
    assert set(found["object_id"]) - set(cosine["object_id"]) == {1030}  # zeros


def test_a_narrowed_catalog_searches_its_own_rows(path: str, vectors: np.ndarray[Any, Any]) -> None:
    narrowed = galbatch.open_catalog(path).where("object_id < 1040")
    found = narrowed.similar(1042, 3, model="net")
    expected = distances(vectors, 42, "euclidean")[:40]
    assert list(found["object_id"] - 1000) == np.argsort(expected)[:3].tolist()
    none = galbatch.open_catalog(path).where("object_id < 0").similar(1042, 3, model="net")
    assert (len(none), none.colnames) == (0, ["object_id", "ra_deg", "dec_deg", "distance"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"object_id": 1042}, "the models net, half have embeddings; name one of them"),
        ({"object_id": 1042, "model": "nett"}, "no embedding of model nett; did you mean net"),
        (
            {"object_id": MISSING, "model": "net"},
            "object 1007: has no embedding in net_embedding; its flags say why",
        ),
        ({"object_id": 5, "model": "net"}, "5"),
        ({"object_id": 1042, "model": "net", "n": 0}, "ask for 1 or more"),
        (
            {"object_id": 1042, "model": "net", "metric": "l1"},
            "metric l1: not known; there are euclidean and cosine",
        ),
    ],
)
def test_what_cannot_be_found_is_told(path: str, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        galbatch.open_catalog(path).similar(asked.pop("object_id"), **asked)


def test_a_catalog_without_embeddings_says_how_to_get_one(small: str) -> None:
    with pytest.raises(
        UsageError, match=r"no model has an embedding; set embedding = true in \[\[models\]\]"
    ):
        galbatch.open_catalog(small).similar(-5)


def test_a_montage_shows_the_cutouts_in_rows(small: str, tmp_path: Path) -> None:
    from PIL import Image

    store = str(Path(small).parent / "cutouts.zarr")
    one = api.find_cutouts(small, store, ["-5"])[0]
    api.write_montage(str(tmp_path / "m.png"), [one] * 9, [str(n) for n in range(9)])
    picture = np.asarray(Image.open(tmp_path / "m.png"))
    assert picture.shape == (2 * 144 + 4, 7 * (144 + 4) - 4, 3)
    # The sources lie at the centers of the first row and of the first two pictures of the second; the rest is white paper.
    assert picture[144 + 4 :, 2 * (144 + 4) :].min() == 255
    assert (picture[:144, 144 : 144 + 4] == 255).all()

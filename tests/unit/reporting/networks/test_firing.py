import dataclasses
import html
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from galbatch import models
from galbatch.errors import UsageError
from galbatch.reporting import page, write_report
from galbatch.reporting.networks import bundle_files, firing_pictures, summarize_features

BUNDLE = models.bundle_path("demo:sfnet")


def pictures(contents, store, **changes):
    summary = summarize_features(contents.features["sfnet"], [])
    return summary, firing_pictures(
        contents, summary, **{"model": "sfnet", "store": store, "bundle": BUNDLE, **changes}
    )


def pixels(png):
    """An RGB picture (y, x, rgb) float64, its first row at the bottom."""
    return np.asarray(Image.open(io.BytesIO(png)), dtype=np.float64)[::-1]


def test_pictures_are_of_the_strongest_objects_and_tinted_where_the_map_is_large(sparse):
    contents, store = sparse
    summary, found = pictures(contents, store)
    rows = [row for own in summary.strongest[:6] for row in own if row >= 0]
    assert [one.object_id for one in found] == [contents.object_id[row] for row in rows]
    features = contents.features["sfnet"]
    for one, row in zip(found, rows, strict=True):
        (rank,) = np.flatnonzero(features.index[row] == one.feature)
        assert one.activation == pytest.approx(features.activation[row, rank], rel=1e-5)
        tinted, plain = pixels(one.map_png), pixels(one.cutout_png).mean(axis=-1)
        assert tinted.shape == (96, 96, 3)
        # Vermilion is 213, 94, 0: what is tinted by a share t has blue of (1 - t) of the gray, and red minus blue of 213 t.
        share = (tinted[..., 0] - tinted[..., 2]) / 213
        np.testing.assert_allclose(tinted[..., 2], (1 - share) * plain, atol=1.5)
        # The map's pixels are centered on pixels 0, 32 and 64; the brightest has the full tint of 0.75.
        corners = share[:65:32, :65:32]
        assert corners.max() == pytest.approx(0.75, abs=0.01)
        y, x = np.unravel_index(corners.argmax(), (3, 3))
        assert one.distance_arcsec == pytest.approx(0.168 * np.hypot(32 * y - 48, 32 * x - 48))


def test_other_pixels_than_those_of_the_run_are_refused(sparse):
    contents, store = sparse
    features = contents.features["sfnet"]
    other = dataclasses.replace(features, activation=1.1 * features.activation)
    changed = dataclasses.replace(contents, features={"sfnet": other})
    with pytest.raises(UsageError, match=r"18 of 18 activations differ by more than 5% from the catalog's"):
        pictures(changed, store)


def test_a_store_without_cutouts_of_the_size_is_told(sparse, made):
    with pytest.raises(UsageError, match=r"has no cutouts of 96 px of 0.168 arcsec of 18 of the 18 objects"):
        pictures(sparse[0], made[2])


def test_shipped_bundles_are_found_by_their_hash_and_given_ones_are_compared(sparse, tmp_path):
    contents, _ = sparse
    assert bundle_files(contents, {}) == {"sfnet": BUNDLE}
    copy = tmp_path / "mine.pt"
    shutil.copy(BUNDLE, copy)
    assert bundle_files(contents, {"sfnet": str(copy)}) == {"sfnet": str(copy)}
    with pytest.raises(
        UsageError, match=r"--bundle sfnet=.*gampen.pt: its sha256 is .*, that of the bundle in"
    ):
        bundle_files(contents, {"sfnet": models.bundle_path("demo:gampen")})
    with pytest.raises(
        UsageError, match=r"--bundle other: not a network with one bundle in .*, which has gampen, sfnet"
    ):
        bundle_files(contents, {"other": BUNDLE})


@pytest.mark.parametrize("is_known", [True, False])
def test_the_page_has_the_pictures_or_says_why_not(sparse, made, tmp_path, monkeypatch, is_known):
    contents, store = sparse
    if not is_known:
        properties = {**contents.properties, "galbatch_bundle_sfnet": "00" * 32}
        contents = dataclasses.replace(contents, properties=properties)
    monkeypatch.setattr(page, "read_contents", lambda _: contents)
    write_report(made[0], str(tmp_path / "report.html"), store=store)
    text = html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    places = re.findall(
        r'<figure class="place">.*?activation ([\d.]+), largest ([\d.]+)″ from the center', text, re.DOTALL
    )
    assert len(places) == (18 if is_known else 0)
    assert ("galbatch report --bundle sfnet=FILE" in text) is not is_known

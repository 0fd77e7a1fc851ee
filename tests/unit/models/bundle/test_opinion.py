"""Second opinions of the shipped bundles, which are in files next to them."""

import dataclasses
import json

import pytest

from galbatch import models, photometry
from galbatch.errors import BundleError
from galbatch.models.bundle.archive import read_metadata_text
from galbatch.models.bundle.opinion import read_disagreement, write_disagreement
from galbatch.models.heads import read_metadata
from galbatch.models.metadata import DISAGREEMENT_VERSION

# What photometry tells of, by bundle.
SHIPPED = {
    "gampen": ("re_arcsec", "flux_njy"),
    "gampen_survey": ("re_arcsec", "flux_njy"),
    "sfnet": ("color_gr_mag", "mag_r"),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_bundles_have_a_second_opinion_of_this_photometry(name):
    metadata, sha256 = models.read_bundle_metadata(f"demo:{name}")
    info = metadata.disagreement
    assert tuple(fit.parameter for fit in info.fits) == SHIPPED[name]
    names = tuple(parameter.name for parameter in metadata.parameters)
    assert info.problems(names, len(metadata.input.bands)) == []
    assert info.n_objects > 5000
    assert metadata.training["population"] in info.data
    # With another version nothing would be compared: benchmarks/second_opinion.py --write measures it again.
    assert (info.version, info.photometry_version) == (DISAGREEMENT_VERSION, photometry.PHOTOMETRY_VERSION)
    loaded = models.load_bundle(models.bundle_path(f"demo:{name}"))
    assert (loaded.metadata, loaded.sha256) == (metadata, sha256)
    with open(models.bundle_path(f"demo:{name}"), "rb") as file:
        of_file = read_metadata(read_metadata_text(file, name), name)
    # The file is as it was, and nothing but this is added.
    assert of_file.disagreement is None
    assert dataclasses.replace(metadata, disagreement=None) == of_file


def test_their_columns_and_their_identity_follow_from_it():
    info = models.read_ensemble_info([models.bundle_path("demo:gampen")])
    names = [column.name for column in models.network_columns(info, name="net", quantiles=(0.5,))]
    assert "net_disagreement" in names
    other = models.read_ensemble_info([models.bundle_path("demo:gampen_survey")])
    assert len({info.opinion, other.opinion, ""}) == 3


def test_a_copy_with_other_metadata_is_another_bundle(tmp_path):
    """Its hash is another one, so it has what its own file says."""
    path = str(tmp_path / "copy.pt")
    metadata = dataclasses.replace(models.load_bundle("demo:sfnet").metadata, disagreement=None)
    models.rewrite_bundle("demo:sfnet", path, metadata)
    assert models.load_bundle(path).metadata.disagreement is None
    assert models.read_bundle_metadata(path)[0].disagreement is None
    assert models.read_ensemble_info([path]).opinion == ""


def test_a_file_gives_what_was_written_and_is_refused_where_it_contradicts_itself(tmp_path):
    info = models.load_bundle("demo:gampen").metadata.disagreement
    path = tmp_path / "net.disagreement.json"
    write_disagreement(path, "ab" * 32, info)
    assert read_disagreement(path) == ("ab" * 32, info)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["disagreement"]["limits"].reverse()
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError, match=r"net.disagreement.json: .*limits rise"):
        read_disagreement(path)

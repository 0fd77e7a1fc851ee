import hashlib
import json
import threading
import time
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from galbatch.core.types import Grid
from galbatch.errors import BundleError
from galbatch.models import (
    Bundle,
    DomainInfo,
    HeadInfo,
    bundle_path,
    load_bundle,
    rewrite_bundle,
    save_bundle,
    script_of,
)
from galbatch.models.bundle import check_behavior
from galbatch.models.heads import read_metadata


class Toy(nn.Module):
    """The least that behaves: outputs are means over the image, plus noise of the key."""

    def __init__(self, noise: float = 0.1, n_out: int = 9):
        super().__init__()
        self.noise = noise
        self.n_out = n_out

    def forward(self, images: Tensor) -> Tensor:
        return images

    @torch.jit.export
    def prefix(self, images: Tensor) -> Tensor:
        return images

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        value = features.mean(dim=(1, 2, 3)) + self.noise * keys.double().sin().float()
        return value.unsqueeze(1).repeat(1, self.n_out)


class Unsteady(Toy):
    """Draws from torch's own generator."""

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        return torch.randn((features.shape[0], 9))


class Learning(Toy):
    """Its BatchNorm continues to count."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(1))

    @torch.jit.export
    def prefix(self, images: Tensor) -> Tensor:
        self.running_mean += 1.0
        return images


class Broken(Toy):
    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        return torch.full((features.shape[0], 9), float("nan"))


class Mismatched(Toy):
    @torch.jit.export
    def prefix(self, images: Tensor) -> Tensor:
        return images.reshape(-1, 7, 11)


class NoSample(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


def test_a_bundle_comes_back_whole(tmp_path, make):
    path = tmp_path / "a.pt"
    sha256 = save_bundle(str(path), script_of(make.gampen()), make.gampen_metadata())
    bundle = load_bundle(str(path), sha256=sha256)
    assert bundle.sha256 == sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert bundle.metadata == make.gampen_metadata()
    assert bundle.grid == Grid(48, 0.168)
    assert bundle.bands == ("g",)
    assert bundle.has("crop")
    assert not bundle.has("top_features")
    images, keys = torch.rand(3, 1, 48, 48), torch.tensor([1, 2, 3])
    expected = make.gampen().eval()(images, keys)
    torch.testing.assert_close(bundle.sample(bundle.prefix(images), keys), expected)


def test_loaded_once_per_process(gampen_bundle, tmp_path, make):
    path = tmp_path / "a.pt"
    save_bundle(str(path), script_of(make.gampen()), make.gampen_metadata(version="once"))
    first = load_bundle(str(path))
    assert load_bundle(str(path)) is first
    path.unlink()
    assert load_bundle(str(path), sha256=first.sha256) is first


def test_another_file_than_expected_is_refused(tmp_path, make):
    path = tmp_path / "a.pt"
    save_bundle(str(path), script_of(make.gampen()), make.gampen_metadata())
    with pytest.raises(
        BundleError, match=r"a\.pt: sha256 is .*expected 000000000000\.\.: the file has changed"
    ):
        load_bundle(str(path), sha256="0" * 64)


def test_missing_corrupt_and_foreign_files_are_told_apart(tmp_path, make):
    with pytest.raises(BundleError, match="there is no such bundle"):
        load_bundle(str(tmp_path / "none.pt"))
    whole = tmp_path / "whole.pt"
    save_bundle(str(whole), script_of(make.gampen()), make.gampen_metadata())
    for content in (b"", b"no zip at all", whole.read_bytes()[:50_000]):
        (tmp_path / "cut.pt").write_bytes(content)
        with pytest.raises(
            BundleError, match=r"cut\.pt: is no TorchScript file, or is damaged: .*fetch it again"
        ):
            load_bundle(str(tmp_path / "cut.pt"))
    torch.jit.save(script_of(make.gampen()), str(tmp_path / "foreign.pt"))
    with pytest.raises(BundleError, match=r"foreign\.pt: holds no galbatch\.json"):
        load_bundle(str(tmp_path / "foreign.pt"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    with pytest.raises(BundleError, match=r"state\.pt: is no TorchScript file"):
        load_bundle(str(tmp_path / "state.pt"))


def test_wrong_metadata_in_the_file_is_refused(tmp_path):
    torch.jit.save(
        script_of(Toy()), str(tmp_path / "a.pt"), _extra_files={"galbatch.json": json.dumps({"name": "x"})}
    )
    with pytest.raises(BundleError, match=r"a\.pt: galbatch\.json: version: missing"):
        load_bundle(str(tmp_path / "a.pt"))


def test_edges_that_the_transform_does_not_tell_apart_are_refused(tmp_path, make):
    """Of B/T with limits 0.02 and 0.98 the bins below 0.02 are one value."""
    metadata = make.gampen_metadata(
        parameters=make.gampen_metadata().parameters[:1],
        head=HeadInfo("binned", edges=((0.0, 0.01, 0.5, 1.0),)),
    )
    with pytest.raises(
        BundleError,
        match=r"a\.pt: galbatch\.json: head binned: the edges of bt, 0 to 1, must be finite and rise",
    ):
        save_bundle(str(tmp_path / "a.pt"), script_of(make.gampen(n_out=3)), metadata)


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        (NoSample(), {}, "no method prefix"),
        (Toy(n_out=4), {}, r"sample gives \(16, 4\), expected \(row, output\) = \(16, 9\)"),
        (Broken(), {}, "non-finite"),
        (Mismatched(), {}, r"fails on images \(2, 1, 48, 48\)"),
        (Unsteady(), {}, "the same keys give different outputs"),
        (Toy(noise=0.0), {}, "different keys give the same outputs, but its metadata says dropout_rate 0.02"),
        (
            Toy(),
            {"dropout_rate": 0.0},
            "different keys give different outputs, but its metadata says dropout_rate 0",
        ),
        (Learning(), {}, "a pass changes running_mean"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_behavior_is_held_to_the_metadata(make, network, changes, message):
    with pytest.raises(BundleError, match=message):
        check_behavior(script_of(network), make.gampen_metadata(**changes), source="x.pt")


def test_a_well_behaved_foreign_script_passes(make):
    check_behavior(script_of(Toy()), make.gampen_metadata(), source="x.pt")
    check_behavior(script_of(Toy(noise=0.0)), make.gampen_metadata(dropout_rate=0.0), source="x.pt")


def test_batchnorm_left_in_training_mode_is_told(make):
    network = make.sfnet().train()
    with pytest.raises(BundleError, match=r"BatchNorm is in training mode"):
        check_behavior(torch.jit.script(network), make.sfnet_metadata(), source="x.pt")


def test_a_misbehaving_bundle_is_not_saved(tmp_path, make):
    with pytest.raises(BundleError, match="expected"):
        save_bundle(str(tmp_path / "a.pt"), script_of(Toy(n_out=4)), make.gampen_metadata())
    assert not (tmp_path / "a.pt").exists()


def test_loading_runs_no_pickle_from_the_archive(tmp_path, make):
    """TorchScript archives hold code of TorchScript only; a pickled module of Python classes is refused."""
    torch.save(Toy(), tmp_path / "pickled.pt")
    assert zipfile.is_zipfile(tmp_path / "pickled.pt")
    with pytest.raises(BundleError, match="is no TorchScript file"):
        load_bundle(str(tmp_path / "pickled.pt"))


def test_demo_names_are_paths_in_the_package():
    assert bundle_path("some/where.pt") == "some/where.pt"
    with pytest.raises(BundleError, match="demo:nothing: there is no such demo bundle"):
        bundle_path("demo:nothing")
    assert Path(bundle_path("demo:sfnet")).name == "sfnet.pt"


def test_a_bundle_holds_no_paths_of_where_it_was_written(tmp_path, make):
    path = tmp_path / "a.pt"
    save_bundle(str(path), script_of(make.gampen()), make.gampen_metadata())
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if name.endswith((".debug_pkl", "serialization_id"))]
    assert str(Path(torch.__file__).parent).encode() not in path.read_bytes()
    assert load_bundle(str(path)).metadata == make.gampen_metadata()


def test_rewriting_again_and_again_gives_the_same_bytes(tmp_path, make):
    first, second, third = (str(tmp_path / f"{name}.pt") for name in "abc")
    save_bundle(first, script_of(make.gampen()), make.gampen_metadata())
    changed = make.gampen_metadata(citation="somebody")
    sha256 = rewrite_bundle(first, second, changed)
    assert rewrite_bundle(second, third, changed) == sha256
    assert rewrite_bundle(third, third, changed) == sha256
    assert load_bundle(third, sha256=sha256).metadata.citation == "somebody"


def test_rewriting_with_metadata_that_do_not_fit_leaves_the_output_alone(tmp_path, make):
    path = str(tmp_path / "a.pt")
    sha256 = save_bundle(path, script_of(make.gampen()), make.gampen_metadata())
    with pytest.raises(BundleError, match="dropout_rate 0"):
        rewrite_bundle(path, path, make.gampen_metadata(dropout_rate=0.0))
    assert load_bundle(path).sha256 == sha256


class Pairs(Toy):
    """Says two things."""

    @torch.jit.export
    def prefix(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


def test_outputs_that_are_no_tensor_are_told(make):
    with pytest.raises(BundleError, match="prefix gives tuple, expected a tensor"):
        check_behavior(script_of(Pairs()), make.gampen_metadata(), source="x.pt")


@pytest.mark.parametrize(
    ("n_top", "domain", "message"),
    [
        (5, {}, "top_features gives 4, but n_top_features is 5"),
        (
            4,
            {"features_mean": (0.0,), "features_covariance": ((1.0,),), "distance_limit": 3.0},
            "last_features gives 64 numbers, but its domain is of 1",
        ),
    ],
)
def test_features_are_held_to_the_metadata(make, n_top, domain, message):
    metadata = make.sfnet_metadata(n_top_features=n_top, domain=DomainInfo(**domain))
    with pytest.raises(BundleError, match=message):
        check_behavior(script_of(make.sfnet()), metadata, source="x.pt")


def test_metadata_that_contradict_themselves_are_not_saved(tmp_path, make):
    """They would be refused where the bundle is loaded."""
    path = tmp_path / "a.pt"
    changes = {"domain": DomainInfo(psf_fwhm_arcsec=((0.5, 1.0), (0.5, 1.0)))}
    with pytest.raises(BundleError, match="psf_fwhm_arcsec has 2 ranges for 1 bands"):
        save_bundle(str(path), script_of(make.gampen()), make.gampen_metadata(**changes))
    with pytest.raises(BundleError, match="hold numbers that are not finite"):
        save_bundle(
            str(path), script_of(make.gampen()), make.gampen_metadata(training={"loss": float("nan")})
        )
    assert not path.exists()


@pytest.mark.parametrize("text", ['{"name": NaN}', "[1]", b"\xff\xfe"])
def test_metadata_that_are_no_json_are_refused(text):
    with pytest.raises(BundleError, match=r"x\.pt: galbatch\.json"):
        read_metadata(text, "x.pt")


def test_a_bundle_that_is_not_kept_is_loaded_again(tmp_path, make):
    path = str(tmp_path / "a.pt")
    save_bundle(path, script_of(make.gampen()), make.gampen_metadata(version="not kept"))
    first = load_bundle(path, keep=False)
    assert load_bundle(path) is not first


class Drawing:
    """A foreign script that notes how many threads run it at a time."""

    draws_from_global_generator = True

    def __init__(self):
        self.inside = 0
        self.most_inside = 0

    def state_dict(self):
        return {}

    def prefix(self, images):
        return images

    def sample(self, features, keys):
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        time.sleep(0.01)
        rows = [torch.rand(9, generator=torch.manual_seed(int(key))) for key in keys]
        self.inside -= 1
        return torch.stack(rows)


def test_draws_of_a_foreign_network_are_not_disturbed_by_the_check_of_another(make):
    script, metadata = Drawing(), make.gampen_metadata()
    bundle = Bundle(metadata, "0", script)
    thread = threading.Thread(target=check_behavior, args=(script, metadata), kwargs={"source": "x.pt"})
    thread.start()
    while thread.is_alive():
        bundle.sample(torch.zeros(2, 1, 48, 48), torch.arange(2))
    assert script.most_inside == 1

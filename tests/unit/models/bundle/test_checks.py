"""Networks whose rows depend on each other are refused: an object's posterior must not follow from its neighbors in a batch."""

import pytest
import torch
from torch import Tensor, nn

from galbatch.errors import BundleError
from galbatch.models import demo_bundles, load_bundle, save_bundle, script_of
from galbatch.models.bundle import bundle_path, check_behavior


class Means(nn.Module):
    """Puts out each image's mean, for each of nine outputs; without dropout."""

    def forward(self, images: Tensor) -> Tensor:
        return images

    @torch.jit.export
    def prefix(self, images: Tensor) -> Tensor:
        return images

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        return features.mean(dim=(1, 2, 3)).unsqueeze(1).repeat(1, 9)


class ScaledByTheBatch(Means):
    @torch.jit.export
    def prefix(self, images: Tensor) -> Tensor:
        return (images - images.min()) / (images.max() - images.min())


class NormalizedByTheBatch(Means):
    """BatchNorm without running statistics takes those of the batch, in eval mode too."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, track_running_stats=False)

    @torch.jit.export
    def prefix(self, images: Tensor) -> Tensor:
        return self.norm(images)


class CenteredInSample(Means):
    """A thousandth of the batch's mean, and in `sample` alone."""

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        means = features.mean(dim=(1, 2, 3)).unsqueeze(1).repeat(1, 9)
        return means - 0.001 * means.mean()


class NumberedRows(Means):
    """Only the place in the batch matters."""

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        means = features.mean(dim=(1, 2, 3)).unsqueeze(1).repeat(1, 9)
        return means + 0.1 * torch.arange(features.shape[0]).unsqueeze(1)


class FirstKeyForAll(Means):
    """Masks of the whole batch come from the key of its first row."""

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        means = features.mean(dim=(1, 2, 3)).unsqueeze(1).repeat(1, 9)
        return means + 0.1 * (keys[0] + keys * 0).double().sin().float().unsqueeze(1)


class NeverAlone(Means):
    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        if features.shape[0] == 1:
            raise ValueError("expected more than one row")
        return features.mean(dim=(1, 2, 3)).unsqueeze(1).repeat(1, 9)


class PairsOfRows(Means):
    """Each row is averaged with the row before it, whatever the size of the batch; the first with the last."""

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        means = features.mean(dim=(1, 2, 3)).unsqueeze(1).repeat(1, 9)
        return 0.5 * (means + means.roll(1, 0))


class FewerFeatures(Means):
    @torch.jit.export
    def prefix(self, images: Tensor) -> Tensor:
        return images[:1]


class FeaturesOfTheBatch(Means):
    """Outputs are each row's own; the features that say how far an object is from the training set are not."""

    @torch.jit.export
    def last_features(self, features: Tensor) -> Tensor:
        means = features.mean(dim=(2, 3))
        return means / means.sum()


@pytest.mark.parametrize(
    ("network", "rate", "message"),
    [
        (ScaledByTheBatch(), 0.0, "prefix gives an image other numbers in a batch of 1 than in one of 2"),
        (NormalizedByTheBatch(), 0.0, "prefix gives an image other numbers in a batch of 1"),
        (CenteredInSample(), 0.0, "sample gives an image other numbers in a batch of 1 than in one of 16"),
        (PairsOfRows(), 0.0, "sample gives an image other numbers"),
        (NumberedRows(), 0.0, "sample gives an image other numbers"),
        (FirstKeyForAll(), 0.1, "sample gives an image other numbers"),
        (NeverAlone(), 0.0, "sample fails on a batch of 1: .*expected more than one row"),
        (FewerFeatures(), 0.0, "prefix gives 1 rows for 2 images"),
        (FeaturesOfTheBatch(), 0.0, "last_features gives an image other numbers"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_rows_that_depend_on_each_other_are_refused(make, network, rate, message):
    with pytest.raises(BundleError, match=message):
        check_behavior(script_of(network), make.gampen_metadata(dropout_rate=rate), source="x.pt")


def test_rows_of_their_own_pass_and_are_the_same_in_any_batch(tmp_path, make):
    path = str(tmp_path / "a.pt")
    save_bundle(path, script_of(Means()), make.gampen_metadata(dropout_rate=0.0))
    bundle = load_bundle(path)
    images = torch.rand(5, 1, 48, 48)
    together = bundle.sample(bundle.prefix(images), torch.arange(5))
    alone = bundle.sample(bundle.prefix(images[3:4]), torch.arange(3, 4))
    torch.testing.assert_close(together[3:4], alone)
    torch.testing.assert_close(alone[0, 0], images[3].mean())


@pytest.mark.parametrize("name", demo_bundles())
def test_shipped_bundles_pass(name):
    assert load_bundle(bundle_path(name), keep=False).metadata.parameters

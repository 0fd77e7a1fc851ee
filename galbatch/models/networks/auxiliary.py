"""Numbers per object beside its image, such as E(B-V): they join a network's features before its first linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Beside", "NothingBeside", "beside_images"]


def beside_images(n_columns: int) -> Beside | NothingBeside:
    """What carries `n_columns` numbers per object from `prefix` to `sample`; it has no state if there are none."""
    return Beside(n_columns) if n_columns else NothingBeside()


class Beside(nn.Module):
    """Carries the numbers from `prefix` to `sample` as maps of one value behind the feature maps.

    So `sample` takes rows of features alone, with numbers or without.

    Parameters
    ----------
    n_columns : numbers per object
    """

    def __init__(self, n_columns: int) -> None:
        super().__init__()
        self.n_columns = n_columns
        # From the training set.
        self.mean = nn.Buffer(torch.zeros(n_columns))
        self.std = nn.Buffer(torch.ones(n_columns))

    def attach(self, features: Tensor, columns: Tensor | None) -> Tensor:
        """Features (object, channel, y, x) and columns (object, column) to (object, channel + column, y, x)."""
        if columns is None:
            raise ValueError("this network takes columns beside the images")
        standard = ((columns - self.mean) / self.std).unsqueeze(2).unsqueeze(3)
        maps = standard.expand(-1, -1, features.shape[2], features.shape[3])
        return torch.cat([features, maps], dim=1)

    def maps(self, features: Tensor) -> Tensor:
        """The feature maps alone, (row, channel, y, x)."""
        return features[:, : features.shape[1] - self.n_columns]

    def join(self, last: Tensor, features: Tensor) -> Tensor:
        """Last features (row, feature) with the numbers that `features` carry, (row, feature + column)."""
        return torch.cat([last, features[:, features.shape[1] - self.n_columns :, 0, 0]], dim=1)


class NothingBeside(nn.Module):
    """In the place of `Beside` where there are no numbers: everything stays as it is."""

    def attach(self, features: Tensor, columns: Tensor | None) -> Tensor:
        """The features."""
        return features

    def maps(self, features: Tensor) -> Tensor:
        """The features."""
        return features

    def join(self, last: Tensor, features: Tensor) -> Tensor:
        """The last features."""
        return last

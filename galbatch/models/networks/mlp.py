"""A plain dense network (multilayer perceptron) on columns alone, with dropout before each layer but the first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from galbatch.models.networks.auxiliary import AuxiliaryInputs
from galbatch.models.networks.dropout import keyed_dropout

__all__ = ["Mlp"]


class Mlp(nn.Module):
    """The dense network. A pass (`forward`) is split into `prefix`, which is deterministic, and `sample`.

    Parameters
    ----------
    n_columns : number of columns that it takes
    n_out : number of outputs of the last layer
    hidden : number of units of each hidden layer, one at least
    dropout_rate : rate of every dropout layer; 0 switches dropout off

    Raises
    ------
    ValueError
        There is no column or no hidden layer.
    """

    def __init__(
        self, n_columns: int, n_out: int, *, hidden: Sequence[int], dropout_rate: float = 0.0
    ) -> None:
        super().__init__()
        if n_columns < 1 or not hidden:
            raise ValueError(
                f"an mlp takes columns and has hidden layers, found {n_columns} and {len(hidden)}"
            )
        self.dropout_rate = dropout_rate
        self.auxiliary = AuxiliaryInputs(n_columns)
        self.first = nn.Linear(n_columns, hidden[0])
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(hidden))
        self.fc = nn.Linear(hidden[-1], n_out)

    def forward(self, columns: Tensor, keys: Tensor) -> Tensor:
        """Run one stochastic pass, (object, output) float32, from columns (object, column) and keys (object,) int64."""
        return self.sample(self.prefix(columns), keys)

    @torch.jit.export
    def prefix(self, columns: Tensor) -> Tensor:
        """Compute everything before the first dropout: the columns are standardized, and go through the first layer.

        Parameters
        ----------
        columns : (object, column) float32, in the units of the training table

        Returns
        -------
        (object, unit) float32
        """
        features: Tensor = functional.relu(self.first(self.auxiliary.standardized(columns)))
        return features

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        """Run one stochastic pass for each row, with dropout masks drawn from `keys`.

        Parameters
        ----------
        features : (row, unit) float32, rows of what `prefix` returned
        keys : (row,) int64

        Returns
        -------
        (row, output) float32
        """
        last = self.last(features, keys, self.dropout_rate)
        outputs: Tensor = self.fc(keyed_dropout(last, keys, 0, self.dropout_rate))
        return outputs

    @torch.jit.export
    def last_features(self, features: Tensor) -> Tensor:
        """Return the units of the last hidden layer in the pass without dropout.

        Parameters
        ----------
        features : (object, unit) float32, what `prefix` returned

        Returns
        -------
        (object, feature) float32, none negative
        """
        keys = torch.zeros(features.shape[0], dtype=torch.int64, device=features.device)
        return self.last(features, keys, 0.0)

    def last(self, x: Tensor, keys: Tensor, rate: float) -> Tensor:
        """Return the units of the last hidden layer, (row, feature), with a dropout layer before each layer but the first."""
        # Dropout layer 0 is the one before the outputs.
        for number, layer in enumerate(self.hidden):
            x = functional.relu(layer(keyed_dropout(x, keys, number + 1, rate)))
        return x

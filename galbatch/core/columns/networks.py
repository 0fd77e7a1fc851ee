"""Names of networks: a model of run.toml is one network, or several cases that fill the same columns."""

from __future__ import annotations

__all__ = ["case_of_network", "model_of_network", "network_name"]

# Neither models nor cases may have it in their names.
SEPARATOR = "."


def network_name(model: str, case: str = "") -> str:
    """Return the name of a network: the model's, with the case after a dot where the model has cases."""
    return f"{model}{SEPARATOR}{case}" if case else model


def model_of_network(network: str) -> str:
    """Return the model's name in the name of a network, which its columns begin with."""
    return network.partition(SEPARATOR)[0]


def case_of_network(network: str) -> str:
    """Return the case's name in the name of a network; "" for a model without cases."""
    return network.partition(SEPARATOR)[2]

"""The [[models]] sections: the networks to run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from galbatch.config.strict import Section
from galbatch.config.values import one_or_several

__all__ = ["ModelConfig"]


class ModelConfig(Section):
    """One [[models]] section: a network to run."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="prefix of the model's columns")
    bundle: Annotated[tuple[str, ...], one_or_several(str)] = Field(
        min_length=1,
        description="bundle file (.pt), or demo:gampen and demo:sfnet for the bundles shipped with galbatch; a list of "
        "bundles of one model is an ensemble, whose posteriors are pooled",
    )
    bands: tuple[str, ...] = Field(
        (),
        description="survey bands fed to the network, in the order of the bundle's; empty: the bundle's own names",
    )
    auxiliary_inputs: tuple[str, ...] = Field(
        (),
        description="columns of the object list that are fed to a network with auxiliary inputs, in the order of "
        "the bundle's; empty: the bundle's own names",
    )
    calibrated: bool | None = Field(
        None,
        description="whether the posteriors are widened by the inflation factors that galbatch models calibrate stored in the "
        "bundle; empty: as the bundle says",
    )
    where: str | None = Field(
        None, description="which objects the network is for, such as z_best < 0.25; empty: all"
    )

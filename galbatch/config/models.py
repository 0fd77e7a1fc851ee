"""The [[models]] sections: the networks to run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from galbatch.config.strict import Section
from galbatch.config.values import one_or_several

__all__ = ["DensityGrid", "ModelConfig"]


class DensityGrid(Section):
    """One [[models.densities]] section: a grid of equal bins on which the density of a parameter is written."""

    parameter: str = Field(description="parameter of the network, such as z")
    low: float = Field(allow_inf_nan=False, description="lower end of the first bin, in the parameter's unit")
    high: float = Field(allow_inf_nan=False, description="upper end of the last bin")
    # 10,000 float32 are 40 kB an object: more is what kept pass outputs are for.
    bins: int = Field(ge=2, le=10_000, description="number of bins")

    @model_validator(mode="after")
    def _ends_rise(self) -> DensityGrid:
        if not self.low < self.high:
            raise ValueError(f"low must lie below high, found {self.low:g} and {self.high:g}")
        return self


class ModelConfig(Section):
    """One [[models]] section: a network to run."""

    # Names of columns are <name>_<parameter>_<statistic>, and lower-case letters, digits and underscores need no quotes in SQL. They are
    # folders of the kept pass outputs, too, whose names have 255 bytes at most.
    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        max_length=64,
        description="prefix of the model's columns in the catalog",
    )
    bundle: Annotated[tuple[str, ...], one_or_several(str)] = Field(
        min_length=1,
        description="bundle file (.pt), or demo:gampen or demo:sfnet for the bundles shipped with galbatch; a list of bundles "
        "with the same parameters is an ensemble: their passes are pooled into one posterior",
    )
    bands: tuple[str, ...] = Field(
        (),
        description="survey bands that are fed to the network, in the order of the bundle's bands; empty: the bands of the "
        "same names",
    )
    auxiliary_inputs: tuple[str, ...] = Field(
        (),
        description="columns of the object list that are fed to a network with auxiliary inputs, in the order of the "
        "bundle's auxiliary inputs; empty: the columns of the same names",
    )
    # None is not False: a converted network stores its factors switched off, a trained one switched on.
    calibrated: bool | None = Field(
        None,
        description="whether to multiply the widths of the posteriors by the inflation factors that galbatch models calibrate "
        "stored in the bundle; empty: what the bundle says",
    )
    embedding: bool = Field(
        False,
        description="whether to write the network's last features, before its head and without dropout, as the column <name>_embedding",
    )
    # Half the bytes; readers that lack the type, as FITS and VOTable, get float32.
    embedding_dtype: Literal["float16", "float32"] = Field(
        "float32", description="type of the numbers of <name>_embedding; float16 takes half the space"
    )
    densities: tuple[DensityGrid, ...] = Field(
        (),
        description="parameters whose density is written on a grid of bins, one [[models.densities]] each, with the ends of its "
        "shortest intervals and its number of peaks: the columns <name>_<parameter>_density, _hpd68_low, .. and _peaks",
    )
    where: str | None = Field(
        None,
        description="condition on the object list's columns that selects the objects to run, such as z_best < 0.25; empty: all",
    )

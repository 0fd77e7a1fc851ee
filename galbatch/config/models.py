"""The [[models]] sections: the networks to run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from galbatch.config.strict import Section
from galbatch.config.values import one_or_several
from galbatch.core.columns import network_name

__all__ = ["CaseConfig", "DensityGrid", "ModelConfig"]

# Names of columns are <name>_<parameter>_<statistic>, and lower-case letters, digits and underscores need no quotes in SQL. They are
# folders of the kept pass outputs, too, whose names have 255 bytes at most.
NAME = r"^[a-z][a-z0-9_]*$"
MAX_NAME = 64


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


class NetworkKeys(Section):
    """The keys of a network, which a model and a case of a model have."""

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


class CaseConfig(NetworkKeys):
    """One [[models.cases]] section: the network for some of the objects of a model."""

    name: str = Field(
        pattern=NAME, max_length=MAX_NAME, description="what the column <model>_case says of its objects"
    )
    bundle: Annotated[tuple[str, ...], one_or_several(str)] = Field(
        min_length=1, description="bundle file or files, as in [[models]]"
    )
    where: str = Field(
        description="condition on the object list's columns that selects the case's objects, such as z_best < 0.25; no object may be in two cases"
    )


class ModelConfig(NetworkKeys):
    """One [[models]] section: a network to run."""

    name: str = Field(
        pattern=NAME, max_length=MAX_NAME, description="prefix of the model's columns in the catalog"
    )
    bundle: Annotated[tuple[str, ...], one_or_several(str)] = Field(
        (),
        description="bundle file (.pt), or demo:gampen or demo:sfnet for the bundles shipped with galbatch; a list of bundles "
        "with the same parameters is an ensemble: their passes are pooled into one posterior; none if there are cases",
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
    cases: tuple[CaseConfig, ...] = Field(
        (),
        description="networks with the same parameters, each for other objects, that fill one set of columns; <model>_case says which it was",
    )

    @model_validator(mode="after")
    def _has_a_bundle_or_cases(self) -> ModelConfig:
        stated = [key for key in ("bundle", "where", "bands", "auxiliary_inputs") if getattr(self, key)]
        if self.calibrated is not None:
            stated.append("calibrated")
        if self.cases and stated:
            raise ValueError(
                f"{self.name}: {', '.join(stated)}: each of its [[models.cases]] states its own; take it out here"
            )
        if not self.cases and not self.bundle:
            raise ValueError(f"bundle: {self.name} has none; give one or several, or [[models.cases]]")
        names = [case.name for case in self.cases]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name}: names of cases must differ, found {names}")
        return self

    @property
    def networks(self) -> tuple[ModelConfig, ...]:
        """The model itself, or one for each of its cases, whose name is that of the network."""
        return tuple(
            # The name has a dot, which the pattern refuses in run.toml.
            ModelConfig.model_construct(
                **{
                    **{key: getattr(case, key) for key in CaseConfig.model_fields},
                    "name": network_name(self.name, case.name),
                    # What becomes a column is the model's.
                    **{key: getattr(self, key) for key in ("embedding", "embedding_dtype", "densities")},
                    "cases": (),
                }
            )
            for case in self.cases
        ) or (self,)

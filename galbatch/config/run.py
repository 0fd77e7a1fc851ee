"""The whole of run.toml: the tree of all sections, and the function that reads it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from galbatch.config.catalog import CatalogConfig
from galbatch.config.cluster import ClusterConfig
from galbatch.config.cutouts import CutoutsConfig
from galbatch.config.flags import FlagsConfig
from galbatch.config.models import ModelConfig
from galbatch.config.objects import ExtinctionConfig, MaskConfig, ObjectsConfig
from galbatch.config.photometry import STACK, PhotometryConfig
from galbatch.config.plan import PlanConfig
from galbatch.config.posterior import PosteriorConfig
from galbatch.config.strict import Section, parse_strictly, require_plain
from galbatch.config.survey import SurveyConfig
from galbatch.config.values import one_or_several
from galbatch.core.file_kinds import FIRST_BYTES, kind_by_content
from galbatch.core.texts import alike_but_for_case
from galbatch.core.urls import scheme_of
from galbatch.errors import ConfigError

__all__ = ["RunConfig", "Stage", "read_config", "read_toml"]

Stage = Literal["ingest", "photometry", "infer", "all"]
"""The part of a run to execute: make cutouts, measure existing cutouts, infer from existing cutouts, or all of these."""


class RunConfig(Section):
    """The whole of run.toml, with one field for each section."""

    # [survey] and [[survey]] are both read: a single table becomes a tuple of one.
    survey: Annotated[tuple[SurveyConfig, ...], one_or_several(dict, BaseModel)] = Field(
        (),
        description="where the pixels come from; the bands of several [[survey]] are joined in one cutout; may be missing where no "
        "network takes pixels",
    )
    objects: ObjectsConfig = Field(description="which objects")
    plan: PlanConfig = Field(default_factory=PlanConfig, description="how the sky is divided")
    cutouts: CutoutsConfig = Field(default_factory=CutoutsConfig, description="the cutout store")
    flags: FlagsConfig = Field(default_factory=FlagsConfig, description="thresholds of the flags")
    photometry: PhotometryConfig = Field(
        default_factory=PhotometryConfig, description="what is measured in the cutouts beside the networks"
    )
    models: tuple[ModelConfig, ...] = Field(
        (),
        description="the networks to run, one [[models]] each; may be missing where only cutouts are made (--stage ingest)",
    )
    extinction: ExtinctionConfig | None = Field(None, description="Galactic extinction, from a map")
    masks: tuple[MaskConfig, ...] = Field((), description="masks of the sky that give columns")
    posterior: PosteriorConfig = Field(default_factory=PosteriorConfig, description="sampling and summary")
    catalog: CatalogConfig = Field(default_factory=CatalogConfig, description="the result")
    cluster: ClusterConfig = Field(default_factory=ClusterConfig, description="where workers come from")

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands of all surveys, in the order of run.toml."""
        return tuple(band for survey in self.survey for band in survey.run_bands)

    @property
    def networks(self) -> tuple[ModelConfig, ...]:
        """All networks: of a model with cases one for each case, whose name is that of the network."""
        return tuple(network for model in self.models for network in model.networks)

    # Checks that concern several sections stand here; each section checks its own keys.
    @model_validator(mode="after")
    def _bands_differ(self) -> RunConfig:
        twice = sorted({band for band in self.bands if self.bands.count(band) > 1})
        if twice:
            raise ValueError(
                f"[survey] bands must differ, named twice: {', '.join(twice)}; give each [[survey]] a name"
            )
        # Names of columns in SQL, and of extensions in FITS, are the same whatever their case.
        if alike := alike_but_for_case(self.bands):
            raise ValueError(
                f"[survey] bands must differ in more than their case, found {', '.join(alike)}: readers of the catalog could not tell their "
                "columns apart; put them into two [[survey]] sections, one of them with a name, which goes before its bands"
            )
        return self

    @model_validator(mode="after")
    def _psf_columns_are_of_bands(self) -> RunConfig:
        if other := sorted(set(self.objects.psf_fwhm_arcsec) - set(self.bands)):
            raise ValueError(
                f"[objects] psf_fwhm_arcsec: {', '.join(other)}: no such band; there are {', '.join(self.bands)}"
            )
        return self

    @model_validator(mode="after")
    def _detection_band_is_known(self) -> RunConfig:
        if (band := self.photometry.detect_in) not in (STACK, *self.bands):
            raise ValueError(
                f"[photometry] detect_in: {band}: no such band; there are {', '.join(self.bands)}, and {STACK} for all together"
            )
        return self

    @model_validator(mode="after")
    def _there_is_something_to_make(self) -> RunConfig:
        stated = self.cutouts.stated_grids
        if not self.models and not stated:
            raise ValueError(
                "there is nothing to make: name a network in [[models]], or state in [cutouts] size_px and pixel_scale_arcsec "
                "what is cut before there is one"
            )
        if stated and not self.survey:
            raise ValueError(
                f"[cutouts] states cutouts of {stated[0].grid.label}, and there is no [survey] to cut them from: add it, or take "
                "size_px and grids out"
            )
        for grid in stated:
            if missing := [band for band in grid.bands if band not in self.bands]:
                raise ValueError(
                    f"[cutouts] bands of {grid.grid.label}: {', '.join(missing)}: no such band; [survey] bands has "
                    f"{', '.join(self.bands)}"
                )
        return self

    @model_validator(mode="after")
    def _model_names_differ(self) -> RunConfig:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"[[models]] names must differ, found {names}")
        return self

    @model_validator(mode="after")
    def _maps_fit_the_rest(self) -> RunConfig:
        stated = self.extinction.a_b if self.extinction is not None else {}
        if other := sorted(set(stated) - set(self.bands)):
            raise ValueError(
                f"[extinction] a_b: {', '.join(other)}: no such band; there are {', '.join(self.bands)}"
            )
        names = [mask.name for mask in self.masks]
        if len(set(names)) != len(names):
            raise ValueError(f"[[masks]] names must differ, found {names}")
        return self

    def with_cluster(
        self, *, workers: int | None = None, kind: str | None = None, scheduler: str | None = None
    ) -> RunConfig:
        """Return a copy with other workers; the arguments are those of `ClusterConfig.override`, which may raise ConfigError."""
        cluster = self.cluster.override(workers=workers, kind=kind, scheduler=scheduler)
        return self.model_copy(update={"cluster": cluster})

    def resolve_paths(self, folder: Path) -> RunConfig:
        """Return a copy with absolute paths; relative paths are taken as relative to `folder`, the folder of run.toml."""

        def absolute(location: str) -> str:
            # URLs such as s3://bucket/key and names of shipped bundles are no paths of this machine.
            if scheme_of(location) or location.startswith("demo:"):
                return location
            return str(folder / Path(location).expanduser())

        return self.model_copy(
            update={
                "survey": tuple(survey.resolve_paths(absolute) for survey in self.survey),
                "objects": self.objects.resolve_paths(absolute),
                "cutouts": self.cutouts.model_copy(
                    update={
                        "store": absolute(self.cutouts.store),
                        "base": self.cutouts.base and absolute(self.cutouts.base),
                    }
                ),
                "models": tuple(
                    m.model_copy(
                        update={
                            "bundle": tuple(map(absolute, m.bundle)),
                            "cases": tuple(
                                case.model_copy(update={"bundle": tuple(map(absolute, case.bundle))})
                                for case in m.cases
                            ),
                        }
                    )
                    for m in self.models
                ),
                "extinction": self.extinction and self.extinction.resolve_paths(absolute),
                "masks": tuple(m.model_copy(update={"path": absolute(m.path)}) for m in self.masks),
                "cluster": self.cluster.resolve_paths(absolute),
                "catalog": self.catalog.model_copy(
                    update={
                        "path": absolute(self.catalog.path),
                        "base": self.catalog.base and absolute(self.catalog.base),
                    }
                ),
            }
        )


def read_config(path: str | Path) -> RunConfig:
    """Read and validate run.toml.

    No other file is opened: the inputs are checked when the run is planned.

    Parameters
    ----------
    path : str or Path
        The config file.

    Returns
    -------
    RunConfig
        The config, with relative paths made absolute; they are relative to the folder of run.toml.

    Raises
    ------
    ConfigError
        The file does not exist, is not valid TOML, or holds an unknown key, a value out of range, control characters, or
        credentials in a URL.
    """
    path = Path(path)
    data = read_toml(path)
    require_plain(data, path.name)
    return parse_strictly(RunConfig, data, source=path.name).resolve_paths(path.resolve().parent)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables and values of a TOML file.

    Raises
    ------
    ConfigError
        The file does not exist or is not valid TOML.
    """
    try:
        return tomllib.loads(
            path.read_text(encoding="utf-8-sig")
        )  # some editors begin with a mark of the encoding
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        found = kind_by_content(path.read_bytes()[:FIRST_BYTES])
        raise ConfigError(f"{path}: is no TOML: {error}{found and f'; it {found}'}") from None

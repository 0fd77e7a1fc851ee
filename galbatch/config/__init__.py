"""Settings of a run: run.toml, read into a tree of validated, frozen classes.

Each section of run.toml is one class in one file. Its fields hold the name, default, allowed range and help text of each
key; the reference page and the error messages are made from them. Reading a config opens run.toml and no other file.
"""

from galbatch.config.catalog import CatalogConfig
from galbatch.config.cluster import ClusterConfig, KubernetesConfig, SlurmConfig
from galbatch.config.cutouts import CutoutsConfig, GridConfig
from galbatch.config.flags import FlagsConfig
from galbatch.config.models import CaseConfig, DensityGrid, ModelConfig
from galbatch.config.objects import ExtinctionConfig, MaskConfig, ObjectsConfig, RegionConfig, region_of_text
from galbatch.config.photometry import STACK, PhotometryConfig
from galbatch.config.plan import PlanConfig
from galbatch.config.posterior import PosteriorConfig
from galbatch.config.run import RunConfig, Stage, read_config, read_toml
from galbatch.config.strict import nearest_hint, parse_strictly
from galbatch.config.survey import (
    GalaxiesMlConfig,
    GenericConfig,
    Hdf5Config,
    MultimodalUniverseConfig,
    StampsConfig,
    SurveyConfig,
    is_tile_table,
)
from galbatch.config.values import one_or_several, parse_bytes

__all__ = [
    "STACK",
    "CaseConfig",
    "CatalogConfig",
    "ClusterConfig",
    "CutoutsConfig",
    "DensityGrid",
    "ExtinctionConfig",
    "FlagsConfig",
    "GalaxiesMlConfig",
    "GenericConfig",
    "GridConfig",
    "Hdf5Config",
    "KubernetesConfig",
    "MaskConfig",
    "ModelConfig",
    "MultimodalUniverseConfig",
    "ObjectsConfig",
    "PhotometryConfig",
    "PlanConfig",
    "PosteriorConfig",
    "RegionConfig",
    "RunConfig",
    "SlurmConfig",
    "Stage",
    "StampsConfig",
    "SurveyConfig",
    "is_tile_table",
    "nearest_hint",
    "one_or_several",
    "parse_bytes",
    "parse_strictly",
    "read_config",
    "read_toml",
    "region_of_text",
]

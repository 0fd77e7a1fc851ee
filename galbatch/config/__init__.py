"""run.toml -> a validated, frozen config.

One tree of classes, a file a section, states each key's name, default, range and help text once; the reference page
and the error messages are made from it. Reading it looks at run.toml and nothing else.
"""

from galbatch.config.catalog import CatalogConfig
from galbatch.config.cluster import ClusterConfig
from galbatch.config.cutouts import CutoutsConfig
from galbatch.config.flags import FlagsConfig
from galbatch.config.models import ModelConfig
from galbatch.config.objects import ObjectsConfig
from galbatch.config.plan import PlanConfig
from galbatch.config.posterior import PosteriorConfig
from galbatch.config.run import RunConfig, read_config, read_toml
from galbatch.config.strict import nearest_hint, parse_strictly
from galbatch.config.survey import GalaxiesMlConfig, GenericConfig, StampsConfig, SurveyConfig
from galbatch.config.values import parse_bytes

__all__ = [
    "CatalogConfig",
    "ClusterConfig",
    "CutoutsConfig",
    "FlagsConfig",
    "GalaxiesMlConfig",
    "GenericConfig",
    "ModelConfig",
    "ObjectsConfig",
    "PlanConfig",
    "PosteriorConfig",
    "RunConfig",
    "StampsConfig",
    "SurveyConfig",
    "nearest_hint",
    "parse_bytes",
    "parse_strictly",
    "read_config",
    "read_toml",
]

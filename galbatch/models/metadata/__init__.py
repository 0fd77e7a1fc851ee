"""The metadata inside a bundle: the network's inputs and outputs, its training data, and its origin.

Stored in the bundle as ``galbatch.json``. This folder knows no kinds of heads: heads/ is a layer above, and passes in the
function that checks a head.
"""

from galbatch.models.metadata.disagreement import (
    DISAGREEMENT_VERSION,
    FEATURES_OF_BAND,
    DisagreementInfo,
    PhotometryFit,
)
from galbatch.models.metadata.inputs import STRICT, AuxiliaryInput, ImageInfo, InputInfo, n_numbers
from galbatch.models.metadata.names import RENAMED_FIELDS, with_current_names
from galbatch.models.metadata.prior import PriorInfo
from galbatch.models.metadata.reading import HeadRules, parse_metadata, write_metadata
from galbatch.models.metadata.schema import (
    BundleMetadata,
    CalibrationInfo,
    DomainInfo,
    HeadInfo,
    HeadOptions,
    LabelInfo,
    ParameterInfo,
    Range,
    ResultTable,
)
from galbatch.models.metadata.stopping import StoppingInfo

__all__ = [
    "DISAGREEMENT_VERSION",
    "FEATURES_OF_BAND",
    "RENAMED_FIELDS",
    "STRICT",
    "AuxiliaryInput",
    "BundleMetadata",
    "CalibrationInfo",
    "DisagreementInfo",
    "DomainInfo",
    "HeadInfo",
    "HeadOptions",
    "HeadRules",
    "ImageInfo",
    "InputInfo",
    "LabelInfo",
    "ParameterInfo",
    "PhotometryFit",
    "PriorInfo",
    "Range",
    "ResultTable",
    "StoppingInfo",
    "n_numbers",
    "parse_metadata",
    "with_current_names",
    "write_metadata",
]

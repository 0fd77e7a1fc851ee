"""The metadata inside a bundle: what the network takes and puts out, what it was trained on, where it comes from.

Stored in the bundle as ``galbatch.json``. The kinds of heads are known above, in heads/, which hands its rules in.
"""

from galbatch.models.metadata.names import RENAMED_FIELDS, with_current_names
from galbatch.models.metadata.reading import HeadRules, parse_metadata, write_metadata
from galbatch.models.metadata.schema import (
    STRICT,
    AuxiliaryInput,
    BundleMetadata,
    CalibrationInfo,
    DomainInfo,
    HeadInfo,
    HeadOptions,
    InputInfo,
    LabelInfo,
    ParameterInfo,
    Range,
    ResultTable,
)

__all__ = [
    "RENAMED_FIELDS",
    "STRICT",
    "AuxiliaryInput",
    "BundleMetadata",
    "CalibrationInfo",
    "DomainInfo",
    "HeadInfo",
    "HeadOptions",
    "HeadRules",
    "InputInfo",
    "LabelInfo",
    "ParameterInfo",
    "Range",
    "ResultTable",
    "parse_metadata",
    "with_current_names",
    "write_metadata",
]

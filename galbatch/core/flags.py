"""Flags of the catalog and bits of masks."""

from __future__ import annotations

import enum

__all__ = ["MaskBit", "ModelFlag", "PixelFlag"]


class PixelFlag(enum.IntFlag):
    """Bits of the column ``flags``: what the pixels and the object list say, whatever the model."""

    OUTSIDE_FOOTPRINT = 1 << 0  # no tile covers the cutout's center in any band
    PARTIAL_COVERAGE = 1 << 1  # part of the cutout is NaN in a band that has a tile there
    MISSING_BAND = 1 << 2  # a band has no pixel at all in the cutout
    BAD_CENTER = 1 << 3  # bad, interpolated or cosmic-ray pixels within the center radius
    SATURATED = 1 << 4  # saturated pixels within the center radius
    BRIGHT_OBJECT = 1 << 5  # the survey's bright-object mask covers the center
    MOSAICKED = 1 << 6  # completed from more than one tile
    RESAMPLED = 1 << 7  # reprojected from another grid
    NEIGHBOR = 1 << 8  # another listed object within the neighbor radius
    DUPLICATE_POSITION = 1 << 9  # another listed object within the duplicate radius
    LOW_SNR = 1 << 10  # central flux below the threshold in every band


class ModelFlag(enum.IntFlag):
    """Bits of the columns ``<model>_flags``: what the model says of its own values."""

    NOT_SELECTED = 1 << 0  # `where` left the object out: no values
    NONFINITE_INPUT = 1 << 1  # NaN pixels: set to 0 nJy; at the center or in a whole band: no values
    MODEL_FAILED = 1 << 2  # the network returned non-finite numbers: no values
    NOT_CONVERGED = 1 << 3  # Monte Carlo error above the tolerance
    EXTRAPOLATED = 1 << 4  # a median outside the range seen in training
    OUT_OF_DOMAIN = 1 << 5  # the input is unlike the training set
    CROP_AT_LIMIT = 1 << 6  # the spatial transformer's crop is at its limit
    NO_POSTERIOR = 1 << 7  # a point model without dropout: no widths


class MaskBit(enum.IntFlag):
    """galbatch's own mask bits (uint16), the same whatever the survey numbers its planes."""

    BAD = 1 << 0
    SAT = 1 << 1
    INTRP = 1 << 2
    CR = 1 << 3
    EDGE = 1 << 4
    DETECTED = 1 << 5
    SUSPECT = 1 << 6
    NO_DATA = 1 << 7
    BRIGHT_OBJECT = 1 << 8
    CLIPPED = 1 << 9
    NEGATIVE = 1 << 10

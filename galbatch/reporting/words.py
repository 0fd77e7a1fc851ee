"""What each flag means, in a sentence a user of the catalog can act on."""

from galbatch.core.flags import ModelFlag, PixelFlag

__all__ = ["MODEL_FLAG_MEANINGS", "PIXEL_FLAG_MEANINGS"]

PIXEL_FLAG_MEANINGS = {
    PixelFlag.OUTSIDE_FOOTPRINT: "No tile covers the object in any band; there are no values.",
    PixelFlag.PARTIAL_COVERAGE: "Part of the cutout has no data: a tile's edge or a hole.",
    PixelFlag.MISSING_BAND: "A band has no pixel at all in the cutout.",
    PixelFlag.BAD_CENTER: "Bad, interpolated or cosmic-ray pixels near the center.",
    PixelFlag.SATURATED: "Saturated pixels near the center.",
    PixelFlag.BRIGHT_OBJECT: "The survey's bright-star mask covers the center.",
    PixelFlag.MOSAICKED: "Completed from more than one tile. Harmless within a tract.",
    PixelFlag.RESAMPLED: "Reprojected from another pixel grid: noise is correlated.",
    PixelFlag.NEIGHBOR: "Another listed object is close by; light may be shared.",
    PixelFlag.DUPLICATE_POSITION: "Another entry of the list stands at the same place.",
    PixelFlag.LOW_SNR: "Too faint in every band for the network to say much.",
}

MODEL_FLAG_MEANINGS = {
    ModelFlag.NOT_SELECTED: "The run's selection left the object out; there are no values.",
    ModelFlag.NONFINITE_INPUT: "Missing pixels were set to 0; at the center or in a whole band: no values.",
    ModelFlag.MODEL_FAILED: "The network returned no finite numbers; there are no values.",
    ModelFlag.NOT_CONVERGED: "More passes would still move a quantile by more than the tolerance.",
    ModelFlag.EXTRAPOLATED: "A median lies outside the range seen in training.",
    ModelFlag.OUT_OF_DOMAIN: "The image is unlike those the network was trained on.",
    ModelFlag.CROP_AT_LIMIT: "The network's crop is at its limit: the galaxy may not fit.",
    ModelFlag.NO_POSTERIOR: "A network without dropout: a value, but no width.",
}

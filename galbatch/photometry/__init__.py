"""Photometry of cutouts: apertures, sizes, neighbors and the local sky, measured by SEP (Barbary 2016) beside the networks.

`measure_photometry` measures the cutouts of a block, `photometry_flags` says of which objects a network would be misled; `stacked` makes the image that sources are found in.
"""

from galbatch.photometry.detection import stacked
from galbatch.photometry.flags import photometry_flags
from galbatch.photometry.measuring import PHOTOMETRY_VERSION, measure_photometry

__all__ = ["PHOTOMETRY_VERSION", "measure_photometry", "photometry_flags", "stacked"]

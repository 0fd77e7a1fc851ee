"""Photometry of cutouts: apertures, sizes, neighbors and the local sky, measured by SEP (Barbary 2016) beside the networks.

`measure_photometry` measures the cutouts of a block, `photometry_flags` says which objects' pixels would mislead a network.
"""

from galbatch.photometry.measuring import PHOTOMETRY_VERSION, measure_photometry

__all__ = ["PHOTOMETRY_VERSION", "measure_photometry"]

"""Facts of a whole tile, measured once in windows spread over it: the noise and the level of its sky, and the PSF by its stars."""

from galbatch.ingest.cut.tile.dense import DenseTiles, n_cutouts
from galbatch.ingest.cut.tile.noise import WiderSky
from galbatch.ingest.cut.tile.sky import sky_levels
from galbatch.ingest.cut.tile.stars import psf_of_stars

__all__ = ["DenseTiles", "WiderSky", "n_cutouts", "psf_of_stars", "sky_levels"]

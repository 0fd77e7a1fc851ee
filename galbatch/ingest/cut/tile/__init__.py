"""Facts of a whole tile, measured once in windows spread over it: its sky noise, and the PSF by its stars."""

from galbatch.ingest.cut.tile.noise import WiderSky
from galbatch.ingest.cut.tile.stars import dense_tiles, large_tiles, n_cutouts, psf_of_stars

__all__ = ["WiderSky", "dense_tiles", "large_tiles", "n_cutouts", "psf_of_stars"]

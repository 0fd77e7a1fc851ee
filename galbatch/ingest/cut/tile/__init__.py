"""Facts of a whole tile, measured once in strips spread over it: the noise and the level of its sky, and the PSF by its stars."""

from galbatch.ingest.cut.tile.cost import cutting_cost
from galbatch.ingest.cut.tile.dense import dense_tiles, large_tiles, n_cutouts
from galbatch.ingest.cut.tile.noise import WiderSky
from galbatch.ingest.cut.tile.sky import sky_levels
from galbatch.ingest.cut.tile.stars import psf_of_stars

__all__ = [
    "WiderSky",
    "cutting_cost",
    "dense_tiles",
    "large_tiles",
    "n_cutouts",
    "psf_of_stars",
    "sky_levels",
]

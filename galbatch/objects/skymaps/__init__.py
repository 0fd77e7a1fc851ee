"""Maps of the sky at the positions of objects: E(B-V), survey masks. They give kept columns beside those of the object list."""

from galbatch.objects.skymaps.columns import EBV, SkyMaps, with_sky_maps
from galbatch.objects.skymaps.extinction import open_dust_map
from galbatch.objects.skymaps.masks import open_mask

__all__ = ["EBV", "SkyMaps", "open_dust_map", "open_mask", "with_sky_maps"]

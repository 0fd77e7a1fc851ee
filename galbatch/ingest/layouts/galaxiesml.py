"""GalaxiesML (HSC PDR2 galaxies in HDF5), and files like it.

The published files have ``image`` (object, 5, 64 or 127, same) in bands g r i z y, and one dataset for each catalog column:
``object_id``, ``ra``, ``dec``, ``specz_redshift``, ``g_cmodel_mag`` and its like. [survey.galaxiesml] maps the names. They have no
weights, and state no zero point: 27.0, as all HSC coadds of PDR2.
"""

from __future__ import annotations

from galbatch.config import GalaxiesMlConfig, SurveyConfig
from galbatch.ingest.layouts.hdf5_stamps import Hdf5StampsLayout
from galbatch.ingest.pixels import HDF5_SUFFIXES, stem_of

__all__ = ["GalaxiesMlLayout"]


class GalaxiesMlLayout(Hdf5StampsLayout):
    """Adapter of GalaxiesML's files."""

    name = "galaxiesml"
    expects = "HDF5 files (.h5, .hdf5) as [survey.galaxiesml] maps them"

    def section(self, survey: SurveyConfig) -> GalaxiesMlConfig:
        return survey.galaxiesml

    def group_of(self, path: str) -> str:
        return stem_of(path, HDF5_SUFFIXES)

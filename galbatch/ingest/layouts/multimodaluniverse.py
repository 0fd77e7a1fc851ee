"""MultimodalUniverse's image datasets in HDF5, one file for each HEALPix cell: ``<sample>/healpix=<N>/001-of-001.hdf5``.

Each row has ``image_array`` (or ``image_flux``, in the JWST and HST samples), ``image_ivar`` (inverse variance, 0 where nothing was
measured), ``image_mask`` (true where a pixel is good; one for all bands in the Legacy Surveys' sample), ``image_band``,
``image_psf_fwhm`` and ``image_scale`` (arcsec), ``object_id``, and the columns of the survey's catalog, ``ra`` and ``dec`` (or RA and DEC) among
them. [survey.multimodaluniverse] maps the names. Bands are written ``hsc-g``, ``des-g``, ``f090w``.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from galbatch.config import MultimodalUniverseConfig, SurveyConfig
from galbatch.ingest.layouts.hdf5_stamps import Hdf5StampsLayout

__all__ = ["MultimodalUniverseLayout"]


class MultimodalUniverseLayout(Hdf5StampsLayout):
    """Adapter of MultimodalUniverse's files."""

    name = "multimodaluniverse"
    expects = "HDF5 files (.h5, .hdf5) in folders healpix=<N>, as [survey.multimodaluniverse] maps them"

    def section(self, survey: SurveyConfig) -> MultimodalUniverseConfig:
        return survey.multimodaluniverse

    def group_of(self, path: str) -> str:
        # All files have one name: the folder tells them apart.
        return PurePosixPath(path).parent.name

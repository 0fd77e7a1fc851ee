"""Writers of simulated tiles in the file formats of the surveys, one class for each layout.

Tiles are drawn in nJy with the mask planes of defects.py. A writer converts units and mask bits, and defines headers and
file names.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from galbatch import storage
from galbatch.core.process import OptionalPackage
from galbatch.core.types import njy_per_unit
from galbatch.simulation.defects import MASK_PLANES, Planes, bits
from galbatch.simulation.field import TRACT, TRACT_PATCHES

h5py = OptionalPackage("h5py")

__all__ = ["WRITERS", "Drawn", "GalaxiesMlWriter", "LayoutWriter"]

FLUXMAG0 = 6.309573e10
ZERO_POINT_MAG = 27.0  # Equals 2.5 log10(FLUXMAG0).
NJY_PER_ADU = njy_per_unit(ZERO_POINT_MAG)
NJY_PER_NANOMAGGY = njy_per_unit(22.5)
PSF_CARD = "PSFFWHM"

LEGACY_BITS = {
    "BRIGHT": 1,
    "SATUR_G": 2,
    "SATUR_R": 3,
    "ALLMASK_G": 5,
    "ALLMASK_R": 6,
    "SATUR_I": 14,
    "ALLMASK_I": 15,
}
"""Bits of maskbits in DR9 and DR10."""
GENERIC_BITS = {"NO_DATA": 0, "SAT": 1, "BAD": 2, "CR": 3, "BRIGHT_OBJECT": 4, "INTRP": 5}
"""Bits of the data quality plane of the layout `generic`, which run.toml lists."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A drawn tile or stamp.

    Attributes
    ----------
    name : str
        Name of the patch (``4,4``), or id of the object.
    bands : tuple of str
    planes : sequence of Planes
        One per band.
    wcs : astropy.wcs.WCS
        WCS of the planes.
    psf_fwhm_arcsec : (band, node, node) float64
        FWHM of the PSF on a coarse grid from the first to the last pixel, or (band, 1, 1).
    """

    name: str
    bands: tuple[str, ...]
    planes: Sequence[Planes]
    wcs: WCS
    psf_fwhm_arcsec: npt.NDArray[np.float64]


class LayoutWriter(Protocol):
    """Encoder of simulated tiles as files of one survey."""

    @property
    def folder(self) -> str:
        """Folder of all tiles, relative to the folder of the survey."""

    @property
    def suffix(self) -> str:
        """Suffix of all files, such as ``.fits``."""

    @property
    def tiles(self) -> str:
        """Glob of the tiles, relative to `folder`."""

    @property
    def pixel_scale_arcsec(self) -> float:
        """Pixel scale of the tiles, arcsec."""

    @property
    def shares_lattice(self) -> bool:
        """True if all tiles share one lattice of pixels, like the patches of a tract; False if each has its own projection."""

    @property
    def stamp_px(self) -> int | None:
        """Side of the stamps in pixels, for layouts with one tile per object; None for others."""

    def paths(self, name: str, bands: Sequence[str]) -> list[str]:
        """Return the paths of a tile's files, relative to `folder`."""

    def encode(self, drawn: Drawn) -> dict[str, bytes]:
        """Return the contents of a tile's files, by path relative to `folder`."""

    def toml(self, bands: Sequence[str]) -> str:
        """Return as TOML the keys of [survey] other than layout, tiles and bands, followed by tables of the layout if it has any."""


# --- HSC and LSST: image, mask and variance in one file -----------------------------------------------------------


class HscWriter:
    """Writer of HSC calexp files: patches of a tract, in ADU with zero point 27."""

    folder, suffix, tiles = "deepCoadd-results", ".fits", "**/calexp-*.fits"
    pixel_scale_arcsec, shares_lattice, stamp_px = 0.168, True, None

    def paths(self, name: str, bands: Sequence[str]) -> list[str]:
        filters = [f"HSC-{band.upper()}" for band in bands]
        return [storage.join(f, str(TRACT), name, f"calexp-{f}-{TRACT}-{name}.fits") for f in filters]

    def encode(self, drawn: Drawn) -> dict[str, bytes]:
        primary = {"FLUXMAG0": (FLUXMAG0, "counts of a source of magnitude 0"), "TRACT": TRACT}
        files = zip(self.paths(drawn.name, drawn.bands), drawn.planes, strict=True)
        return {path: _afw(drawn, planes, primary=primary, njy=NJY_PER_ADU) for path, planes in files}

    def toml(self, bands: Sequence[str]) -> str:
        return ""


class LsstWriter:
    """Writer of LSST deep_coadd files: patches of a tract, in nJy."""

    folder, suffix, tiles = "deep_coadd", ".fits", "**/deep_coadd_*.fits"
    pixel_scale_arcsec, shares_lattice, stamp_px = 0.2, True, None

    def paths(self, name: str, bands: Sequence[str]) -> list[str]:
        x, y = (int(part) for part in name.split(","))
        # LSST numbers the patches of a tract from 0 to 80. Larger fields get numbers from 1000 on, which cannot collide.
        in_tract = max(x, y) < TRACT_PATCHES
        patch = str(y * TRACT_PATCHES + x if in_tract else 1000 * (y + 1) + x)
        return [
            storage.join(str(TRACT), patch, band, f"deep_coadd_{TRACT}_{patch}_{band}_simulated.fits")
            for band in bands
        ]

    def encode(self, drawn: Drawn) -> dict[str, bytes]:
        files = zip(self.paths(drawn.name, drawn.bands), drawn.planes, strict=True)
        return {path: _afw(drawn, planes, primary={}, njy=1.0, unit="nJy") for path, planes in files}

    def toml(self, bands: Sequence[str]) -> str:
        return ""


def _afw(
    drawn: Drawn, planes: Planes, *, primary: dict[str, object], njy: float, unit: str | None = None
) -> bytes:
    """Return a FITS file with the given cards in an empty primary HDU, then image, mask and variance in units of `njy` nJy."""
    first = fits.PrimaryHDU()
    first.header.update(primary)
    hdus = [first]
    for name, data in (
        ("IMAGE", planes.image / np.float32(njy)),
        ("MASK", planes.mask),
        # float32, so that the division keeps the dtype of the planes.
        ("VARIANCE", planes.variance / np.float32(njy**2)),
    ):
        hdu = fits.ImageHDU(data, header=_wcs_cards(drawn.wcs), name=name)
        hdu.header["EXTTYPE"] = name
        if name == "MASK":
            for plane, bit in MASK_PLANES.items():
                # FITS keywords have at most eight characters, unless they follow HIERARCH.
                hdu.header[f"MP_{plane}" if len(plane) <= 5 else f"HIERARCH MP_{plane}"] = bit
        elif unit is not None:
            hdu.header["BUNIT"] = unit if name == "IMAGE" else f"{unit}2"
        hdus.append(hdu)
    return _bytes(hdus)


# --- Legacy Surveys ------------------------------------------------------------------------------------------------


class LegacySurveyWriter:
    """Writer of Legacy Surveys bricks: each with its own TAN projection, in nanomaggies, compressed without loss."""

    folder, suffix, tiles = "coadd", ".fits.fz", "**/legacysurvey-*-image-*.fits.fz"
    pixel_scale_arcsec, shares_lattice, stamp_px = 0.262, False, None

    def paths(self, name: str, bands: Sequence[str]) -> list[str]:
        # Bricks are 0.25 deg wide and named after their centers. The smaller simulated ones take names on that grid.
        x, y = (int(part) for part in name.split(","))
        brick = f"{1500 + 3 * x:04d}p{20 + 3 * y:03d}"
        kinds = [f"{kind}-{band}" for band in bands for kind in ("image", "invvar", "psfsize")]
        return [
            storage.join(brick[:3], brick, f"legacysurvey-{brick}-{kind}.fits.fz")
            for kind in [*kinds, "maskbits"]
        ]

    def encode(self, drawn: Drawn) -> dict[str, bytes]:
        contents = []
        maskbits = np.zeros(drawn.planes[0].mask.shape, np.int16)
        for band, planes, psf in zip(drawn.bands, drawn.planes, drawn.psf_fwhm_arcsec, strict=True):
            bad = planes.mask & bits("BAD", "CR", "NO_DATA") != 0
            image = np.nan_to_num(planes.image) / np.float32(NJY_PER_NANOMAGGY)
            # The Legacy Surveys mark bad pixels by an inverse variance of 0, and have no NaN.
            invvar = np.where(bad, 0, np.float32(NJY_PER_NANOMAGGY**2) / np.where(bad, 1, planes.variance))
            contents += [image, invvar.astype(np.float32), _spread(psf, image.shape)]
            for name, where in (
                ("BRIGHT", planes.mask & bits("BRIGHT_OBJECT") != 0),
                (f"SATUR_{band.upper()}", planes.mask & bits("SAT") != 0),
                (f"ALLMASK_{band.upper()}", bad),
            ):
                # Bit 15 does not fit into a positive int16, so the bits are set as uint16 and reinterpreted.
                maskbits[where] |= np.int16(np.uint16(1 << LEGACY_BITS[name]).astype(np.int16))
        files = {}
        for path, data in zip(self.paths(drawn.name, drawn.bands), [*contents, maskbits], strict=True):
            # Rice compression quantizes floating-point data; GZIP_2 keeps every bit.
            floating = data.dtype.kind == "f"
            hdu = fits.CompImageHDU(
                data,
                header=_wcs_cards(drawn.wcs),
                compression_type="GZIP_2" if floating else "RICE_1",
                quantize_level=0.0 if floating else 16.0,
            )
            files[path] = _bytes([fits.PrimaryHDU(), hdu])
        return files

    def toml(self, bands: Sequence[str]) -> str:
        return ""


def _spread(coarse: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return a map (y, x), float32, by bilinear interpolation of a coarse grid that extends to the map's edges."""
    y, x = (np.linspace(0, n - 1, length) for n, length in zip(coarse.shape, shape, strict=True))
    # Interpolated along x first: (coarse y, x).
    rows = np.stack([np.interp(x, np.arange(coarse.shape[1]), row) for row in coarse], axis=0)
    # A grid of a single row has no next one: it is then its own neighbor.
    low = np.minimum(y.astype(np.int64), max(coarse.shape[0] - 2, 0))
    high = np.minimum(low + 1, coarse.shape[0] - 1)
    part = (y - low)[:, None]
    return np.asarray(rows[low] * (1 - part) + rows[high] * part, dtype=np.float32)


# --- images of no survey in particular, and stamps -------------------------------------------------------------------


class GenericWriter:
    """Writer of the layout `generic`: one file per tile and band, with image (nJy), data quality and inverse variance."""

    folder, suffix, tiles = "images", ".fits", "*.fits"
    pixel_scale_arcsec, shares_lattice, stamp_px = 0.168, True, None

    def paths(self, name: str, bands: Sequence[str]) -> list[str]:
        return [f"{name.replace(',', '-')}_{band}.fits" for band in bands]

    def encode(self, drawn: Drawn) -> dict[str, bytes]:
        contents = {}
        paths = self.paths(drawn.name, drawn.bands)
        for path, planes, psf in zip(paths, drawn.planes, drawn.psf_fwhm_arcsec, strict=True):
            quality = np.zeros(planes.mask.shape, np.int16)
            for name, bit in GENERIC_BITS.items():
                quality[planes.mask & bits(name) != 0] |= np.int16(1 << bit)
            weight = np.nan_to_num(1 / planes.variance)
            hdus = [fits.PrimaryHDU()]
            for name, data in (("SCI", planes.image), ("DQ", quality), ("WHT", weight)):
                hdus.append(fits.ImageHDU(data, header=_wcs_cards(drawn.wcs), name=name))
            hdus[1].header["BUNIT"] = "nJy"
            hdus[1].header[PSF_CARD] = (float(np.median(psf)), "[arcsec] FWHM of the PSF, median of the tile")
            contents[path] = _bytes(hdus)
        return contents

    def toml(self, bands: Sequence[str]) -> str:
        planes = ", ".join(f"{name} = {bit}" for name, bit in GENERIC_BITS.items())
        return (
            f'psf_fwhm_card = "{PSF_CARD}"\n\n[survey.generic]\n'
            "pattern = '(?P<tile>\\d+-\\d+)_(?P<band>[a-z])\\.fits$'\n"
            'image = "SCI"\nmask = "DQ"\n'
            f"mask_planes = {{{planes}}}\n"
            'weight = "WHT"\nweight_kind = "inverse_variance"\n'
        )


class StampsWriter:
    """Writer of stamps: one file per object and band, as from HSC's cutout service, with the FWHM of the PSF in a card."""

    folder, suffix, tiles = "cutouts", ".fits", "*.fits"
    pixel_scale_arcsec, shares_lattice, stamp_px = 0.168, True, 128

    def paths(self, name: str, bands: Sequence[str]) -> list[str]:
        return [f"{name}_{band}.fits" for band in bands]

    def encode(self, drawn: Drawn) -> dict[str, bytes]:
        contents = {}
        paths = self.paths(drawn.name, drawn.bands)
        for path, band, planes, psf in zip(
            paths, drawn.bands, drawn.planes, drawn.psf_fwhm_arcsec, strict=True
        ):
            cards = {
                "FLUXMAG0": FLUXMAG0,
                "BAND": band,
                PSF_CARD: (float(np.median(psf)), "[arcsec] FWHM of the PSF"),
            }
            contents[path] = _afw(drawn, planes, primary=cards, njy=NJY_PER_ADU)
        return contents

    def toml(self, bands: Sequence[str]) -> str:
        return f'psf_fwhm_card = "{PSF_CARD}"\n'


class GalaxiesMlWriter:
    """Writer of GalaxiesML: one HDF5 file with the stamps of all objects in ADU, made by `encode_all`, without masks."""

    folder, suffix, tiles = "galaxiesml", ".hdf5", "galaxies.hdf5"
    pixel_scale_arcsec, shares_lattice, stamp_px = 0.168, True, 127

    def paths(self, name: str, bands: Sequence[str]) -> list[str]:
        return [self.tiles]

    def encode(self, drawn: Drawn) -> dict[str, bytes]:
        # (band, y, x) float32 as raw bytes: one object is only a piece of the file, and other processes return pieces.
        stamps = np.stack([planes.image for planes in drawn.planes]) / np.float32(NJY_PER_ADU)
        return {drawn.name: stamps.astype(np.float32).tobytes()}

    def toml(self, bands: Sequence[str]) -> str:
        listed = ", ".join(f'"{band}"' for band in bands)
        return f"\n[survey.galaxiesml]\nbands = [{listed}]\n"

    def encode_all(
        self,
        stamps: npt.NDArray[np.float32],
        object_id: npt.NDArray[np.int64],
        positions_deg: npt.NDArray[np.float64],
        redshift: npt.NDArray[np.float64],
    ) -> bytes:
        """Return the contents of the HDF5 file.

        Parameters
        ----------
        stamps : (object, band, y, x) float32
            In ADU.
        object_id : (object,) int64
        positions_deg : (object, 2) float64
            Right ascension and declination, deg.
        redshift : (object,) float64
        """
        # HDF5 stores times by default; without them the same survey gives the same bytes.
        buffer = io.BytesIO()
        with h5py.File(buffer, "w", track_order=True) as file:
            file.attrs["zero_point_mag"] = ZERO_POINT_MAG
            for name, values in (
                ("image", stamps),
                ("object_id", object_id),
                ("ra", positions_deg[:, 0]),
                ("dec", positions_deg[:, 1]),
                ("specz_redshift", redshift),
            ):
                file.create_dataset(name, data=values, track_times=False)
        return buffer.getvalue()


WRITERS: dict[str, LayoutWriter] = {
    "hsc": HscWriter(),
    "lsst": LsstWriter(),
    "legacysurvey": LegacySurveyWriter(),
    "generic": GenericWriter(),
    "stamps": StampsWriter(),
    "galaxiesml": GalaxiesMlWriter(),
}
"""The writers by layout, with the names that ``[survey] layout`` has in run.toml."""


# --- cards -----------------------------------------------------------------------------------------------------------


def _bytes(hdus: Sequence[object]) -> bytes:
    buffer = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(buffer)
    return buffer.getvalue()


def _wcs_cards(of: WCS) -> fits.Header:
    """Return a header with the WCS as CD cards, as surveys write it; `WCS.to_header` of astropy would write PC and CDELT."""
    wcs = of.wcs
    header = fits.Header({"RADESYS": "ICRS"})
    for axis in (0, 1):
        header[f"CTYPE{axis + 1}"] = wcs.ctype[axis]
        header[f"CUNIT{axis + 1}"] = "deg"
        header[f"CRVAL{axis + 1}"] = float(wcs.crval[axis])
        header[f"CRPIX{axis + 1}"] = float(wcs.crpix[axis])
        header.update({f"CD{axis + 1}_{other + 1}": float(wcs.cd[axis, other]) for other in (0, 1)})
    return header

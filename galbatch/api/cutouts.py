"""Cutouts of a catalog's objects from the cutout store: image, mask and variance with WCS, as they are or on another grid."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from galbatch import catalog, ingest, storage
from galbatch.config import CutoutsConfig
from galbatch.core.flags import MaskBit, PixelFlag
from galbatch.core.pixels import HealpixPixel
from galbatch.core.types import AB_ZERO_POINT_NJY, CutoutBlock, Grid
from galbatch.errors import UsageError

__all__ = [
    "Cutout",
    "add_cards",
    "cutouts_as_fits",
    "find_cutouts",
    "north_up",
    "on_image",
    "read_cutout",
    "safe_name",
    "store_of",
    "write_cutouts",
]

Floats = npt.NDArray[np.float64]

PLANES = ("mask", "variance")

# Pixels of the resampled mask and variance follow from those of the image by rules that are true on average only.
RESAMPLED_NOTE = (
    "resampled by reproject: mask of the nearest pixel, variance without the correlation of neighbors"
)


UNSAFE = re.compile(r"[^\w.+-]")


@dataclass(frozen=True, slots=True)
class Cutout:
    """The cutout of one object.

    Attributes
    ----------
    object_id : int or str
    ra_deg, dec_deg : float
        Position in the object list, ICRS.
    bands : tuple of str
    image : (band, y, x) float32, nJy; NaN where there are no data
    mask : (band, y, x) uint16 of `MaskBit`, or None if the store has none
    variance : (band, y, x) float32, nJy^2; NaN where unknown; or None if the store has none
    wcs : astropy.wcs.WCS
        The same for all bands and planes.
    flags : PixelFlag
    psf_fwhm_arcsec : (band,) float32; NaN if unknown
    sky_sigma_njy : (band,) float32; NaN if unknown
    is_resampled : bool
        Whether the pixels are not those of the store, but were resampled onto another grid.
    """

    object_id: int | str
    ra_deg: float
    dec_deg: float
    bands: tuple[str, ...]
    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint16] | None
    variance: npt.NDArray[np.float32] | None
    wcs: WCS
    flags: PixelFlag
    psf_fwhm_arcsec: npt.NDArray[np.float32]
    sky_sigma_njy: npt.NDArray[np.float32]
    is_resampled: bool = False


def safe_name(object_id: int | str) -> str:
    """Return an object's id as a part of a file's name, with _ in place of other characters than letters, digits and ``_.+-``."""
    return UNSAFE.sub("_", str(object_id))


def store_of(catalog_path: str) -> str:
    """Return the path of the cutout store that a catalog was made from, as its properties state.

    Of a catalog whose properties state none, as it is not finished, it is that of the default config, beside the catalog.
    """
    if stated := catalog.stated_store(catalog_path):
        return stated
    folder, slash, _ = catalog_path.rstrip("/").rpartition("/")
    return f"{folder}{slash}{CutoutsConfig().store}"


def find_cutouts(catalog_path: str, store_path: str, object_ids: Sequence[str]) -> list[Cutout]:
    """Return the cutouts of objects, on the grid of the most pixels if the store has several, in the order of the ids.

    Parameters
    ----------
    catalog_path : str
    store_path : str
        The cutout store from which the catalog was made.
    object_ids : sequence of str
        Ids as text, even if the catalog's ids are integers. Repeated ids count once.

    Raises
    ------
    UsageError
        An id is not in the catalog, or the store has no cutout of an object.
    CatalogError
        There is no catalog.
    DamagedError
        Cutouts are not as they were written.
    """
    found = catalog.find_objects(catalog_path, object_ids)
    grids = ingest.stored_grids(store_path)
    if not grids:
        raise UsageError(
            f"{store_path}: no cutout store; give that of the run by --store, in Python by open_catalog(.., store=..)"
        )
    return [_require_cutout(store_path, one, grids) for one in found]


def _require_cutout(store_path: str, found: catalog.FoundObject, grids: Sequence[Grid]) -> Cutout:
    cutout = read_cutout(store_path, found.pixel, found.object_id, grids)
    if cutout is None:
        raise UsageError(
            f"{store_path} {found.pixel.name}: no cutout of object {found.object_id}; with [cutouts] keep = false they are "
            "removed, and without a network's selection none is cut: galbatch run --stage ingest makes them"
        )
    return cutout


def read_cutout(
    store_path: str, pixel: HealpixPixel, object_id: int | str, grids: Sequence[Grid]
) -> Cutout | None:
    """Return the cutout of an object of a partition on the first of `grids` that has one, with all planes; None if none has."""
    for grid in grids:
        if ingest.read_done(store_path, pixel, grid) is None:
            continue
        ids = ingest.read_object_ids(store_path, pixel, grid)
        for row in np.flatnonzero(ids == object_id).tolist():
            planes = [name for name in PLANES if name in ingest.stored_planes(store_path, pixel, grid)]
            block = ingest.read_block(store_path, pixel, grid, start=row, stop=row + 1, planes=planes)
            return _first(block)
    return None


def _first(block: CutoutBlock) -> Cutout:
    return Cutout(
        block.object_id.tolist()[0],
        float(block.ra_deg[0]),
        float(block.dec_deg[0]),
        block.bands,
        block.image[0],
        None if block.mask is None else block.mask[0],
        None if block.variance is None else block.variance[0],
        _tan_wcs(block.crpix[0], block.crval[0], block.cd[0]),
        PixelFlag(int(block.flags[0])),
        block.psf_fwhm_arcsec[0],
        block.sky_sigma_njy[0],
    )


def _tan_wcs(crpix: Floats, crval: Floats, cd: Floats) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.crpix, wcs.wcs.crval, wcs.wcs.cd = crpix, crval, cd
    wcs.wcs.set()
    return wcs


def north_up(cutout: Cutout) -> Cutout:
    """Return the cutout with north up and east left, of the same size and pixel scale, centered on the object."""
    size_px = cutout.image.shape[-1]
    scale_deg = float(np.sqrt(abs(np.linalg.det(cutout.wcs.wcs.cd))))
    # FITS counts from 1, and the central pixel of an even size is that after the middle.
    center = np.full(2, size_px // 2 + 1.0)
    target = _tan_wcs(center, np.array([cutout.ra_deg, cutout.dec_deg]), np.diag([-scale_deg, scale_deg]))
    return _resampled(cutout, target, (size_px, size_px))


def on_image(cutout: Cutout, path: str) -> Cutout:
    """Return the cutout on the pixels of the first image with a celestial WCS in a FITS file.

    Raises
    ------
    UsageError
        The file cannot be read as FITS, or has no such image.
    """
    try:
        with fits.open(path) as hdus:
            for hdu in hdus:
                if hdu.is_image and hdu.header.get("NAXIS", 0) >= 2:
                    target = WCS(hdu.header, hdus).celestial
                    if target.cpdis1 is not None or target.det2im1 is not None:
                        raise UsageError(
                            f"--like {path}: its WCS has distortion tables, which the cutout's header could not state"
                        )
                    if target.naxis == 2:
                        shape = (int(hdu.header["NAXIS2"]), int(hdu.header["NAXIS1"]))
                        return _resampled(cutout, target, shape)
    except OSError as error:
        raise UsageError(f"--like {path}: cannot be read as FITS: {error}") from None
    raise UsageError(f"--like {path}: no image with a celestial WCS")


def _resampled(cutout: Cutout, target: WCS, shape: tuple[int, int]) -> Cutout:
    """Return the cutout on other pixels, with the flux conserved."""
    # Here, as importing it takes a quarter of a second and few commands need it.
    import reproject

    def conserved(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        # By band: what has no data differs between them.
        bands = [
            reproject.reproject_adaptive(
                (band.astype(np.float64), cutout.wcs),
                target,
                shape,
                conserve_flux=True,
                return_footprint=False,
            )
            for band in plane
        ]
        return np.stack(bands).astype(np.float32)

    def nearest(plane: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
        bands = [
            reproject.reproject_interp(
                (band.astype(np.float64), cutout.wcs),
                target,
                shape,
                order="nearest-neighbor",
                return_footprint=False,
            )
            for band in plane
        ]
        # Beyond the cutout there are no data.
        return np.nan_to_num(np.stack(bands), nan=int(MaskBit.NO_DATA)).astype(np.uint16)

    return replace(
        cutout,
        image=conserved(cutout.image),
        mask=None if cutout.mask is None else nearest(cutout.mask),
        variance=None if cutout.variance is None else conserved(cutout.variance),
        wcs=target,
        is_resampled=True,
    )


def cutouts_as_fits(cutouts: Sequence[Cutout]) -> fits.HDUList:
    """Return cutouts as HDUs ``IMAGE_<band>``, ``MASK_<band>`` and ``VARIANCE_<band>``; EXTVER counts the objects from 1.

    Each HDU has the WCS, and names of bands are in capitals, as FITS has them. Bits of masks are listed as MP_<name>.
    """
    primary = fits.PrimaryHDU()
    primary.header["ORIGIN"] = "galbatch"
    primary.header["NOBJECTS"] = (len(cutouts), "EXTVER counts them from 1")
    hdus = [hdu for number, one in enumerate(cutouts, 1) for hdu in _hdus(one, number)]
    return fits.HDUList([primary, *hdus])


def write_cutouts(path: str, cutouts: Sequence[Cutout]) -> None:
    """Write cutouts as a FITS file, see `cutouts_as_fits`; raises as `galbatch.storage.publish` does.

    Raises
    ------
    UsageError
        The name of the file does not end in ``.fits``.
    """
    if not path.endswith(".fits"):
        raise UsageError(f"-o {path}: cutouts are written as FITS; end the name in .fits")
    buffer = io.BytesIO()
    cutouts_as_fits(cutouts).writeto(buffer)
    storage.publish(path, buffer.getvalue())


def _hdus(cutout: Cutout, number: int) -> Iterator[fits.ImageHDU]:
    planes = {
        "IMAGE": (cutout.image, "nJy"),
        "MASK": (cutout.mask, ""),
        "VARIANCE": (cutout.variance, "nJy2"),
    }
    # With SIP polynomials, which another image may have.
    wcs = cutout.wcs.to_header(relax=True)
    for index, band in enumerate(cutout.bands):
        for plane, (values, unit) in planes.items():
            if values is None:
                continue
            hdu = fits.ImageHDU(values[index], wcs, name=f"{plane}_{band}", ver=number)
            add_cards(hdu.header, cutout, index, unit)
            if plane == "MASK":
                for bit in MaskBit:
                    # FITS allows longer names than 8 letters after this word, which LSST's masks have too.
                    hdu.header[f"HIERARCH MP_{bit.name}"] = int(bit).bit_length() - 1
            yield hdu


def add_cards(header: fits.Header, cutout: Cutout, index: int, unit: str) -> None:
    """Add what is known of one band of a cutout to a FITS header: object, band, flags, PSF and noise; BUNIT where `unit` is one."""
    header["OBJECT"] = (str(cutout.object_id), "id in the catalog")
    header["RA_OBJ"] = (cutout.ra_deg, "[deg] ICRS, in the object list")
    header["DEC_OBJ"] = (cutout.dec_deg, "[deg] ICRS, in the object list")
    header["FILTER"] = cutout.bands[index]
    header["FLAGS"] = (int(cutout.flags), "column flags of the catalog")
    header["FLAGTEXT"] = " ".join(str(flag.name) for flag in cutout.flags)
    if unit:
        header["BUNIT"] = unit
    if unit == "nJy":
        header["MAGZERO"] = (AB_ZERO_POINT_NJY, "[mag] AB magnitude of 1 nJy")
    for key, value, comment in (
        ("PSFFWHM", cutout.psf_fwhm_arcsec[index], "[arcsec] FWHM of the PSF"),
        ("SKYSIGMA", cutout.sky_sigma_njy[index], "[nJy] noise of the sky per pixel"),
    ):
        # FITS has no NaN in headers.
        if np.isfinite(value):
            header[key] = (float(value), comment)
    if cutout.is_resampled:
        header["HISTORY"] = RESAMPLED_NOTE

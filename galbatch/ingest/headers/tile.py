"""One tile from the HDUs of a file: its planes, shape, WCS and place, checked against one another."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from astropy.io import fits

from galbatch.core.types import FileIdentity, Plane, Tile, WeightKind
from galbatch.errors import TileError
from galbatch.ingest.headers.calibration import PixelScale
from galbatch.ingest.headers.lattice import lattice_key
from galbatch.ingest.headers.units import flux_unit, flux_unit_of_weight
from galbatch.ingest.headers.wcs import accepted_wcs, corners_deg, pixel_scale_arcsec, wcs_cards
from galbatch.ingest.pixels.fits_files import (
    FETCH_AGAIN,
    first_image,
    hdu_at,
    n_moved_by_fpack,
    open_fits,
    require_whole,
)
from galbatch.ingest.pixels.masks import NO_BITS, NamedBits
from galbatch.ingest.pixels.planes import described
from galbatch.ingest.pixels.scaling import asinh_cards
from galbatch.storage import FileAccessLog

__all__ = ["Planes", "add_plane", "combined_identity", "make_tile", "with_bits"]


@dataclass(frozen=True, slots=True)
class Planes:
    """Which HDUs of one file make a tile, by number or name.

    `weight_kind` says what the weight HDU holds; `bits` what the mask's bits mean;
    `index` is the place on the axes before (y, x) of HDUs that are cubes.
    """

    image: int | str
    mask: int | str | None = None
    weight: int | str | None = None
    weight_kind: WeightKind = "variance"
    bits: NamedBits = NO_BITS
    index: tuple[int, ...] = ()

    def named(self) -> dict[str, int | str]:
        """Return the HDUs by the name that errors use."""
        numbers = {"image": self.image, "mask": self.mask, self.weight_kind.replace("_", " "): self.weight}
        return {name: number for name, number in numbers.items() if number is not None}


def make_tile(
    hdus: fits.HDUList,
    path: str,
    *,
    key: tuple[str, str],
    planes: Planes,
    njy: float | PixelScale,
    psf_fwhm_arcsec: float,
) -> Tile:
    """Return the tile `key` = (tile_id, band) whose planes are HDUs of one file; one image unit is `njy` nJy.

    `njy` is a number, or the `PixelScale` that `image_scale` found.

    Raises
    ------
    TileError
        A plane is truncated or of another shape than the image, or there is no celestial WCS.
    """
    tile_id, band = key
    where = f"tile {tile_id} band {band} ({path})"
    found = {
        name: _whole_plane(hdus, Plane(path, number, planes.index), where=where, name=name)
        for name, number in planes.named().items()
    }
    image, shape = found.pop("image")
    if any(planes.index) and image.index != planes.index:
        # Mask and weight may be one for all bands; images of several bands in one plane are a mistake.
        at = ", ".join(map(str, planes.index))
        raise TileError(
            f"{where}: the image is no cube, so nothing is at index {at}; correct [survey.generic] axis"
        )
    for name, (_, other) in found.items():
        _require_shape(other, shape, where=where, name=name)
    wcs_header, wcs = accepted_wcs(wcs_cards(hdus, image.hdu), where)
    mask = found.get("mask", (None,))[0]
    weight = found.get(planes.weight_kind.replace("_", " "), (None,))[0]
    if weight is not None:
        _require_weight_unit(hdus[weight.hdu].header, hdus[image.hdu].header, planes.weight_kind, where=where)
    scale = njy if isinstance(njy, PixelScale) else PixelScale(njy)
    tile = Tile(
        tile_id=tile_id,
        band=band,
        image=image,
        shape_px=shape,
        wcs_header=wcs_header,
        grid_key=lattice_key(wcs_header),
        njy_per_unit=scale.njy_per_unit,
        pixel_scale_arcsec=pixel_scale_arcsec(wcs.wcs),
        corners_deg=corners_deg(wcs, shape),
        mask=mask,
        weight=weight,
        weight_kind=planes.weight_kind,
        psf_fwhm_arcsec=psf_fwhm_arcsec,
        electrons_per_njy=_electrons_per_njy(hdus, image.hdu, scale.njy_per_unit),
        calibration=scale.field,
    )
    return with_bits(tile, planes.bits, hdus)


def _electrons_per_njy(hdus: fits.HDUList, image_hdu: int | str, njy_per_unit: float) -> float:
    """Return the electrons of one nJy by the card GAIN of the image or of the file, electrons for one image unit; NaN without such a card."""
    for number in (image_hdu, 0):
        gain = hdus[number].header.get("GAIN")
        if isinstance(gain, int | float):
            # A coadd whose gain is not known states 0; that of one of its exposures may then stand in the file's own header.
            return float(gain / njy_per_unit) if 0 < gain < math.inf else math.nan
    return math.nan


def with_bits(tile: Tile, bits: NamedBits, hdus: fits.HDUList) -> Tile:
    """Return the tile with the meaning of its mask's bits, and with the HDUs of `hdus`, the mask's file, in which they go on.

    Raises
    ------
    TileError
        One of these HDUs is truncated or of another shape than the image.
    """
    more = []
    for number in bits.more_hdus:
        assert tile.mask is not None
        where = f"{tile.where}: mask, HDU {number}"
        further = dataclasses.replace(tile.mask, hdu=number)
        plane, shape = _whole_plane(hdus, further, where=where, name="mask")
        _require_shape(shape, tile.shape_px, where=where, name="mask")
        more.append(plane)
    return dataclasses.replace(tile, mask_planes=bits.names, more_masks=tuple(more))


def add_plane(
    tile: Tile,
    role: Literal["mask", "weight", "psf"],
    path: str,
    files: FileAccessLog,
    *,
    hdu: int | str | None = None,
) -> Tile:
    """Return the tile with a plane of another file, whose identity then counts too.

    Of a cube the plane at the image's own index is taken; without `hdu` the file's first image.

    Raises
    ------
    TileError
        The file is no FITS file, truncated, lacks the HDU, or is not of the image's shape.
    FileNotFoundError
        There is no such file.
    """
    where = f"{tile.where}, {role} {path}"
    with open_fits(path, files) as hdus:
        number = first_image(hdus) if hdu is None else hdu
        number = n_moved_by_fpack(hdus) if number == 0 else number
        if number is None:
            raise TileError(f"{where}: no HDU has an image; {FETCH_AGAIN}")
        plane, shape = _whole_plane(hdus, Plane(path, number, tile.image.index), where=where, name=role)
    _require_shape(shape, tile.shape_px, where=where, name=role)
    identity = tile.identity or files.identity(tile.image.path)
    if path != tile.image.path:
        identity = combined_identity([identity, files.identity(path)])
    changes: dict[str, Any] = {role: plane, "identity": identity}
    return dataclasses.replace(tile, **changes)


def combined_identity(parts: Sequence[FileIdentity]) -> FileIdentity:
    """Return the identity of a tile made of several files: all bytes, and a hash over the versions in this order."""
    if len(parts) == 1:
        return parts[0]
    text = ",".join(f"{part.size_bytes}:{part.version}" for part in parts)
    return FileIdentity(
        sum(part.size_bytes for part in parts), hashlib.sha256(text.encode()).hexdigest()[:32]
    )


def _whole_plane(hdus: fits.HDUList, plane: Plane, *, where: str, name: str) -> tuple[Plane, tuple[int, int]]:
    """Return the plane by the number of its HDU, and (y, x); checked to be there whole."""
    hdu = hdu_at(hdus, plane.hdu, where=where, name=name)
    index, shape = _place(getattr(hdu, "shape", None) or (), plane.index, where=f"{where}: {name}")
    require_whole(hdu, where=where, plane=name)
    # Masks are often written with a copy of the image's header: its BSOFTEN says nothing of their bits.
    asinh = None if name in ("mask", "psf") else asinh_cards(hdu.header, f"{where}: {name}")
    return described(hdu, Plane(plane.path, hdus.index_of(plane.hdu), index, asinh=asinh)), shape


def _place(
    shape: tuple[int, ...], index: tuple[int, ...], *, where: str
) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Return the index on the axes before (y, x), which may be left out where their length is 1; and (y, x)."""
    before = shape[:-2]
    if len(index) != len(before) and all(length == 1 for length in before):
        index = (0,) * len(before)
    fits_in = len(index) == len(before) and all(0 <= i < n for i, n in zip(index, before, strict=True))
    if len(shape) < 2 or 0 in shape or not fits_in:
        place = f" at index {', '.join(map(str, index))} of a cube" if index else ""
        raise TileError(
            f"{where} has shape {tuple(shape)}; an image (y, x){place} is needed (cubes: layout generic, axis)"
        )
    return index, (int(shape[-2]), int(shape[-1]))


def _require_weight_unit(weight: fits.Header, image: fits.Header, kind: WeightKind, *, where: str) -> None:
    """Raise if a weight's BUNIT says that it is of another kind, or of another scale than the image."""
    text, image_text = (str(header.get("BUNIT", "")).strip() for header in (weight, image))
    # A copy of the image's header says nothing of the weight.
    said = None if text == image_text else flux_unit_of_weight(text)
    if said is None or kind == "coverage":
        return
    if said[0] != kind:
        raise TileError(
            f"{where}: the {kind.replace('_', ' ')} has BUNIT = {text!r}, which is that of a {said[0].replace('_', ' ')}; correct the card or the "
            "HDU's name, or state [survey.generic] weight_kind (layout generic) of a file without the card"
        )
    try:
        own = flux_unit(image_text)
    except TileError:
        return
    if (
        own is not None
        and own.per_steradian == said[1].per_steradian
        and not math.isclose(own.njy, said[1].njy, rel_tol=1e-6)
    ):
        raise TileError(
            f"{where}: the image has BUNIT = {image_text!r}, its {kind.replace('_', ' ')} {text!r}, which is of another scale; write both in one unit"
        )


def _require_shape(found: tuple[int, int], image: tuple[int, int], *, where: str, name: str) -> None:
    if found != image:
        raise TileError(f"{where}: {name} is {found} px, the image {image}; they must cover the same pixels")

"""The flux in nJy that a pixel's number stands for: one precedence for every layout.

The first of these decides, and what contradicts it is an error that shows both statements:

1. a unit of flux (BUNIT, or ``[survey.generic] unit``); zero-point cards beside it are leftovers of the counts before
   calibration and are not asked
2. a PhotoCalib of the LSST pipelines, FLUXMAG0
3. ``[survey] zero_point_mag`` of run.toml: it goes before statements that had to be derived (magnitudes per second, Vega
   magnitudes, PHOTFLAM), and must agree with all others
4. the zero-point cards, then PHOTFLAM with PHOTPLAM, or PHOTFNU
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from galbatch.config import SurveyConfig
from galbatch.core.types import CalibrationField
from galbatch.errors import ConfigError, TileError
from galbatch.ingest.headers.photocalib import ArchiveError, photocalib
from galbatch.ingest.headers.statements import Cards, Statement, njy_of_zero_point, number_of, zero_point_of
from galbatch.ingest.headers.units import flux_unit
from galbatch.ingest.headers.wcs import SkyWCS, accepted_wcs, wcs_cards
from galbatch.ingest.headers.zero_points import (
    ZERO_POINT_CARDS,
    fluxmag0_statement,
    no_zero_point,
    photflam_statement,
    photfnu_statement,
    zero_point_statements,
)

__all__ = ["PixelScale", "StatedScale", "image_scale", "scale_of_attribute"]

# Files and run.toml may round the zero point to 4 digits.
SAME_ZERO_POINT_MAG = 1e-3

# PIXAR_SR is the mean over the image, and distortion changes a pixel's area by some 0.5 % over JWST's detectors.
SAME_AREA = 0.01

# Zero points 46.4 and -6.1: no image of the sky has counts beyond these.
SANE_NJY = (1e-6, 1e15)


@dataclass(frozen=True, slots=True)
class PixelScale:
    """The flux in one image unit: a number in nJy, and how it varies over the image, None if it does not."""

    njy_per_unit: float
    field: CalibrationField | None = None


@dataclass(frozen=True, slots=True)
class StatedScale:
    """The scale of pixels that run.toml gives for one band, and the tile that errors name.

    Attributes
    ----------
    band, where : str
        The band in the survey's names; the tile and its file.
    zero_point_mag, vega_to_ab_mag : float or None
        The values of [survey] for this band.
    unit, zero_point_card : str
        Those of [survey.generic]; "" in other layouts.
    layout_unit : str
        The unit of files of this layout that say none; "" if it has none.
    """

    band: str
    where: str
    zero_point_mag: float | None = None
    vega_to_ab_mag: float | None = None
    unit: str = ""
    zero_point_card: str = ""
    layout_unit: str = ""

    @classmethod
    def of(cls, survey: SurveyConfig, band: str, where: str, *, layout_unit: str = "") -> StatedScale:
        """Return what a [survey] section says of a band."""
        zero_point, vega_to_ab = (
            value.get(band) if isinstance(value, Mapping) else value
            for value in (survey.zero_point_mag, survey.vega_to_ab_mag)
        )
        generic = survey.generic
        return cls(
            band,
            where,
            zero_point,
            vega_to_ab,
            generic.unit,
            generic.zero_point_card,
            layout_unit=layout_unit,
        )

    @property
    def by_zero_point(self) -> Statement | None:
        """The statement of ``[survey] zero_point_mag``; None without one."""
        if self.zero_point_mag is None:
            return None
        return Statement(njy_of_zero_point(self.zero_point_mag), "[survey] zero_point_mag")


@dataclass
class _Heard:
    """The statements of one file, in the order in which they decide, and the words on those that say nothing."""

    firm: list[Statement] = field(default_factory=list)  # unit, PhotoCalib, FLUXMAG0
    cards: list[Statement] = field(default_factory=list)  # zero points, PHOTFLAM
    has_unit: bool = False
    useless: list[str] = field(default_factory=list)

    def add(self, found: Statement | str | None, to: list[Statement]) -> None:
        if isinstance(found, Statement):
            to.append(found)
        elif found is not None:
            self.useless.append(found)


def _shape(hdus: fits.HDUList, image: int | str, stated: StatedScale) -> tuple[int, ...]:
    shape: tuple[int, ...] = getattr(hdus[image], "shape", None) or ()
    if len(shape) < 2:
        raise TileError(
            f"{stated.where}: HDU {image} is no image; name the right one, or fetch the file again"
        )
    return shape


def image_scale(hdus: fits.HDUList, image: int | str, stated: StatedScale) -> PixelScale:
    """Return the scale of an image's pixels, by its header, the primary header, the archive and run.toml.

    Raises
    ------
    TileError
        Nothing says it, two statements contradict one another, or it is beyond what images of the sky have.
    ConfigError
        ``[survey.generic] unit`` is no unit of flux.
    """
    header = hdus[image].header
    cards, heard = Cards([header, hdus[0].header]), _Heard()
    unit, area_varies = _unit_statement(cards, wcs_cards(hdus, image), _shape(hdus, image, stated), stated)
    if unit is not None:
        heard.firm.append(unit)
        heard.has_unit = True
    fluxmag0 = fluxmag0_statement(cards)
    mean, varies = None, None
    try:
        found = photocalib(hdus, header, stated.where)
    except ArchiveError:
        # A cutout whose archive was cut off is read by its other statements.
        if unit is None and not isinstance(fluxmag0, Statement) and stated.zero_point_mag is None:
            raise
    else:
        if found is not None:
            mean, varies = found
            heard.firm.append(Statement(mean, f"PhotoCalib {mean:.6g} nJy"))
    heard.add(fluxmag0, heard.firm)
    if not heard.has_unit:
        keys = (stated.zero_point_card,) if stated.zero_point_card else ZERO_POINT_CARDS
        for said in zero_point_statements(cards, keys, stated.band, vega_to_ab_mag=stated.vega_to_ab_mag):
            if stated.zero_point_card and isinstance(said, Statement):
                # Both come from run.toml: the number goes before the name of a card.
                said = dataclasses.replace(said, definite=False)
            heard.add(said, heard.cards)
        heard.add(photflam_statement(cards), heard.cards)
        heard.add(photfnu_statement(cards), heard.cards)
    no_flux = f"BUNIT is {cards.text('BUNIT') or 'missing'!r}"
    njy = _decided(heard, stated, missing=no_flux)
    if unit is not None and njy == unit.njy:
        # Pixels in a unit of flux are calibrated, however the PhotoCalib beside them may vary.
        return PixelScale(njy, area_varies)
    return PixelScale(njy, varies if njy == mean else None)


def scale_of_attribute(name: str, value: object, stated: StatedScale) -> float:
    """Return nJy per image unit by the zero point in an attribute of an HDF5 file; None in the file means it says nothing.

    Raises
    ------
    TileError
        As `image_scale`.
    """
    heard = _Heard()
    number = number_of(value.item() if isinstance(value, np.generic) else value)
    if no_zero_point(number):
        heard.add(None if value is None else f"{name} = {value!r} is no zero point", heard.cards)
    else:
        assert number is not None
        heard.add(Statement(njy_of_zero_point(number), f"{name} = {number:g}"), heard.cards)
    return _decided(heard, stated, missing=f"the file has no attribute {name}")


def _unit_statement(
    cards: Cards, header: fits.Header, shape: Sequence[int], stated: StatedScale
) -> tuple[Statement | None, CalibrationField | None]:
    """Return the unit of flux, by run.toml, BUNIT or the layout; per steradian, times the pixel's area and how that varies."""
    readings, varies = [], None
    for text, name in ((stated.unit, "[survey.generic] unit"), (cards.text("BUNIT"), "BUNIT")):
        try:
            unit = flux_unit(text)
        except TileError as error:
            if name == "BUNIT" and (stated.unit or stated.zero_point_mag is not None):
                continue  # run.toml says what the file leaves open
            raise TileError(
                f"{stated.where}: {name}: {error}, or state [survey] zero_point_mag = {{{stated.band} = ..}}"
            ) from None
        if unit is None and text and text == stated.unit:
            raise ConfigError(
                f"{name} = {text!r} is none; there are nJy, uJy, mJy, Jy, nanomaggy, MJy/sr and others that astropy "
                "knows; for images in counts state [survey] zero_point_mag"
            )
        if unit is not None:
            njy, shown = unit.njy, f"{name} = {text}"
            if unit.per_steradian:
                area_sr, varies = _pixel_area(cards, header, shape, stated.where)
                njy, shown = njy * area_sr, f"{shown} times the pixel's area"
            readings.append(Statement(njy, shown))
    if not readings and stated.layout_unit:
        unit = flux_unit(stated.layout_unit)
        assert unit is not None
        readings = [Statement(unit.njy, f"the layout's unit, {stated.layout_unit}")]
    _require_agreement(readings, stated, advice="take unit out of run.toml, or correct it")
    return (readings[0] if readings else None), varies


def _pixel_area(
    cards: Cards, header: fits.Header, shape: Sequence[int], where: str
) -> tuple[float, CalibrationField | None]:
    """Return a pixel's solid angle, sr, by PIXAR_SR, which must be the WCS's, else by the WCS; and how it varies, if it does."""
    _, wcs = accepted_wcs(header, where)
    ny, nx = shape[-2:]
    # (y, x): 9 x 9 places on the image, for a polynomial of order 4 on each axis.
    y, x = np.meshgrid(np.linspace(0, ny - 1, 9), np.linspace(0, nx - 1, 9), indexing="ij")
    areas_sr = _areas_sr(wcs, x, y)
    mean = float(areas_sr.mean())
    written = number_of(cards.get("PIXAR_SR"))
    if written is not None and not abs(written / mean - 1) < SAME_AREA:
        raise TileError(
            f"{where}: PIXAR_SR is {written:.6g} sr, the pixel's area by the WCS {mean:.6g} sr; correct the card, or "
            "convert the image to Jy per pixel"
        )
    if float(np.abs(areas_sr / mean - 1).max()) < SAME_ZERO_POINT_MAG:
        return written or mean, None
    x_range, y_range = (-0.5, nx - 0.5), (-0.5, ny - 0.5)
    u, v = ((2.0 * at - sum(ends)) / (ends[1] - ends[0]) for at, ends in ((x, x_range), (y, y_range)))
    basis = np.polynomial.chebyshev.chebvander2d(v.ravel(), u.ravel(), [4, 4])
    fitted = np.linalg.lstsq(basis, (areas_sr / mean).ravel(), rcond=None)[0]
    if not float(np.abs(basis @ fitted * mean / areas_sr.ravel() - 1).max()) < SAME_ZERO_POINT_MAG:
        raise TileError(
            f"{where}: BUNIT is a surface brightness, and the pixel's area varies too much over the image; resample it "
            "to a TAN projection, or convert it to Jy per pixel"
        )
    rows = tuple(tuple(row) for row in fitted.reshape(5, 5).tolist())
    return written or mean, CalibrationField(x_range, y_range, rows)


def _areas_sr(wcs: SkyWCS, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the areas (y, x) in steradian of the pixels at 0-based (x, y), from the two lines through their middles."""
    ends = []
    for dx, dy in ((-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)):
        ra, dec = np.deg2rad(wcs.to_sky(x + dx, y + dy))
        ends.append(np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1))
    # A pixel is small enough to be flat: its area is the cross product of the two, (y, x, xyz).
    return np.linalg.norm(np.cross(ends[1] - ends[0], ends[3] - ends[2]), axis=-1)


def _decided(heard: _Heard, stated: StatedScale, *, missing: str) -> float:
    """Return one image unit in nJy: the first statement that decides, if the others agree."""
    by_config = stated.by_zero_point
    firm = [*heard.firm, *heard.cards]
    if by_config is not None:
        # Derived statements give way to run.toml, and where cards differ it may say which of them is right.
        firm = [said for said in firm if said.definite]
        firm = [said for said in firm if _agree(by_config, said)] or firm
    _require_agreement(firm, stated, advice="state the right one: [survey] zero_point_mag = ..")
    if by_config is not None:
        _require_agreement(
            [*firm, by_config], stated, advice="take zero_point_mag out of run.toml, or correct it"
        )
    choices = [*firm, *([by_config] if by_config is not None else [])]
    if not choices:
        said = "".join(f"; {text}" for text in heard.useless)
        cards = ", ".join((stated.zero_point_card,) if stated.zero_point_card else ZERO_POINT_CARDS)
        raise TileError(
            f"{stated.where}: the zero point is unknown: {missing}{said}; no unit of flux, no PhotoCalib, and no usable card "
            f"FLUXMAG0, {cards}, PHOTFLAM or PHOTFNU was found; add FLUXMAG0 (6.3096e10 for HSC coadds: zero point 27.0), exclude "
            f"the file, or state it: [survey] zero_point_mag = {{{stated.band} = ..}}"
        )
    njy = choices[0].njy
    if not SANE_NJY[0] <= njy <= SANE_NJY[1]:
        raise TileError(
            f"{stated.where}: {choices[0].text} makes one image unit {njy:g} nJy; {SANE_NJY[0]:g} to {SANE_NJY[1]:g} nJy can "
            "be, so that is no scale of an image: correct it, or state [survey] zero_point_mag"
        )
    return njy


def _agree(one: Statement, other: Statement) -> bool:
    """Return whether two statements are one zero point; also where both are 0 or infinite, which is refused later."""
    if one.njy == other.njy:
        return True
    ratio = one.njy / other.njy if other.njy > 0 else 0.0
    return 0 < ratio < math.inf and abs(2.5 * math.log10(ratio)) <= SAME_ZERO_POINT_MAG


def _require_agreement(statements: Sequence[Statement], stated: StatedScale, *, advice: str) -> None:
    """Raise where a statement contradicts the first one, with both of them."""
    for other in statements[1:]:
        first = statements[0]
        otherwise = other if other.otherwise_njy is None else Statement(other.otherwise_njy, other.text)
        if not (_agree(first, other) or _agree(first, otherwise)):
            raise TileError(
                f"{stated.where}: the file says zero point {zero_point_of(first.njy):.4f}, by {first.text}, but "
                f"{other.text} {zero_point_of(other.njy):.4f}; {advice}"
            )

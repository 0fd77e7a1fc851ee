"""UCDs (Unified Content Descriptors, UCD1+ 1.5) of the quantities that networks estimate, by name, unit and bands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import astropy.units as u

__all__ = ["band_ucd", "is_redshift", "quantity_ucd", "ucd_problems"]

# The vocabulary's bands are wide: each entry is the one that holds the effective wavelength of the filter. The y bands
# of HSC, LSST and Pan-STARRS lie below 1000 nm.
BAND_WORDS = (
    {"fuv": "em.UV.100-200nm", "nuv": "em.UV.200-300nm", "u": "em.opt.U"}
    | dict.fromkeys(("g", "b"), "em.opt.B")
    | {"v": "em.opt.V", "r": "em.opt.R"}
    | dict.fromkeys(("i", "z", "y"), "em.opt.I")
    | {"j": "em.IR.J", "h": "em.IR.H", "k": "em.IR.K", "ks": "em.IR.K"}
    | {"w1": "em.IR.3-4um", "w2": "em.IR.4-8um", "w3": "em.IR.8-15um", "w4": "em.IR.15-30um"}
)

NAME_WORDS = (
    dict.fromkeys(("z", "redshift", "photoz", "zphot"), "src.redshift.phot")
    | dict.fromkeys(("q", "ba", "axis", "ellipticity", "e1", "e2"), "src.ellipticity")
    | dict.fromkeys(("pa", "theta"), "pos.posAng")
    | dict.fromkeys(("bt", "n", "sersic", "gini", "m20", "concentration", "asymmetry"), "src.morph.param")
    | {"mass": "phys.mass", "sfr": "phys.SFR"}
)
"""UCDs of quantities whose unit does not tell what they are, by a word of their name."""

SOME_BAND = "em.opt"
"""The word for a band whose name does not tell its wavelength: surveys' images are optical ones."""

UNKNOWN = "stat.param"

REDSHIFT = "src.redshift"


def band_ucd(band: str) -> str:
    """Return the UCD of the part of the spectrum that a band is in, by its name."""
    return BAND_WORDS.get(band.lower(), SOME_BAND)


def quantity_ucd(name: str, unit: str, bands: Sequence[str]) -> str:
    """Return the UCD of a quantity, with the part of the spectrum for fluxes, magnitudes and colors.

    Parameters
    ----------
    name : str
        Name in the catalog, whose words are separated by underscores: ``re_arcsec``, ``color_gr_mag``, ``mag_r``.
    unit : str
        Unit in the VOUnits syntax, "" for none.
    bands : sequence of str
        Bands of the images that the network takes. The name says which of them a flux or magnitude is in, if the network
        takes several.
    """
    words = name.lower().split("_")
    known = [band.lower() for band in bands]
    if unit == "mag" and "color" in words:
        pair = next((tuple(word) for word in words if len(word) == 2 and set(word) <= set(known)), ())
        return _with_bands("phot.color", pair)
    if unit == "mag":
        return _with_bands("phot.mag", _own_bands(words, known))
    is_flux, is_angle = _kind_of_unit(unit)
    if is_flux:
        return _with_bands("phot.flux.density", _own_bands(words, known))
    # Position angles have the unit of a size.
    by_name = next((NAME_WORDS[word] for word in words if word in NAME_WORDS), None)
    return by_name or ("phys.angSize" if is_angle else UNKNOWN)


@cache
def _kind_of_unit(unit: str) -> tuple[bool, bool]:
    """Return whether a unit is one of flux densities, and whether of angles. Astropy takes 10 ms for the columns of a network."""
    parsed = u.Unit(unit, parse_strict="silent")
    return parsed.is_equivalent(u.Jy), parsed.is_equivalent(u.arcsec)


def is_redshift(ucd: str, unit: str) -> bool:
    """Return whether a quantity is a redshift, by its UCD (the first word) and its unit: a redshift has none.

    A bundle states the UCD of a parameter by its key ``ucd``; otherwise the UCD follows from the name, whose words z, redshift,
    photoz and zphot mean a redshift.
    """
    word = ucd.split(";")[0]
    return unit == "" and (word == REDSHIFT or word.startswith(f"{REDSHIFT}."))


def ucd_problems(ucd: str, templates: Iterable[str]) -> list[str]:
    """Return messages on a UCD that the columns of a quantity cannot have; empty if there are none.

    Parameters
    ----------
    ucd : str
    templates : iterable of str
        UCDs of the columns, in which ``{of}`` and ``{of_second}`` stand for the UCD.
    """
    from astropy.io.votable.ucd import parse_ucd  # few bundles state a UCD

    try:
        for template in templates:
            parse_ucd(template.format(of=ucd, of_second=ucd), check_controlled_vocabulary=True)
    except ValueError as error:
        return [f"ucd {ucd!r}: {error}; take words of the IVOA's UCD1+ list, such as src.redshift.phot"]
    return []


def _own_bands(words: Sequence[str], bands: Sequence[str]) -> Sequence[str]:
    """Return the bands that a name states, or the network's only band."""
    return [word for word in words if word in bands][:1] or (bands if len(bands) == 1 else ())


def _with_bands(ucd: str, bands: Sequence[str]) -> str:
    """Return a photometric UCD with the words for its bands, all or none of them."""
    spectrum = [BAND_WORDS[band] for band in bands if band in BAND_WORDS]
    return ";".join([ucd, *spectrum]) if len(spectrum) == len(bands) else ucd

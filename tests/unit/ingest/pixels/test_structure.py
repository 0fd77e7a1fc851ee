"""Cards that say where an HDU's data end are looked at before astropy believes them; what its readers raise is told as damage."""

from __future__ import annotations

import errno
import io
import zlib

import numpy as np
import pytest
from astropy.io import fits

from galbatch.errors import ConfigError, TileError
from galbatch.ingest.pixels.structure import require_structure, told_damage


@pytest.fixture(scope="module")
def content():
    """A primary HDU, an image, a table, a compressed image."""
    image = np.arange(30, dtype=np.float32).reshape(5, 6)
    table = fits.BinTableHDU(np.zeros(3, dtype=[("a", "i4"), ("b", "f8")]))
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image), table, fits.CompImageHDU(image)]).writeto(buffer)
    return buffer.getvalue()


def with_card(content, hdu, card):
    """The file with another card in an HDU's header; the card's keyword is looked up there."""
    starts = [0, *(at for at in range(0, len(content), 2880) if content[at : at + 8] == b"XTENSION")]
    at = content.index(card[:10].encode(), starts[hdu])
    return content[:at] + card.ljust(80).encode() + content[at + 80 :]


def test_a_right_file_is_read_no_further_than_its_headers(content):
    file = io.BytesIO(b"before" + content)
    file.seek(6)
    require_structure(file, "a.fits")
    assert file.tell() == 6


@pytest.mark.parametrize(
    "content", [b"", b"no FITS" * 1000, b"SIMPLE  =                    T".ljust(2879), b"\x00" * 9000]
)
def test_what_is_no_fits_or_cut_is_left_to_its_readers(content):
    require_structure(io.BytesIO(content), "a.fits")


@pytest.mark.parametrize(
    ("hdu", "card", "message"),
    [
        (0, "BITPIX  =                    9", r"HDU 0: card BITPIX is 9, expected one of 8, 16, 32, 64, -32, -64"),
        (0, "NAXIS   =          99999999999", r"HDU 0: card NAXIS is 99999999999, expected 0 to 999"),
        (1, "NAXIS1  =                  6.5", r"HDU 1: card NAXIS1 is 6\.5, expected an integer"),
        (1, "NAXIS2  =                   -5", r"HDU 1: card NAXIS2 is -5, expected 0 or more"),
        (1, "NAXIS   =                    3", r"HDU 1: card NAXIS3 is missing, expected an integer"),
        (1, "BITPIX  =                    T", r"HDU 1: card BITPIX is T, expected one of"),
        (2, "TFIELDS =                 1000", r"HDU 2: card TFIELDS is 1000, expected 0 to 999"),
        (2, "PCOUNT  =                   -1", r"HDU 2: card PCOUNT and GCOUNT is -1 and 1, expected 0 or more"),
        (2, "GCOUNT  = ", r"HDU 2: card GCOUNT is empty, expected an integer"),
        (3, "ZNAXIS  =                    7", r"HDU 3: card ZNAXIS3 is missing"),
        (3, "ZBITPIX =                   12", r"HDU 3: card ZBITPIX is 12, expected one of 8"),
        (3, "ZTILE1  =                    0", r"HDU 3: card ZTILE1 is 0, expected 1 or more"),
    ],
)  # fmt: skip
def test_a_wrong_card_is_named_with_what_was_expected(content, hdu, card, message):
    with pytest.raises(
        TileError, match=rf"^a\.fits: {message}.*; the header is damaged: fetch the file again or exclude it$"
    ):
        require_structure(io.BytesIO(with_card(content, hdu, card)), "a.fits")


def test_data_beyond_the_file_are_left_to_those_who_read_them(content):
    huge = with_card(content, 1, "NAXIS1  =   900000000000000000")
    require_structure(io.BytesIO(huge), "a.fits")


def test_errors_of_libraries_are_told_and_others_pass():
    broken = fits.Card.fromstring("BUNIT   = 'no end")
    with (
        pytest.raises(TileError, match=r"^a\.fits: is damaged, .* "),
        told_damage("a.fits"),
    ):
        broken.verify("exception")
    with pytest.raises(TileError, match="invalid distance"), told_damage("a.fits"):
        raise zlib.error("Error -3: invalid distance too far back")
    with pytest.raises(TileError, match="Invalid argument"), told_damage("a.fits"):
        raise OSError(errno.EINVAL, "Invalid argument")
    for error in (
        OSError(errno.EIO, "the disk"),
        FileNotFoundError("a.fits"),
        KeyError("of galbatch's own code"),
        ConfigError("run.toml: ..."),
    ):
        with pytest.raises(type(error)) as found, told_damage("a.fits"):
            raise error
        assert found.value is error

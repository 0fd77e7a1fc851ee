from __future__ import annotations

import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord

from galbatch.api import parse_position, parse_radius, split_radius
from galbatch.errors import UsageError

HERE = SkyCoord("10h00m24.2s", "-02d13m05s")


@pytest.mark.parametrize(
    "text",
    [
        "150.1008333333 -2.2180555556",
        "150.1008333333, -2.2180555556",
        "10:00:24.2 -02:13:05",
        "10h00m24.2s -2d13m05s",
        "10 00 24.2 -02 13 05",
        "150.1008333333deg -2.2180555556deg",
        "150.1008333333 \N{MINUS SIGN}2.2180555556",
        "10h00m24.2s-02d13m05s",
        "10:00:24.2-02:13:05",
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
def test_positions_as_people_type_them(text: str, quoted: bool) -> None:
    found = parse_position("nowhere", [text] if quoted else text.split())
    assert found == pytest.approx((HERE.ra.deg, HERE.dec.deg), abs=1e-9)


def test_a_declination_just_below_zero_keeps_its_sign() -> None:
    assert parse_position("nowhere", ["10", "00", "00", "-00", "30", "00"])[1] == -0.5
    assert parse_position("nowhere", ["10:00:00", "-00:30:00"])[1] == -0.5


def test_the_id_of_an_object_is_a_position(small: str) -> None:
    assert parse_position(small, ["43000000000000019"]) == (150.1, -2.25)
    assert parse_position(small, ["-5"]) == (150.101, -2.2)
    with pytest.raises(UsageError, match="no object has the id 7;"):
        parse_position(small, ["7"])


@pytest.mark.parametrize("words", [["1", "M"], ["1", "2", "3"], ["--radius", "5"], []])
def test_what_is_no_position(words: list[str]) -> None:
    with pytest.raises(
        UsageError, match=r"expected right ascension and declination in degrees \(150.1 -2.2\)"
    ):
        parse_position("nowhere", words)


@pytest.mark.parametrize("words", [["NGC", "4993"], ["NGC 4993"], ["M31"]])
def test_a_name_may_be_several_words(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    asked = []

    def read_objects(path: str, object_ids: list[str]) -> pa.Table:
        asked.extend(object_ids)
        return pa.table({"ra_deg": [150.0], "dec_deg": [-2.0]})

    monkeypatch.setattr("galbatch.catalog.read_objects", read_objects)
    assert parse_position("catalog", words) == (150.0, -2.0)
    assert asked == [" ".join(words)]


@pytest.mark.parametrize("word", ["150.1", "M31", "12-34"])
def test_one_word_that_is_no_id_is_told_with_what_is_expected(small: str, word: str) -> None:
    with pytest.raises(UsageError, match=rf"position {word}: .*which excludes {word}; expected right asc"):
        parse_position(small, [word])


@pytest.mark.parametrize(
    ("words", "n_position"),
    [
        ("150.1 -2.2 60", 2),
        ("150.1 -2.2 1 arcmin", 2),
        ("150.1 -2.2 1arcmin", 2),
        ("7 1 deg", 1),
        ("7 60", 1),
        ("1 2 sixty", 2),
    ],
)
def test_a_radius_may_be_two_words(words: str, n_position: int) -> None:
    position, radius = split_radius(words.split())
    assert (len(position), " ".join([*position, radius])) == (n_position, words)


def test_minutes_beyond_sixty_are_refused() -> None:
    with pytest.raises(UsageError, match=r"position 10:61:00: An invalid value for 'minute'"):
        parse_position("nowhere", ["10:61:00", "2:00:00"])


@pytest.mark.parametrize(
    ("text", "radius_arcsec"),
    [("60", 60), ("1arcmin", 60), ("0.1deg", 360), ("5'", 300), ("0", 0), ("6e1", 60), ("2 arcmin", 120)],
)
def test_a_radius_is_in_arcsec_or_has_its_unit(text: str, radius_arcsec: float) -> None:
    assert parse_radius(text) == pytest.approx(radius_arcsec)


@pytest.mark.parametrize("text", ["-5", "x", "nan", "5kg"])
def test_what_is_no_radius(text: str) -> None:
    with pytest.raises(UsageError, match=f"RADIUS_ARCSEC {text}: expected 0 or more"):
        parse_radius(text)

"""Ways in which a file can be wrong. Each takes the random numbers and the content, and returns other content."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits

Mutation = Callable[[Random, bytes], bytes]

ODD_WORDS = (
    b"nan", b"inf", b"-inf", b"-1", b"0", b"1e308", b"-999", b"99999999999999999999", b"0.1", b"true", b"'text'", b'"text"', b"", b"[]",
    b"{}", b"null", b"\xff\xfe", b"\x00", b"1e400", b"-0", b"007", b"1970-01-01", b"a/b", b"..", b"*", b"%s", b"${x}", b"2.5e-320",
)  # fmt: skip
"""Words that stand for a number or a name that is none, or for an extreme one."""


def damaged(random: Random, content: bytes) -> bytes:
    """Return bytes as a bad disk or a broken download leaves them."""
    if not content:
        return b"\x00"
    start = random.randrange(len(content))
    length = random.choice((1, 8, 80, 512, len(content) // 3 + 1))
    piece = content[start : start + length]
    choice = random.randrange(8)
    if choice == 0:
        return content[:start]
    if choice == 1:
        return content[:start] + content[start + length :]
    if choice == 2:
        return content[:start] + bytes(random.randrange(256) for _ in piece[:512]) + content[start + length :]
    if choice == 3:
        return content[:start] + bytes(len(piece)) + content[start + length :]
    if choice == 4:
        return content[:start] + piece + content[start:]
    if choice == 5:
        changed = bytearray(content)
        for _ in range(random.choice((1, 3, 20))):
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        return bytes(changed)
    if choice == 6:
        return random.choice(
            (b"", b"\n", b"SIMPLE  =", b"PAR1", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"<?xml", b"\x1f\x8b")
        )
    return content.replace(b"\n", b"\r") if b"\n" in content else content[::-1]


def other_words(random: Random, content: bytes) -> bytes:
    """Return text in which one to three words, numbers or quoted texts are others."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        words = list(re.finditer(rb'"[^"\n]*"|[\w.+-]+', content))
        if not words:
            return content
        word = random.choice(words)
        new = random.choice((*ODD_WORDS, random.choice(words)[0]))
        content = content[: word.start()] + new + content[word.end() :]
    return content


def other_numbers(random: Random, content: bytes) -> bytes:
    """Return a text in which one to three numbers are others, of any size."""
    for _ in range(random.choice((1, 1, 2, 3))):
        number = random.choice(list(re.finditer(rb"(?<![\w.])-?\d+(\.\d+)?(?![\w.])", content)))
        values = (
            b"1e300",
            b"-1e30",
            b"1e-300",
            b"0",
            b"-1",
            b"50",
            b"-10",
            b"0.0",
            b"1e5",
            b"2",
            b"1e-4",
            b"46.4",
            b"1e9",
            b"99",
        )
        content = content[: number.start()] + random.choice(values) + content[number.end() :]
    return content


def other_pixels(random: Random, content: bytes) -> bytes:
    """Return a FITS file in which a window of one of its images holds other values."""
    with fits.open(io.BytesIO(content), do_not_scale_image_data=True) as hdus:
        images = [hdu for hdu in hdus if hdu.data is not None]
        hdu = random.choice((images[0], random.choice(images)))
        height, width = hdu.data.shape
        y, x = random.choice((0, height // 4)), random.choice((0, width // 2))
        values = (0.0, 1.0, -1.0, 1e6, -1e6) if hdu.data.dtype.kind == "i" else (
            0.0, 1.0, -1.0, 1e-30, 1e-40, 1e4, 1e10, 1e30, -1e30, 3e38, -3e38, np.nan, np.inf, -np.inf
        )  # fmt: skip
        hdu.data[y:, x:] = random.choice(values)
        if random.randrange(2):
            hdu.data[:: random.choice((1, 2, 7)), :: random.choice((1, 3))] = random.choice(values)
        buffer = io.BytesIO()
        hdus.writeto(buffer)
    return buffer.getvalue()


def other_cards(random: Random, content: bytes) -> bytes:
    """Return a FITS file in which one to three cards of its headers have other values, are gone, or stand twice."""
    cards = [at for at in range(0, len(content) - 79, 80) if content[at + 8 : at + 10] == b"= "]
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at = random.choice(cards)
        keyword = content[at : at + 8]
        values = (
            b"'text    '",
            b"T",
            b"F",
            b"0",
            b"-1",
            b"1E30",
            b"-32",
            b"2880",
            b"99999999999",
            b"NaN",
            b"",
            b"'",
            b"1.5",
            b"-999.0",
            b"7",
        )
        value = random.choice(values)
        new = keyword + b"= " + value.rjust(20)
        action = random.randrange(6)
        if action == 0:
            new = b"COMMENT gone"
        elif action == 1:
            new = content[random.choice(cards) :][:80]
        elif action == 2:
            new = bytes(random.randrange(32, 127) for _ in range(80))
        changed[at : at + 80] = new[:80].ljust(80)
    return bytes(changed)


def other_columns(random: Random, content: bytes) -> bytes:
    """Return a Parquet file in which a column has another type or name, other values, or is gone."""
    table = pq.read_table(pa.BufferReader(content))
    index = random.randrange(table.num_columns)
    name = table.column_names[index]
    column = odd_column(random, len(table))
    action = random.randrange(6)
    if action == 0:
        table = table.drop_columns([name])
    elif action == 1:
        table = table.append_column(name, column)
    elif action == 2:
        table = table.slice(0, random.randrange(2))
    elif action == 3:
        table = table.rename_columns([random.choice((key, "", "a\nb", name)) for key in table.column_names])
    else:
        table = table.set_column(index, name, column)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def odd_column(random: Random, n: int) -> pa.Array:
    """Return a column of any kind, with values that few expect."""
    values: tuple[Any, ...] = (
        pa.array(
            [random.choice((np.nan, np.inf, -np.inf, 1e300, -1.0, 95.0, 0.0, 1e-320)) for _ in range(n)]
        ),
        pa.array([random.choice(("", "a/b", "10:00:28", "\x00", "\N{SNOWMAN}", None)) for _ in range(n)]),
        pa.array([random.choice((0, -1, 2**62, -(2**63), None)) for _ in range(n)], pa.int64()),
        pa.array([random.choice((0, 2**64 - 1)) for _ in range(n)], pa.uint64()),
        pa.nulls(n),
        pa.nulls(n, pa.float64()),
        pa.array([bool(random.getrandbits(1)) for _ in range(n)]),
        pa.array([[1.0, 2.0]] * n),
        pa.array([{"a": 1}] * n),
        pa.array([b"\xff"] * n),
        pa.array([0] * n, pa.timestamp("ns")),
        pa.array([1] * n, pa.int8()),
    )
    return random.choice(values)


def other_datasets(random: Random, content: bytes) -> bytes:
    """Return an HDF5 file in which a dataset has another shape, type or name, other values, or is gone."""
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        name = random.choice(sorted(file))
        values = file[name][()]
        del file[name]
        action = random.randrange(7)
        if action == 1:
            file[name] = values[:1]
        elif action == 2:
            file[name] = np.full(values.shape, random.choice((np.nan, np.inf, -1.0, 1e30)))
        elif action == 3:
            file[name] = np.array([b"text"] * len(values))
        elif action == 4:
            file[name] = values.T
        elif action == 5:
            file.create_group(name)
        elif action == 6:
            file[name] = np.zeros(values.shape, np.complex64)
    return buffer.getvalue()


def other_metadata(random: Random, content: bytes) -> bytes:
    """Return a bundle whose galbatch.json has a value that is another, or gone; its script is untouched."""
    source, buffer = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if info.filename.endswith("galbatch.json"):
                data = _other_json(random, data)
            target.writestr(info.filename, data)
    return buffer.getvalue()


def _other_json(random: Random, data: bytes) -> bytes:
    if random.randrange(3) == 0:
        return other_words(random, data)
    content = json.loads(data)
    holder: Any = content
    while True:
        key = random.choice(sorted(holder)) if isinstance(holder, dict) else random.randrange(len(holder))
        if not isinstance(holder[key], dict | list) or not holder[key] or random.randrange(3) == 0:
            break
        holder = holder[key]
    odd = (
        None,
        True,
        -1,
        0,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "text",
        [],
        {},
        [1, "a"],
        10**30,
        "\x1b[2J",
        -0.5,
    )
    if random.randrange(5) == 0:
        del holder[key]
    else:
        holder[key] = random.choice(odd)
    return json.dumps(content).encode()

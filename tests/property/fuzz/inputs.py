"""Small right inputs of a run, one function for each kind. A new kind is one more function with ``@kind``."""

from __future__ import annotations

import functools
import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import torch
from astropy.io import fits
from mocpy import MOC

from galbatch import models, objects
from galbatch.core import sky
from galbatch.models.networks import Sfnet
from tests.property.fuzz import mutations
from tests.property.fuzz.mutations import Mutation

PLAN, RUN, CHECK, SHOW = ("plan", "run.toml"), ("run", "run.toml"), ("objects", "check"), ("models", "show")

RUN_TOML = """[survey]
layout = "hsc"
tiles = "tiles/*.fits"
bands = ["g"]
[objects]
path = "objects.parquet"
[[models]]
name = "net"
bundle = "net.pt"
[posterior]
passes = 2
batch = 8
"""


@dataclass(frozen=True)
class Input:
    """A right input.

    Attributes
    ----------
    files : path below the run's folder -> content
    changed : the one of them that is changed
    mutations : ways to change it
    commands : arguments of those that read it
    """

    files: dict[str, bytes]
    changed: str
    mutations: tuple[Mutation, ...]
    commands: tuple[tuple[str, ...], ...] = (PLAN, RUN)
    names: tuple[str, ...] = field(default=())

    def write(self, folder: Path, content: bytes) -> None:
        """Write all files, the changed one with another content."""
        for name, right in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if name == self.changed else right)


KINDS: dict[str, Callable[[], Input]] = {}


def kind(make: Callable[[], Input]) -> Callable[[], Input]:
    """Register a kind of input under the function's name."""
    KINDS[make.__name__] = functools.cache(make)
    return KINDS[make.__name__]


# --- what all kinds share --------------------------------------------------------------------------------


@functools.cache
def network() -> bytes:
    """A bundle of a network of random weights, for 48 px in band g."""
    torch.manual_seed(4)
    metadata = models.BundleMetadata(
        name="tiny",
        version="0",
        architecture="sfnet",
        input=models.InputInfo(("g",), 48, 0.168, "ADU", 27.0),
        head=models.HeadInfo("gaussian"),
        parameters=(models.ParameterInfo("mag_g", "mag", "magnitude", "identity", location=18.0),),
        dropout_rate=0.05,
        n_top_features=4,
    )
    return saved(models.script_of(Sfnet(1, 2, k=4, width=1 / 8, dropout_rate=0.05)), metadata)


def saved(script: object, metadata: models.BundleMetadata) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        models.save_bundle(f"{folder}/net.pt", script, metadata)
        return Path(folder, "net.pt").read_bytes()


def wcs(n_px: int = 96) -> fits.Header:
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 150.0, 2.0
    header["CRPIX1"] = header["CRPIX2"] = (n_px + 1) / 2
    header["CD1_1"], header["CD2_2"] = -0.168 / 3600, 0.168 / 3600
    header["CD1_2"] = header["CD2_1"] = 0.0
    return header


@functools.cache
def calexp() -> bytes:
    """A patch of HSC's layout: image, mask with planes, variance."""
    rng = np.random.default_rng(1)
    planes = rng.normal(0, 1, (96, 96)), np.zeros((96, 96)), np.ones((96, 96))
    types = np.float32, np.int32, np.float32
    hdus = [
        fits.ImageHDU(plane.astype(type_), header=wcs()) for plane, type_ in zip(planes, types, strict=True)
    ]
    for number, name in enumerate(("BAD", "SAT", "INTRP", "NO_DATA")):
        hdus[1].header[f"HIERARCH MP_{name}"] = number
    primary = fits.PrimaryHDU()
    primary.header["FLUXMAG0"] = 10 ** (27 / 2.5)
    buffer = io.BytesIO()
    fits.HDUList([primary, *hdus]).writeto(buffer)
    return buffer.getvalue()


@functools.cache
def network_of_limits() -> bytes:
    """A bundle of a network of random weights, for 48 px in band g: a fraction within 0 to 1, and a flux with its magnitude."""
    torch.manual_seed(4)
    metadata = models.BundleMetadata(
        name="limits",
        version="0",
        architecture="sfnet",
        input=models.InputInfo(("g",), 48, 0.168, "ADU", 27.0),
        head=models.HeadInfo("gaussian"),
        parameters=(
            models.ParameterInfo("bt", "", "bulge-to-total ratio", "logit", scale=1.5, limits=(0.02, 0.98)),
            models.ParameterInfo("flux_njy", "nJy", "total flux", "ln", location=10.0, magnitude="mag"),
        ),
        dropout_rate=0.05,
        n_top_features=4,
    )
    return saved(models.script_of(Sfnet(1, 5, k=4, width=1 / 8, dropout_rate=0.05)), metadata)


N_OBJECTS = 4


def rows(n: int = N_OBJECTS) -> pa.Table:
    """Objects on the tile, with columns of some kinds."""
    return pa.table(
        {
            "object_id": np.arange(n) + 43158034708430849,
            "ra_deg": 150.0 + 1e-4 * np.arange(n),
            "dec_deg": 2.0 - 1e-4 * np.arange(n),
            "mag": np.linspace(20, 23, n),
            "kind": ["a", "b", None, "d"][:n],
        }
    )


def table_bytes(name: str, table: pa.Table | None = None) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        objects.write_table(f"{folder}/{name}", rows() if table is None else table)
        return Path(folder, name).read_bytes()


def given(toml: str = RUN_TOML, **more: bytes) -> dict[str, bytes]:
    """Return the files of a run; keywords name further ones, with ``__`` for a dot."""
    files = {
        "run.toml": toml.encode(),
        "tiles/calexp-HSC-G-9813-4,4.fits": calexp(),
        "objects.parquet": table_bytes("objects.parquet"),
        "net.pt": network(),
    }
    return files | {name.replace("__", "."): content for name, content in more.items()}


def as_list(name: str, *changes: Mutation) -> Input:
    """Return an object list as input: checked by itself, and as a run's."""
    toml = RUN_TOML.replace("objects.parquet", name) + "[objects.region]\ncircle_deg = [150, 2, 1]\n"
    toml = toml.replace("[objects]\n", '[objects]\nkeep = ["mag", "kind"]\nwhere = "mag < 30"\n')
    files = given(toml) | {name: table_bytes(name)}
    return Input(files, name, changes, ((*CHECK, name), (*CHECK, "run.toml"), PLAN))


# --- kinds of input --------------------------------------------------------------------------------------


@kind
def tile() -> Input:
    name = "tiles/calexp-HSC-G-9813-4,4.fits"
    return Input(given(), name, (mutations.damaged, mutations.other_cards, mutations.other_cards))


@kind
def stated_scale() -> Input:
    """The scale of the pixels, widths and thresholds as run.toml states them, for a network with bounded quantities."""
    text = RUN_TOML.replace('layout = "hsc"', 'layout = "generic"\nzero_point_mag = 27.0')
    text = text.replace(
        "[objects]\n", '[survey.generic]\nimage = 1\nweight = 3\nweight_kind = "variance"\n[objects]\n'
    )
    text += (
        "tolerance = 0.1\nquantiles = [0.1, 0.5, 0.9]\n[flags]\nlow_snr = 5.0\ncenter_radius_arcsec = 1.0\n"
    )
    changes = (mutations.other_words, mutations.other_numbers, mutations.other_numbers)
    files = given(text, net__pt=network_of_limits())
    return Input(files, "run.toml", changes, (RUN,), ("calexp-HSC-G-9813-4,4.fits",))


@kind
def extreme_pixels() -> Input:
    """Pixels that are damaged or of any size, before a network with bounded quantities."""
    name = "tiles/calexp-HSC-G-9813-4,4.fits"
    changes = (mutations.other_pixels, mutations.other_pixels, mutations.other_cards)
    return Input(given(net__pt=network_of_limits()), name, changes, (RUN,))


@kind
def compressed_tile() -> Input:
    """Rice-compressed, in layout generic, with a mask and an inverse variance."""
    toml = RUN_TOML.replace('layout = "hsc"', 'layout = "generic"').replace("tiles/*.fits", "tiles/*.fz")
    toml += '[survey.generic]\nimage = 1\nmask = 2\nmask_planes = {SAT = 1}\nweight = 3\nweight_kind = "inverse_variance"\nunit = "nJy"\n'
    rng = np.random.default_rng(1)
    planes = (
        rng.normal(0, 1, (96, 96)).astype(np.float32),
        np.zeros((96, 96), np.int32),
        np.ones((96, 96), np.float32),
    )
    hdus = [fits.CompImageHDU(plane, header=wcs(), compression_type="RICE_1") for plane in planes]
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(buffer)
    files = given(toml) | {"tiles/a.fits.fz": buffer.getvalue()}
    return Input(files, "tiles/a.fits.fz", (mutations.damaged, mutations.other_cards, mutations.other_cards))


@kind
def gzipped_tile() -> Input:
    name = "tiles/calexp-HSC-G-9813-4,4.fits"
    return Input(given() | {name: gzip.compress(calexp(), 1)}, name, (mutations.damaged,), (PLAN,))


@kind
def brick() -> Input:
    """A brick of the Legacy Surveys: image, inverse variance and mask bits in files of their own; the weight is changed."""
    image = np.random.default_rng(1).normal(0, 1, (96, 96)).astype(np.float32)
    planes = {"image-g": image, "invvar-g": np.ones_like(image), "maskbits": np.zeros((96, 96), np.int16)}
    toml = RUN_TOML.replace('layout = "hsc"', 'layout = "legacysurvey"').replace("tiles/*.fits", "coadd")
    files = given(toml)
    for plane, values in planes.items():
        primary = fits.PrimaryHDU()
        primary.header["BRICK"] = "1500p020"
        buffer = io.BytesIO()
        fits.HDUList([primary, fits.CompImageHDU(values, header=wcs(), compression_type="RICE_1")]).writeto(
            buffer
        )
        files[f"coadd/150/1500p020/legacysurvey-1500p020-{plane}.fits.fz"] = buffer.getvalue()
    name = "coadd/150/1500p020/legacysurvey-1500p020-invvar-g.fits.fz"
    return Input(files, name, (mutations.damaged, mutations.other_cards, mutations.other_cards))


@kind
def stamp_catalog() -> Input:
    """Stamps without a WCS; the table of their positions is changed."""
    toml = RUN_TOML.replace('layout = "hsc"', 'layout = "stamps"\nzero_point_mag = 27.0').replace(
        "tiles/*.fits", "stamps"
    )
    toml += '[survey.stamps]\nband = "g"\npixel_scale_arcsec = 0.168\n'
    buffer = io.BytesIO()
    fits.PrimaryHDU(np.random.default_rng(1).normal(0, 1, (96, 96)).astype(np.float32)).writeto(buffer)
    table = pa.table({"file_name": ["a.fits"], "ra": [150.0], "dec": [2.0]})
    files = given(toml) | {
        "stamps/a.fits": buffer.getvalue(),
        "stamps/info.csv": table_bytes("info.csv", table),
    }
    changes = (mutations.damaged, mutations.other_words, mutations.other_words)
    return Input(files, "stamps/info.csv", changes, (PLAN,), ("a.fits",))


@kind
def hats_list() -> Input:
    """A HATS catalog of one pixel, whose only leaf is changed."""
    leaf = "hats/dataset/Norder=0/Dir=0/Npix=6.parquet"
    pixel = int(sky.pixel_of(sky.healpix_29([150.0], [2.0]), 0)[0])
    leaf = leaf.replace("Npix=6", f"Npix={pixel}")
    files = given(RUN_TOML.replace("objects.parquet", "hats"))
    files |= {leaf: table_bytes("a.parquet"), "hats/hats.properties": b"obs_collection=a\nhats_nrows=4\n"}
    changes = (mutations.damaged, mutations.other_columns, mutations.other_columns)
    return Input(files, leaf, changes, (PLAN, (*CHECK, "hats"), (*CHECK, "run.toml")), ("hats",))


@kind
def hdf5() -> Input:
    toml = RUN_TOML.replace('layout = "hsc"', 'layout = "galaxiesml"\nzero_point_mag = 27.0')
    toml = toml.replace("tiles/*.fits", "images.h5")
    toml += '[survey.galaxiesml]\nbands = ["g"]\n'
    buffer, table = io.BytesIO(), rows()
    with h5py.File(buffer, "w") as file:
        file["image"] = np.random.default_rng(1).normal(0, 1, (4, 1, 64, 64)).astype(np.float32)
        file["object_id"], file["ra"], file["dec"] = (
            table[name].to_numpy() for name in table.column_names[:3]
        )
    files = given(toml) | {"images.h5": buffer.getvalue()}
    return Input(files, "images.h5", (mutations.damaged, mutations.other_datasets, mutations.other_datasets))


@kind
def csv_list() -> Input:
    return as_list("list.csv", mutations.damaged, mutations.other_words, mutations.other_words)


@kind
def parquet_list() -> Input:
    return as_list("list.parquet", mutations.damaged, mutations.other_columns, mutations.other_columns)


@kind
def votable_list() -> Input:
    return as_list("list.vot", mutations.damaged, mutations.other_words)


@kind
def fits_list() -> Input:
    return as_list("list.fits", mutations.damaged, mutations.other_cards)


@kind
def tile_table() -> Input:
    path = "tiles/calexp-HSC-G-9813-4,4.fits"
    table = pa.table({"path": [path], "band": ["g"], "tile_id": ["9813/4,4"], "psf_fwhm_arcsec": [0.7]})
    files = given(RUN_TOML.replace("tiles/*.fits", "tiles.csv")) | {
        "tiles.csv": table_bytes("tiles.csv", table)
    }
    return Input(files, "tiles.csv", (mutations.damaged, mutations.other_words, mutations.other_words))


@kind
def tile_table_parquet() -> Input:
    path = "tiles/calexp-HSC-G-9813-4,4.fits"
    table = pa.table({"path": [path], "band": ["g"], "tile_id": ["9813/4,4"], "zero_point_mag": [27.0]})
    files = given(RUN_TOML.replace("tiles/*.fits", "t.parquet")) | {
        "t.parquet": table_bytes("t.parquet", table)
    }
    return Input(files, "t.parquet", (mutations.damaged, mutations.other_columns, mutations.other_columns))


@kind
def toml() -> Input:
    text = RUN_TOML + (
        '[flags]\nneighbor_radius_arcsec = 3.0\n[plan]\nmax_objects_per_partition = 20\nmax_bytes_per_partition = "1 GiB"\n'
        '[cutouts]\nplanes = ["image", "mask"]\n[catalog]\npath = "catalog"\n[cluster]\nworkers = 2\n'
    )
    text = text.replace(
        "[objects]\n",
        '[objects]\nwhere = "mag < 30"\nregion = { box_deg = [149, 151, 1, 3] }\nkeep = ["mag"]\n',
    )
    text = text.replace("[survey]\n", "[survey]\npsf_fwhm_arcsec = {g = 0.7}\nzero_point_mag = 27.0\n")
    return Input(
        given(text),
        "run.toml",
        (mutations.damaged, mutations.other_words, mutations.other_words),
        (PLAN, (*CHECK, "run.toml")),
    )


@kind
def bundle() -> Input:
    commands = ((*SHOW, "net.pt"), (*SHOW, "net.pt", "--json"), PLAN)
    return Input(
        given(), "net.pt", (mutations.damaged, mutations.other_metadata, mutations.other_metadata), commands
    )


@kind
def moc() -> Input:
    files = given(RUN_TOML + '[objects.region]\nmoc = "a.moc"\n')
    files["a.moc"] = MOC.from_string("3/0-767", format="ascii").serialize(format="str").encode()
    return Input(files, "a.moc", (mutations.damaged, mutations.other_words), ((*CHECK, "run.toml"), PLAN))

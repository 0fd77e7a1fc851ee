"""A small survey of known galaxies on disk, in the files of any survey that galbatch reads."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch import storage
from galbatch.errors import ConfigError, OutputError
from galbatch.objects import write_parquet
from galbatch.simulation.defects import Planes, bits
from galbatch.simulation.field import CELL_PX, Box
from galbatch.simulation.population import require_population
from galbatch.simulation.processes import map_in_processes
from galbatch.simulation.scene import GALAXIES_PER_STRAY, Scene, draw_scene, draw_tile, psf_map
from galbatch.simulation.writers import WRITERS, Drawn, GalaxiesMlWriter, LayoutWriter

__all__ = ["SimulatedSurvey", "simulate_survey"]

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

REDSHIFTS = (0.05, 0.25)
OBJECTS_PER_TASK = 100  # stamps drawn by a process at a time


@dataclass(frozen=True, slots=True)
class SimulatedSurvey:
    """The files of a simulated survey: paths, and numbers of tiles and objects.

    `tiles` is a glob for ``[survey] tiles``; `n_listed` counts the rows of the list, `n_objects` the
    galaxies, which are the rows of the truth; `run_toml` is what run.toml says of the survey and its objects.
    """

    tiles: str
    objects: str
    truth: str
    bands: tuple[str, ...]
    n_tiles: int
    n_listed: int
    n_objects: int
    run_toml: str


def simulate_survey(
    out: str,
    *,
    n_objects: int = 2000,
    patches: int = 4,
    bands: Sequence[str] = ("g", "r"),
    population: str = "paper",
    layout: str = "hsc",
    seed: int = 1,
    processes: int | None = None,
) -> SimulatedSurvey:
    """Simulate a survey with known truth: tiles or stamps, an object list and the truth.

    Of the population ``paper`` each galaxy has a cell of 100 x 100 px to itself; its light is cut off at the cell's
    edge, so no galaxy reaches into another's 96 px cutout, as in the paper's isolated stamps; noise is
    independent from pixel to pixel. Of ``survey`` the list has the galaxies with 16 < i < 23 (10.3 per arcmin^2); they,
    galaxies down to i = 25.5 and stars lie at random and overlap; noise is correlated (noise.py), and the robust sigma of the
    background is 1.12 times what the variance plane implies, as in HSC's coadds.

    Patches overlap by 100 px, share the tract's TAN WCS and agree there pixel by pixel, noise included
    (legacysurvey: each brick has its own WCS and noise). The PSF varies smoothly over the field. Saturated stars, bad
    columns, cosmic rays and a corner without data make the flags fire for a few
    percent. Besides `n_objects` galaxies the list has some at the very edge (true galaxies, in the truth
    too), entries outside the footprint and second entries for a galaxy (not in the truth).

    Written again with the same arguments, the files come out the same: a call after an
    interrupted one completes it.

    Parameters
    ----------
    out
        Folder or s3:// prefix: gets the tiles as the layout names them
        (hsc: ``deepCoadd-results/HSC-<B>/9813/<x,y>/calexp-HSC-<B>-9813-<x,y>.fits``),
        ``objects.parquet`` (object_id, ra_deg, dec_deg, z_best) and ``truth.parquet`` (as
        `draw_population`, with ra_deg, dec_deg and psf_fwhm_<band>_arcsec).
    n_objects
        Galaxies wholly inside the footprint.
    patches
        Patches of the tract, in a rectangle as near to a square as their number allows.
    bands
        Out of g, r, i.
    population
        ``paper`` or ``survey``, see `draw_population`.
    layout
        ``hsc`` and ``generic`` (0.168 arcsec per pixel), ``lsst`` (0.2), ``legacysurvey`` (0.262): patches or bricks;
        ``stamps`` (128 px) and ``galaxiesml`` (127 px; one HDF5 file, made in memory): a stamp for each galaxy.
    seed
        The same seed gives the same survey, whatever `processes`.
    processes
        Worker processes; None: one a core. They are spawned: call this under
        ``if __name__ == "__main__"`` in a script of your own, or with 1.

    Raises
    ------
    OutputError
        `out` holds tiles of another survey, or cannot be written.
    ConfigError
        A band without colors, none or one twice; another population or layout.
    """
    require_population(population)
    if not bands or len(set(bands)) < len(bands):
        raise ConfigError(f"bands {list(bands)}: state one or more, each once")
    if layout not in WRITERS:
        raise ConfigError(f"layout {layout!r} is none that is simulated; there are {', '.join(WRITERS)}")
    files = WRITERS[layout]
    scene = draw_scene(
        n_objects,
        patches,
        tuple(bands),
        population=population,
        seed=seed,
        pixel_scale_arcsec=files.pixel_scale_arcsec,
    )
    scene = replace(scene, own_wcs=not files.shares_lattice)
    folder, objects, truth = (
        storage.join(out, name) for name in (files.folder, "objects.parquet", "truth.parquet")
    )
    listed = _object_list(scene)
    storage.check_writable(out)
    _refuse_foreign_tiles(scene, files, folder)
    n_tiles = _write_tiles(scene, layout, folder, processes=processes or os.cpu_count() or 1, listed=listed)
    write_parquet(truth, scene.truth)
    write_parquet(objects, listed)
    pattern = storage.join(folder, files.tiles)
    quoted = ", ".join(f'"{band}"' for band in scene.bands)
    run_toml = (
        f'[survey]\nlayout = "{layout}"\ntiles = "{pattern}"\nbands = [{quoted}]\n{files.toml(scene.bands)}'
        f'\n[objects]\npath = "{objects}"\n'
    )
    return SimulatedSurvey(
        pattern,
        objects,
        truth,
        scene.bands,
        n_tiles,
        n_listed=len(listed),
        n_objects=len(scene.truth),
        run_toml=run_toml,
    )


def _object_list(scene: Scene) -> pa.Table:
    """The survey's list: all galaxies, entries outside the footprint, second entries for a galaxy."""
    rng = np.random.default_rng([scene.seed, 5])
    n_stray = max(2, len(scene.truth) // GALAXIES_PER_STRAY)
    height, width = scene.field.box.shape_px
    outside = rng.uniform((1.02 * width, 0), (1.05 * width + CELL_PX, height), (n_stray, 2))
    outside[0] = width - 20, height - 20  # in the corner without data
    # Shreds, as deblenders make them: 1.5 arcsec off the galaxy's own entry; the first 0.1 arcsec off.
    distance_px = np.where(np.arange(n_stray) == 0, 0.1, 1.5) / scene.field.pixel_scale_arcsec
    shreds = scene.position_px[:n_stray] + np.stack([distance_px, np.zeros(n_stray)], axis=1)
    position = np.concatenate([scene.position_px, outside, shreds])
    ra_dec = scene.field.wcs(scene.field.box).all_pix2world(position, 0)
    first = scene.truth["object_id"][0].as_py()
    columns = {
        "object_id": first + np.arange(len(position), dtype=np.int64),
        "ra_deg": ra_dec[:, 0],
        "dec_deg": ra_dec[:, 1],
        "z_best": rng.uniform(*REDSHIFTS, len(position)),
    }
    return pa.table(columns)


# --- writing ---------------------------------------------------------------------------------------------------------


def _refuse_foreign_tiles(scene: Scene, files: LayoutWriter, folder: str) -> None:
    """Tiles of another survey would stay between ours and be read with them."""
    ours = {path for name in _names(scene, files) for path in files.paths(name, scene.bands)}
    if foreign := [path for path in storage.list_files(folder, suffix=files.suffix) if path not in ours]:
        raise OutputError(
            f"{folder}: holds {len(foreign)} tiles of another survey ({foreign[0]}); "
            "choose another folder or remove it"
        )


def _names(scene: Scene, files: LayoutWriter) -> list[str]:
    """Tiles, by the patch or the object that each shows."""
    if files.stamp_px is not None:
        return [str(number) for number in scene.truth["object_id"].to_pylist()]
    return [patch.name for patch in scene.field.patches()]


def _write_tiles(scene: Scene, layout: str, folder: str, *, processes: int, listed: pa.Table) -> int:
    """Draw and write everything; the number of files."""
    writer = WRITERS[layout]
    if writer.stamp_px is None:
        tasks = [
            (scene.near(patch.box), patch.name, patch.box, layout, folder) for patch in scene.field.patches()
        ]
        return sum(map_in_processes(_write_patch, tasks, processes))
    rows = range(0, len(scene.truth), OBJECTS_PER_TASK)
    # Each galaxy's nearest pixel is the central one of its stamp.
    size_px = writer.stamp_px
    corners = np.rint(scene.position_px).astype(np.int64) - size_px // 2
    boxes = [Box(x, y, x + size_px, y + size_px) for x, y in corners.tolist()]
    names = _names(scene, writer)
    stamps = [
        (scene, names[row : row + OBJECTS_PER_TASK], boxes[row : row + OBJECTS_PER_TASK], layout, folder)
        for row in rows
    ]
    if not isinstance(writer, GalaxiesMlWriter):
        return sum(map_in_processes(_write_stamps, stamps, processes))
    images = np.concatenate(list(map_in_processes(_stamp_images, stamps, processes)))
    places = np.stack([scene.truth[name].to_numpy() for name in ("ra_deg", "dec_deg")], axis=1)
    redshift = listed["z_best"].to_numpy()[: len(places)]  # the list begins with the galaxies of the truth
    content = writer.encode_all(images, scene.truth["object_id"].to_numpy(), places, redshift)
    storage.publish(storage.join(folder, writer.tiles), content)
    return 1


def _write_patch(scene: Scene, name: str, box: Box, layout: str, folder: str) -> int:
    drawn = Drawn(name, scene.bands, draw_tile(scene, box), scene.wcs(box), psf_map(scene, box))
    return _publish(WRITERS[layout].encode(drawn), folder)


def _write_stamps(scene: Scene, names: Sequence[str], boxes: Sequence[Box], layout: str, folder: str) -> int:
    drawn = (_stamp(scene, name, box) for name, box in zip(names, boxes, strict=True))
    return sum(_publish(WRITERS[layout].encode(stamp), folder) for stamp in drawn)


def _publish(contents: dict[str, bytes], folder: str) -> int:
    for path, content in contents.items():
        storage.publish(storage.join(folder, path), content)
        log.info("%s written", storage.join(folder, path))
    return len(contents)


def _stamp_images(
    scene: Scene, names: Sequence[str], boxes: Sequence[Box], layout: str, folder: str
) -> npt.NDArray[np.float32]:
    """(object, band, y, x), in the file's unit."""
    shape = (len(scene.bands), *boxes[0].shape_px)
    pieces = []
    for name, box in zip(names, boxes, strict=True):
        (piece,) = WRITERS[layout].encode(_stamp(scene, name, box)).values()
        pieces.append(np.frombuffer(piece, np.float32).reshape(shape))
    return np.stack(pieces)


def _stamp(scene: Scene, name: str, box: Box) -> Drawn:
    """A stamp of the field; without data beyond the field's edges."""
    # Two pixels more on each side: a bad column is interpolated from its neighbors.
    wide = Box(box.x0 - 2, box.y0 - 2, box.x1 + 2, box.y1 + 2).overlap(scene.field.box)
    assert wide is not None
    inside = box.overlap(wide)
    assert inside is not None
    here, there = inside.slices(box), inside.slices(wide)
    stamp = []
    for drawn in draw_tile(scene, wide):
        image, variance = (np.full(box.shape_px, np.nan, np.float32) for _ in range(2))
        mask = np.full(box.shape_px, bits("NO_DATA"), np.int32)
        image[here], mask[here], variance[here] = drawn.image[there], drawn.mask[there], drawn.variance[there]
        stamp.append(Planes(box, image, mask, variance))
    x, y = (box.x0 + box.x1) // 2, (box.y0 + box.y1) // 2
    middle = Box(x, y, x + 1, y + 1)
    return Drawn(name, scene.bands, stamp, scene.wcs(box), psf_map(scene, middle, nodes=1))

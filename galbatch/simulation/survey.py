"""Simulated surveys on disk, in the file formats of the surveys that galbatch reads."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch import storage
from galbatch.core.process import require
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
OBJECTS_PER_TASK = 100  # Stamps per task of a process.


@dataclass(frozen=True, slots=True)
class SimulatedSurvey:
    """The files of a simulated survey.

    Attributes
    ----------
    tiles : str
        Glob of the tiles, for ``[survey] tiles`` in run.toml.
    objects, truth : str
        Paths of the object list and of the truth table.
    bands : tuple of str
    n_tiles : int
        Number of files of tiles or stamps.
    n_listed : int
        Number of rows in the object list.
    n_objects : int
        Number of galaxies, which are the rows of the truth table.
    run_toml : str
        The sections [survey] and [objects] of a run.toml for this survey.
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
    """Simulate a survey with known truth, and write its tiles or stamps, an object list and the truth table.

    In the population ``paper`` each galaxy is alone in a cell of 100 x 100 px. Its light is cut off at the cell's edge, so
    that no galaxy reaches into the 96 px cutout of another, like the isolated stamps of the paper. The noise is
    independent between pixels. In ``survey`` the object list has the galaxies with 16 < i < 23 (10.3 per arcmin^2). They,
    galaxies to i = 25.5 and stars are at random positions and overlap. The noise is correlated (noise.py), and the robust
    sigma of the background is 1.12 times the value that the variance plane implies, as in coadds of HSC.

    Patches overlap by 100 px, share the TAN WCS of the tract, and agree in the common pixels, including the noise. Bricks
    of ``legacysurvey`` have their own WCS and noise. The PSF varies smoothly over the field. Saturated stars, bad columns,
    cosmic rays and a corner without data set flags for a few percent of the galaxies. Besides `n_objects` galaxies the
    object list has galaxies at the edge of the field, which are also in the truth table, and entries outside the footprint
    and repeated entries for a galaxy, which are not.

    The same arguments always give the same files, so a repeated call completes an interrupted one.

    Parameters
    ----------
    out : str
        Local folder or ``s3://`` prefix for the tiles in the layout's folders
        (hsc: ``deepCoadd-results/HSC-<B>/9813/<x,y>/calexp-HSC-<B>-9813-<x,y>.fits``),
        ``objects.parquet`` (object_id, ra_deg, dec_deg, z_best), and ``truth.parquet`` (the columns of
        `draw_population`, ra_deg, dec_deg and psf_fwhm_<band>_arcsec).
    n_objects : int
        Number of galaxies whose cutouts are inside the footprint.
    patches : int
        Number of patches of the tract, in a rectangle that is nearly square.
    bands : sequence of str
        Out of g, r, i.
    population : str
        ``paper`` or ``survey``, see `draw_population`.
    layout : str
        ``hsc`` and ``generic`` (0.168 arcsec per pixel), ``lsst`` (0.2), ``legacysurvey`` (0.262): patches or bricks;
        ``stamps`` (128 px) and ``galaxiesml`` (127 px; one HDF5 file, made in memory): a stamp for each galaxy.
    seed : int
        The same seed gives the same survey for any number of processes.
    processes : int or None
        Number of worker processes; None for one per core. They are spawned: in a script call this function under
        ``if __name__ == "__main__"``, or with 1.

    Raises
    ------
    OutputError
        `out` has tiles of another survey, or cannot be written.
    ConfigError
        There is no band, a band is repeated or not one of g, r, i, or the population or layout is unknown.
    MissingPackage
        The layout is HDF5, and h5py is not installed.
    """
    require_population(population)
    if not bands or len(set(bands)) < len(bands):
        raise ConfigError(f"bands {list(bands)}: give one or more, each once")
    files = _writer_of(layout)
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
    # Checked before the tiles are drawn, which takes most of the time.
    storage.check_writable(out)
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
    """Return the object list: all galaxies, then entries outside the footprint, then repeated entries for a galaxy."""
    rng = np.random.default_rng([scene.seed, 5])
    n_stray = max(2, len(scene.truth) // GALAXIES_PER_STRAY)
    height, width = scene.field.box.shape_px
    outside = rng.uniform((1.02 * width, 0), (1.05 * width + CELL_PX, height), (n_stray, 2))
    outside[0] = width - 20, height - 20  # Inside the field, but in the corner without data.
    # Repeated entries are like shreds of a deblender: the first is 0.1 arcsec from the galaxy, within the limit of
    # DUPLICATE_POSITION, the others 1.5 arcsec, which sets NEIGHBOR.
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


def _names(scene: Scene, files: LayoutWriter) -> list[str]:
    """Return the names of all tiles: those of the patches, or for stamps the ids of the objects."""
    if files.stamp_px is not None:
        return [str(number) for number in scene.truth["object_id"].to_pylist()]
    return [patch.name for patch in scene.field.patches()]


def _writer_of(layout: str) -> LayoutWriter:
    """Return the writer of a layout, or raise the errors of `simulate_survey`."""
    if layout not in WRITERS:
        raise ConfigError(f"layout {layout!r} cannot be simulated; expected one of {', '.join(WRITERS)}")
    files = WRITERS[layout]
    if isinstance(files, GalaxiesMlWriter):
        require("h5py", where=f"layout {layout}")
    return files


def _write_tiles(scene: Scene, layout: str, folder: str, *, processes: int, listed: pa.Table) -> int:
    """Draw and write all tiles or stamps, and return the number of files.

    Raises
    ------
    OutputError
        The folder has tiles of another survey.
    """
    writer = WRITERS[layout]
    # Tiles of another survey would remain between the new ones, and be read with them.
    own = {path for name in _names(scene, writer) for path in writer.paths(name, scene.bands)}
    if foreign := [path for path in storage.list_files(folder, suffix=writer.suffix) if path not in own]:
        raise OutputError(
            f"{folder}: holds {len(foreign)} tiles of another survey ({foreign[0]}); "
            "choose another folder or remove it"
        )
    if writer.stamp_px is None:
        tasks = [
            (scene.near(patch.box), patch.name, patch.box, layout, folder) for patch in scene.field.patches()
        ]
        return sum(map_in_processes(_write_patch, tasks, processes))
    rows = range(0, len(scene.truth), OBJECTS_PER_TASK)
    # The central pixel of a stamp is the one nearest to its galaxy.
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
    redshift = listed["z_best"].to_numpy()[: len(places)]  # The list begins with the galaxies of the truth.
    content = writer.encode_all(images, scene.truth["object_id"].to_numpy(), places, redshift)
    storage.publish(storage.join(folder, writer.tiles), content)
    return 1


# The layout crosses to other processes by its name, and the writer is looked up there.
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
    """Draw one stamp of the simulated field about each object.

    Parameters
    ----------
    scene : the simulated field
    names : one name an object, as the layout's files have them
    boxes : the pixels of the field that each object's stamp shows, all of one shape
    layout : layout of the files, which decides the unit of the pixels
    folder : folder of the process's outputs; nothing is written here

    Returns
    -------
    (object, band, y, x) float32 in the unit that files of this layout have
    """
    shape = (len(scene.bands), *boxes[0].shape_px)
    pieces = []
    for name, box in zip(names, boxes, strict=True):
        (piece,) = WRITERS[layout].encode(_stamp(scene, name, box)).values()
        pieces.append(np.frombuffer(piece, np.float32).reshape(shape))
    return np.stack(pieces)


def _stamp(scene: Scene, name: str, box: Box) -> Drawn:
    """Return a stamp of the field, which has no data outside the field."""
    # A margin of two pixels on each side, because a bad column at the edge is interpolated from its neighbors.
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

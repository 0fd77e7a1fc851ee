"""Where in the cutouts the features of a sparse network (SFNet) fire: pictures of the objects in which they are strongest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch import api, catalog, models
from galbatch.core.types import Grid
from galbatch.errors import UsageError
from galbatch.reporting.contents import Contents
from galbatch.reporting.marks import marks_svg
from galbatch.reporting.networks.features import FeatureSummary

__all__ = ["FiringPicture", "bundle_files", "firing_pictures"]

Floats = npt.NDArray[np.float64]

MOST_SHOWN = 6
"""Number of features that get pictures, the most frequent first: each is a row of the page."""

TOLERANCE = 0.05
"""Relative difference from the catalog's activation up to which a map is of the same pixels: engines of lower precision differ by about 0.01."""

# Vermilion (Okabe & Ito 2008), which also those see who do not see red and green apart.
HEAT_RGB = np.array([213.0, 94.0, 0.0]) / 255.0
STRONGEST_TINT = 0.75

# Keeps the division defined where a map is 0 everywhere.
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class FiringPicture:
    """Where one feature fires in the cutout of one object.

    Attributes
    ----------
    feature : int
        Number of the feature in the network.
    object_id : int or str
    activation : float
        Mean of the feature's map in the last convolution.
    distance_arcsec : float
        Distance from the cutout's center to the pixel at which the map is largest.
    cutout_png, map_png : bytes
        The cutout in colors, and in gray with the map over it in vermilion.
    marks : str
        SVG of scale bar and directions.
    """

    feature: int
    object_id: int | str
    activation: float
    distance_arcsec: float
    cutout_png: bytes
    map_png: bytes
    marks: str


def bundle_files(contents: Contents, given: Mapping[str, str]) -> dict[str, str]:
    """Return the path of the bundle of each network that is known here: the given ones, and those that are shipped with galbatch.

    Parameters
    ----------
    contents : Contents
        The catalog, whose properties state the sha256 of its bundles.
    given : mapping of model to path

    Raises
    ------
    UsageError
        A given file is not the bundle of that network in the catalog, or the catalog has no such network.
    """
    shipped = [models.bundle_path(name) for name in models.demo_bundles()]
    hashes = {models.read_bundle_metadata(path)[1]: path for path in shipped}
    # Features are those of the first bundle of an ensemble. A network of cases has no bundle of its own.
    stated = {
        model: contents.properties.get(catalog.model_property("bundle", model), "").split(", ")[0]
        for model in contents.model_flags
    }
    for model, path in given.items():
        if not stated.get(model):
            known = ", ".join(name for name, sha256 in stated.items() if sha256) or "none"
            raise UsageError(
                f"--bundle {model}: not a network with one bundle in {contents.path}, which has {known}"
            )
        if (found := models.read_bundle_metadata(path)[1]) != stated[model]:
            raise UsageError(
                f"--bundle {model}={path}: its sha256 is {found}, that of the bundle in {contents.path} is {stated[model]}; "
                "give the file that the catalog was made with"
            )
    files = {model: hashes[sha256] for model, sha256 in stated.items() if sha256 in hashes}
    return files | dict(given)


def firing_pictures(
    contents: Contents, summary: FeatureSummary, *, model: str, store: str, bundle: str
) -> list[FiringPicture]:
    """Return pictures of the objects in which the `MOST_SHOWN` most frequent features of a network are strongest.

    Parameters
    ----------
    contents : Contents
    summary : FeatureSummary
        Of the network's features.
    model : str
        Name of the network.
    store : str
        Cutout store of the catalog.
    bundle : str
        Path of the network's bundle. Its script is loaded, and run on these objects.

    Raises
    ------
    UsageError
        The store has no cutout of an object on the network's grid, the bundle gives no maps, or the network took other pixels than
        these: its activations are not those of the catalog.
    """
    chosen = [
        (int(number), row)
        for number, rows in zip(summary.number[:MOST_SHOWN], summary.strongest[:MOST_SHOWN], strict=True)
        for row in rows[rows >= 0].tolist()
    ]
    network = models.load_bundle(bundle, keep=False)
    taken = network.metadata.input
    if taken.auxiliary_inputs or taken.more_grids:
        raise UsageError(f"{model} takes more than the cutouts of one grid, and its maps are not made here")
    grid = Grid(taken.size_px, taken.pixel_scale_arcsec)
    cutouts = _cutouts_of(contents, store, grid, [row for _, row in chosen])
    images = np.stack(
        [one.image[_channels(one.bands, taken.bands)] for one in cutouts]
    )  # (object, band, y, x)
    found = models.localize(network, images, index=np.array([[number] for number, _ in chosen]))
    _require_same_activations(contents, model, found, [row for _, row in chosen])
    off_center = np.hypot(*(found.peak_px()[:, 0] - grid.size_px // 2).T) * grid.pixel_scale_arcsec
    return [
        FiringPicture(
            number,
            one.object_id,
            float(activation),
            float(distance),
            api.encoded_png(api.color_picture(one)),
            api.encoded_png(_tinted(api.color_picture(one), heat)),
            marks_svg(grid.size_px, np.asarray(one.wcs.wcs.cd)),
        )
        for (number, _), one, activation, distance, heat in zip(
            chosen, cutouts, found.activation[:, 0], off_center, found.on_image()[:, 0], strict=True
        )
    ]


def _cutouts_of(contents: Contents, store: str, grid: Grid, rows: Sequence[int]) -> list[api.Cutout]:
    found = catalog.find_objects(contents.path, [str(contents.object_id[row]) for row in rows])
    by_id: dict[object, api.Cutout | None] = {
        one.object_id: api.read_cutout(store, one.pixel, one.object_id, [grid]) for one in found
    }
    cutouts = [by_id[contents.object_id[row]] for row in rows]
    there = [one for one in cutouts if one is not None]
    if len(there) < len(cutouts):
        raise UsageError(
            f"{store} has no cutouts of {grid.size_px} px of {grid.pixel_scale_arcsec:g} arcsec of "
            f"{len(cutouts) - len(there)} of the {len(cutouts)} objects"
        )
    return there


def _channels(stored: Sequence[str], taken: Sequence[str]) -> list[int]:
    """Return where the bands that a network takes stand in a store: by their names, or in the same order where the survey calls them otherwise."""
    if set(taken) <= set(stored):
        return [stored.index(name) for name in taken]
    if len(stored) == len(taken):
        return list(range(len(stored)))
    raise UsageError(f"the store has the bands {', '.join(stored)}, the network takes {', '.join(taken)}")


def _require_same_activations(
    contents: Contents, model: str, found: models.FeatureMaps, rows: Sequence[int]
) -> None:
    """Refuse maps of other pixels than the run's: of other bands, or that the run corrected for extinction."""
    features = contents.features[model]
    is_it = features.index[rows] == found.index  # (object, rank)
    stated = features.activation[rows][is_it]
    differs = np.abs(found.activation[:, 0] - stated) > TOLERANCE * stated
    if differs.any():
        raise UsageError(
            f"{int(differs.sum())} of {len(rows)} activations differ by more than {TOLERANCE:.0%} from the catalog's: "
            "the network took other pixels than the store's"
        )


def _tinted(picture: Floats, heat: npt.NDArray[np.float32]) -> Floats:
    """Return an RGB image in gray, tinted by as much as a map (y, x) is near its largest value."""
    share = np.clip(heat / max(float(heat.max()), SMALLEST), 0, 1)[..., None]
    tint = STRONGEST_TINT * share.astype(np.float64)
    return (1 - tint) * picture.mean(axis=-1, keepdims=True) + tint * HEAT_RGB

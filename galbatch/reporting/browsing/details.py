"""One object as HTML: its cutout in all bands, its values with intervals, its flags with their texts, and the corner of its posterior."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import escape

import numpy as np
from astropy.table import QTable

from galbatch import api
from galbatch.core.columns import ID
from galbatch.core.texts import counted, html_table
from galbatch.errors import GalbatchError
from galbatch.reporting.cards import embedded
from galbatch.reporting.corner import corner_picture
from galbatch.reporting.marks import marks_svg

__all__ = ["corner_html", "object_html", "similar_html"]

N_SIMILAR = 7
"""Neighbors that are shown: a row of pictures."""

N_DRAWS = 4_000
"""Draws of a corner plot: its contours are smooth, and it takes a second."""


def object_html(one: api.CatalogObject, store: str) -> str:
    """Return the panel of an object but for its posterior: pictures, values and flags.

    Parameters
    ----------
    one : galbatch.api.CatalogObject
    store : str
        Cutout store. Where it has no cutout of the object, the panel says why.
    """
    values = one.values
    place = (
        f"{api.sexagesimal(values.ra_deg, values.dec_deg)} · {values.ra_deg:.6f} {values.dec_deg:+.6f} deg"
    )
    return "".join(
        [
            f'<h2 data-name="id">{escape(str(values.object_id))}</h2><p class="soft">{place}</p>',
            _pictures_html(one, store),
            _flags_html("Pixels and list", values.flags),
            *(_model_html(model) for model in values.models),
            _kept_html(values.kept),
        ]
    )


def corner_html(catalog_path: str, object_id: int | str) -> str:
    """Return the corner plot of each network's joint draws as HTML, or the reason why there is none."""
    try:
        results = api.draw(catalog_path, [str(object_id)], api.Request(N_DRAWS))
        pictures = [
            f'<figure><img class="corner" alt="Posterior of {escape(one.model)}" src="{embedded(corner_picture(one, "png"))}"></figure>'
            for one in results
            if isinstance(one, api.Drawn)
        ]
    except GalbatchError as error:
        return f'<h3>Posterior</h3><p class="soft">{escape(str(error))}</p>'
    reasons = [
        f'<p class="soft">{escape(f"{one.model}: {one.reason}")}</p>'
        for one in results
        if isinstance(one, api.NoDraws)
    ]
    return f'<h3>Posterior</h3><div class="corners">{"".join(pictures)}</div>{"".join(reasons)}'


def similar_html(found: QTable, catalog_path: str, store: str) -> str:
    """Return pictures of neighbors in an embedding with their distances, as `galbatch.api.Catalog.similar` returns them; ids without a store."""
    try:
        cutouts = api.find_cutouts(catalog_path, store, [str(one) for one in found[ID.name]])
        pictures = [
            f'<div class="picture"><img alt="Cutout of object {escape(str(one.object_id))}" src="{embedded(api.picture_png(one))}"></div>'
            for one in cutouts
        ]
    except GalbatchError:
        pictures = [""] * len(found)
    figures = [
        f"<figure>{picture}<figcaption>{escape(str(row[ID.name]))}<br>distance {float(row['distance']):.3g}</figcaption></figure>"
        for picture, row in zip(pictures, found, strict=True)
    ]
    return f'<div class="pictures">{"".join(figures)}</div>'


def _pictures_html(one: api.CatalogObject, store: str) -> str:
    try:
        cutout = api.find_cutouts(one.catalog_path, store, [str(one.id)])[0]
    except GalbatchError as error:
        return f'<p class="soft">{escape(str(error))}</p>'
    marks = marks_svg(cutout.image.shape[-1], np.asarray(cutout.wcs.wcs.cd))
    figures = [
        f'<figure><div class="picture"><img alt="Cutout, {escape(name)}" src="{embedded(png)}">{marks}</div><figcaption>{escape(name)}</figcaption></figure>'
        for name, png in _pictures(cutout)
    ]
    return f'<div class="pictures">{"".join(figures)}</div>'


def _pictures(cutout: api.Cutout) -> Iterator[tuple[str, bytes]]:
    """Yield name and PNG: all bands as colors where there are several, then each band in gray."""
    if len(cutout.bands) > 1:
        yield f"{', '.join(api.color_bands(cutout.bands))} as red to blue", api.picture_png(cutout)
    for index, band in enumerate(cutout.bands):
        only = slice(index, index + 1)
        gray = replace(
            cutout, bands=(band,), image=cutout.image[only], sky_sigma_njy=cutout.sky_sigma_njy[only]
        )
        yield band, api.picture_png(gray)


def _model_html(model: api.ModelValues) -> str:
    error = "" if model.mc_error is None else f", Monte Carlo error {model.mc_error:.2g} posterior std"
    table = html_table(model.quantities.columns, model.quantities.rows) if model.quantities.rows else ""
    labels = "".join(f"<p>{escape(f'{quantity}: {label}')}</p>" for quantity, label in model.labels)
    passes = counted(model.n_passes, "pass", "passes")
    return (
        f'<h3>{escape(model.model)}</h3><p class="soft">{passes}{error}</p>{table}{labels}'
        f"{_flags_html('', model.flags)}"
    )


def _flags_html(title: str, flags: Sequence[api.FlagText]) -> str:
    """Return the flags that are set with their texts; a line that there is none."""
    head = f"<h3>{title}</h3>" if title else ""
    if not flags:
        return f'{head}<p class="soft">no flag</p>'
    items = [f'<li><b class="{flag.flag_class}">{flag.name}</b> {escape(flag.text)}</li>' for flag in flags]
    return f'{head}<ul class="flags">{"".join(items)}</ul>'


def _kept_html(kept: Sequence[tuple[str, object, str]]) -> str:
    rows = [(name, f"{value:g}" if isinstance(value, float) else value, unit) for name, value, unit in kept]
    return f"<h3>Kept columns</h3>{html_table(('column', 'value', 'unit'), rows)}" if rows else ""

"""Texts of a release: a paragraph on how the values were made, and what to cite, from the catalog's properties alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from galbatch import __version__, catalog
from galbatch.core.texts import counted

__all__ = ["citations", "methods"]

CITED = {
    "hsc": "Hyper Suprime-Cam Subaru Strategic Program, PDR3: Aihara et al. 2022, PASJ 74, 247 (2022PASJ...74..247A, arXiv:2108.13045); "
    "for another release, its own paper",
    "legacysurvey": "DESI Legacy Imaging Surveys: Dey et al. 2019, AJ 157, 168 (2019AJ....157..168D, doi:10.3847/1538-3881/ab089d)",
    "galaxiesml": "GalaxiesML: Do et al. 2024, arXiv:2410.00271, data doi:10.5281/zenodo.11117528; its pixels are those of HSC-SSP, PDR2",
}
"""The works to cite for the pixels of a layout; for others the survey's own page says it."""

SOFTWARE = (
    "HATS: the catalog's format, https://hats.readthedocs.io",
    "Monte Carlo dropout: Gal and Ghahramani 2016, Proceedings of the 33rd ICML, 1050",
)


def methods(properties: Mapping[str, str], models: Sequence[str], columns: int) -> str:
    """Return a paragraph for the methods section of a paper.

    Parameters
    ----------
    properties : mapping of str to str
        The catalog's properties.
    models : sequence of str
        Names of its networks.
    columns : int
        Number of its columns.
    """

    def known(key: str) -> str:
        return properties.get(f"galbatch_{key}", "").strip()

    passes = known("passes")
    how_many = (
        "as many as the stopping rule asks for"
        if passes == "adaptive"
        else counted(int(passes or 0), "pass", "passes")
    )
    tiles = (
        f"Images are of {known('release')}" if known("release") else "The release of the images is not stated"
    )
    background = f" with the background product {known('background')}" if known("background") else ""
    sentences = [
        f"The catalog has {properties['hats_nrows']} objects in {columns} columns, made with galbatch "
        f"{known('version') or __version__}.",
        f"{tiles}{background}.",
        f"Posteriors come from Monte Carlo dropout of {counted(len(models), 'network')} ({', '.join(models)}): each object has "
        f"{how_many}, each a distribution of its own, which are pooled by the method {known('method')}; the random numbers "
        f"follow from the seed {known('seed')}, the network and the object's id.",
        *(
            f"{model} is the bundle with sha256 {known(f'bundle_{model}')}, run by the engine {known(f'engine_{model}')}."
            for model in models
        ),
        *(
            f"The posteriors of {model} are under the prior of its training, {prior}: medians of many objects are not their "
            "distribution."
            for model in models
            if (prior := properties.get(catalog.model_property("prior", model)))
        ),
        *(
            f"Audit of the stated Monte Carlo errors of {model}: {audit}."
            for model in models
            if (audit := properties.get(catalog.model_property("audit", model)))
        ),
    ]
    return " ".join(sentences) + "\n"


def citations(properties: Mapping[str, str], models: Sequence[str]) -> str:
    """Return what users of the catalog should cite, as a list in Markdown: the catalog, its data, its networks and the software."""
    stated = {
        key: properties.get(f"galbatch_{key}", "") for key in ("authors", "catalog_version", "doi", "bibcode")
    }
    own = ", ".join(value for value in (stated["authors"], properties["obs_collection"]) if value)
    own += f" {stated['catalog_version']}" if stated["catalog_version"] else ""
    own += "".join(f", {key} {stated[key]}" for key in ("doi", "bibcode") if stated[key])
    layouts = [word for word in properties.get("galbatch_layouts", "").split(", ") if word]
    data = [CITED.get(layout, f"the survey's own page (layout {layout})") for layout in layouts]
    data += [f"data release: {properties['galbatch_release']}"] if properties.get("galbatch_release") else []
    networks = [
        f"{model}: {properties.get(catalog.model_property('citation', model)) or 'its bundle states no citation'}"
        for model in models
    ]
    parts = {"The catalog": [own], "The data": data, "The networks": networks, "The software": list(SOFTWARE)}
    return "\n".join(
        line
        for title, items in parts.items()
        for line in (f"## {title}", "", *(f"- {item}" for item in items), "")
    )

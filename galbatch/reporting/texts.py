"""Texts of the report to copy: how to load the catalog, a paragraph on methods, citations."""

from __future__ import annotations

from galbatch.core.columns import MODEL_FLAGS, PIXEL_FLAGS
from galbatch.core.flags import FlagClass, ModelFlag, PixelFlag
from galbatch.reporting.contents import Contents

__all__ = ["CITATIONS", "loading_code", "methods_text"]

CITATIONS = """@inproceedings{Gal2016,
  author = {Gal, Yarin and Ghahramani, Zoubin},
  title = {Dropout as a {Bayesian} Approximation: Representing Model Uncertainty in Deep Learning},
  booktitle = {Proceedings of the 33rd International Conference on Machine Learning},
  year = {2016}, volume = {48}, pages = {1050--1059}
}
@article{Ghosh2022,
  author = {Ghosh, Aritra and others},
  title = {{GaMPEN}: A Machine Learning Framework for Estimating {Bayesian} Posteriors of Galaxy Morphological Parameters},
  journal = {The Astrophysical Journal},
  year = {2022}, volume = {935}, eid = {138},
  doi = {10.3847/1538-4357/ac7f9e}, eprint = {2207.05107}, archivePrefix = {arXiv}
}"""
"""BibTeX entries of the methods that every run uses; a network's own paper stands in its bundle (``galbatch models show``)."""


def loading_code(contents: Contents) -> str:
    """Return Python lines that open the catalog and keep its usable rows of the first network with values."""
    first = next(iter(contents.quantities), None)
    lines = ["import galbatch", "", f"catalog = galbatch.open_catalog({contents.path!r})"]
    lines += ["table = catalog.to_pandas()"]
    if first is not None:
        pixels = sum(int(flag) for flag in PixelFlag if flag.flag_class is FlagClass.QUALITY)
        model = sum(int(flag) for flag in ModelFlag if flag.flag_class is FlagClass.QUALITY)
        column, middle = MODEL_FLAGS.name(first.model), first.median_column
        lines += [
            "# Without the quality flags of the pixels and of the network:",
            f'fine = (table["{PIXEL_FLAGS.name}"] & {pixels} == 0) & (table["{column}"] & {model} == 0)',
            f'usable = table[fine & table["{middle}"].notna()]',
        ]
    return "\n".join(lines)


def methods_text(contents: Contents) -> str:
    """Return a paragraph for the section on methods of a paper, from the catalog's properties."""
    found = contents.properties
    networks = ", ".join(contents.model_flags)
    passes = found.get("galbatch_passes", "several")
    number = (
        "as many stochastic passes for each galaxy as its quantiles need (adaptive sampling)"
        if passes == "adaptive"
        else f"{passes} stochastic passes for each galaxy"
    )
    release = f" of {found['galbatch_release']}" if found.get("galbatch_release") else ""
    levels = ", ".join(f"{level:g}" for level in contents.quantities[0].levels) if contents.quantities else ""
    quantiles = f" We give the quantiles {levels} of each parameter." if levels else ""
    return (
        f"Posteriors of {len(contents):,} galaxies{release} were inferred with galbatch {found.get('galbatch_version', '')} "
        f"by the networks {networks}, with Monte Carlo dropout (Gal & Ghahramani 2016): {number}. The posterior of a galaxy is the mixture "
        f"of the distributions that its passes predict (Ghosh et al. 2022).{quantiles} Objects with a quality flag of the pixels or of the network "
        "were left out."
    )

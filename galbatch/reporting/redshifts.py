"""The report's section on photometric redshifts: z_phot against z_spec, the PIT, and the statistics of the field in bins."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes

from galbatch import catalog
from galbatch.api import density_columns
from galbatch.core.columns import ID, flag_columns
from galbatch.core.photoz import (
    HEADINGS,
    OUTLIER_LIMITS,
    RedshiftSample,
    equal_bins,
    measured_in_bins,
)
from galbatch.errors import UsageError
from galbatch.objects import numbers_of
from galbatch.reporting.cards import embedded
from galbatch.reporting.comparison.redshifts import densities_of, redshift_sample
from galbatch.reporting.contents import Contents, Quantity
from galbatch.reporting.figures import BLUE, GRAY, PANEL_INCHES, VERMILION, styled_figure
from galbatch.reporting.recovery import KNOWN_VALUES, Comparison

__all__ = ["RedshiftSection", "pit_shares", "redshift_panels", "redshift_sections"]

Floats = npt.NDArray[np.float64]

N_BINS = 5
N_PIT_BINS = 20
DENSE = 5000  # Beyond this number points hide each other, and the number per cell is drawn instead.


@dataclass(frozen=True)
class RedshiftSection:
    """The part of the report on one redshift.

    Attributes
    ----------
    quantity : the redshift
    n : number of objects
    has_densities : whether the catalog has the densities, so that PIT and scores are theirs
    figures : images as data URLs: z_phot against z_spec, and the PIT
    headings : headings of the statistics that are known
    rows : which objects, their number, and each statistic with its bootstrap error as text
    """

    quantity: Quantity
    n: int
    has_densities: bool
    figures: tuple[str, ...]
    headings: tuple[str, ...]
    rows: tuple[tuple[str, int, tuple[str, ...]], ...]


def redshift_sections(
    contents: Contents, comparisons: Sequence[Comparison], truth: pa.Table | None, *, magnitude: str | None
) -> list[RedshiftSection]:
    """Return a section for each compared quantity that is a redshift.

    Parameters
    ----------
    contents : Contents
    comparisons : sequence of Comparison
        The catalog's quantities beside known values.
    truth : pyarrow.Table or None
        The table of known values.
    magnitude : str or None
        A column of that table, or of the catalog, by which objects are binned as well; None: by z_phot alone.

    Raises
    ------
    UsageError
        Neither table has the column `magnitude`, or nothing is a redshift.
    """
    compared = [one for one in comparisons if one.quantity.is_redshift and len(one.truth)]
    if magnitude is not None and not compared:
        raise UsageError(f"--magnitude {magnitude}: bins are of redshifts, and no compared quantity is one")
    return [_section(contents, one, truth, magnitude) for one in compared]


def _section(
    contents: Contents, comparison: Comparison, truth: pa.Table | None, magnitude: str | None
) -> RedshiftSection:
    rows = np.arange(len(comparison.truth)) if comparison.rows is None else comparison.rows
    table = _catalog_rows(contents, rows, magnitude)
    densities = densities_of(table, comparison.quantity)
    sample = redshift_sample(comparison.quantity.median, comparison.truth, densities)
    if magnitude is not None:
        sample = replace(sample, bin_values={magnitude: _magnitudes(table, truth, magnitude)})
    edges = {"z_phot": equal_bins(sample.z_phot, N_BINS)}
    edges |= {name: equal_bins(values, N_BINS) for name, values in sample.bin_values.items()}
    bins = list(measured_in_bins(sample, edges))
    known = [name for name, (value, _) in bins[0].measured.named().items() if not np.isnan(value)]
    of_bins = tuple(
        (
            one.text,
            one.measured.n,
            tuple(_text(name, *one.measured.named()[name]) for name in known),
        )
        for one in bins
    )
    return RedshiftSection(
        comparison.quantity,
        len(sample),
        densities is not None,
        tuple(embedded(png) for png in redshift_panels(sample, comparison)),
        tuple(HEADINGS[name] for name in known),
        of_bins,
    )


def _catalog_rows(contents: Contents, rows: npt.NDArray[np.intp], magnitude: str | None) -> pa.Table:
    """Return ids, densities and the magnitude of the catalog at rows of its contents."""
    schema = catalog.read_schema(contents.path)
    # The columns of flags tell where each model's columns end.
    wanted = {ID.name, magnitude, *flag_columns(schema.names), *(one.name for one in density_columns(schema))}
    table = catalog.read_catalog(contents.path, columns=[name for name in schema.names if name in wanted])
    return table.take(pa.array(rows))


def _magnitudes(table: pa.Table, truth: pa.Table | None, name: str) -> Floats:
    """Return a column of the catalog's rows, or of the rows of the same objects of the table of known values, (object,)."""
    if name in table.column_names:
        return numbers_of("the catalog", table.column(name), name=name, expected="numbers")
    if truth is None or name not in truth.column_names:
        raise UsageError(f"--magnitude {name}: neither the catalog nor {KNOWN_VALUES} has it")
    place = pc.index_in(table.column(ID.name), value_set=truth[ID.name].combine_chunks())
    return numbers_of(KNOWN_VALUES, truth.column(name).take(place), name=name, expected="numbers")


def _text(name: str, value: float, error: float) -> str:
    """Return a statistic and its error as text, shares in percent; a dash without objects, and no error where it is not known."""
    if np.isnan(value):
        return "–"
    scale, unit = (100.0, " %") if name.startswith("outliers") else (1.0, "")
    text = f"{value * scale:.3g}{unit}".replace("-", "−")
    return text if np.isnan(error) else f"{text} ± {error * scale:.2g}"


def redshift_panels(sample: RedshiftSample, comparison: Comparison) -> list[bytes]:
    """Return two PNGs: z_phot against z_spec with the limits of outliers, and the histogram of the PIT."""
    buffers = [io.BytesIO() for _ in range(2)]
    with styled_figure(*PANEL_INCHES, buffers[0]) as figure:
        _against_panel(figure.add_subplot(), sample)
    with styled_figure(*PANEL_INCHES, buffers[1]) as figure:
        _pit_panel(figure.add_subplot(), sample, comparison)
    return [buffer.getvalue() for buffer in buffers]


def _against_panel(axes: Axes, sample: RedshiftSample) -> None:
    """Draw z_phot against z_spec, with lines at equality and at the limit of outliers."""
    high = 1.03 * float(max(np.quantile(sample.z_spec, 0.999), np.quantile(sample.z_phot, 0.999)))
    low = min(0.0, float(sample.z_spec.min()))
    if len(sample) > DENSE:
        extent = (low, high, low, high)
        axes.hexbin(sample.z_spec, sample.z_phot, gridsize=60, mincnt=1, cmap="cividis", extent=extent)
    else:
        axes.scatter(sample.z_spec, sample.z_phot, s=5, c=BLUE, alpha=0.5, lw=0)
    z = np.array([low, high])
    axes.plot(z, z, color=VERMILION, lw=1)
    for sign in (-1, 1):
        limit = z + sign * OUTLIER_LIMITS[0] * (1 + z)
        axes.plot(
            z, limit, color=GRAY, lw=1, ls="--", label=f"dz = ± {OUTLIER_LIMITS[0]:g}" if sign > 0 else None
        )
    axes.legend(fontsize=7.5, loc="upper left")
    axes.set(
        xlim=(low, high), ylim=(low, high), xlabel="z_spec", ylabel="z_phot", title="z_phot against z_spec"
    )


def pit_shares(sample: RedshiftSample, comparison: Comparison) -> tuple[Floats, Floats]:
    """Return edges (bin + 1,) in the PIT and the shares (bin,) of objects between them.

    With densities these are 20 equal bins; without, the quantiles of the catalog are the edges, of which each object's PIT is
    known to lie between two.
    """
    known = np.isfinite(sample.transform)
    if known.any():
        counts, edges = np.histogram(sample.transform[known], N_PIT_BINS, (0.0, 1.0))
        return edges.astype(np.float64), counts / known.sum()
    edges = np.array([0.0, *comparison.quantity.levels, 1.0])
    return edges, comparison.between_quantiles()[0]


def _pit_panel(axes: Axes, sample: RedshiftSample, comparison: Comparison) -> None:
    """Draw the density of the PIT, which is 1 where posteriors are right, with two binomial standard deviations."""
    edges, shares = pit_shares(sample, comparison)
    width = np.diff(edges)
    error = 2 * np.sqrt(width * (1 - width) / max(len(sample), 1)) / width
    axes.bar(edges[:-1], shares / width, width, align="edge", color=BLUE, alpha=0.85, ec="white", lw=0.5)
    for sign in (-1, 1):
        label = "right posteriors, ± 2 σ" if sign > 0 else None
        axes.stairs(1 + sign * error, edges, baseline=None, color=VERMILION, lw=1.3, label=label)
    axes.set(xlim=(0, 1), xlabel="posterior's probability below z_spec (PIT)", ylabel="density", title="PIT")
    axes.set_ylim(0, 1.25 * float(max((shares / width).max(), (1 + error).max())))
    axes.legend(fontsize=7.5, loc="upper right")

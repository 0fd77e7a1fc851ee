"""Functions for users of a finished catalog, which the command line calls too: joint draws from the posteriors."""

from galbatch.api.draws import (
    Drawn,
    NoDraws,
    Request,
    as_table,
    correlation,
    draw,
    plot_paths,
    summary_tables,
)

__all__ = ["Drawn", "NoDraws", "Request", "as_table", "correlation", "draw", "plot_paths", "summary_tables"]

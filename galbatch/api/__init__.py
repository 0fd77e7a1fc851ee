"""Readers of a finished run find here what they use, in Python and by the CLI: joint draws from its posteriors."""

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

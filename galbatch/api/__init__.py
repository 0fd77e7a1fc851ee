"""Functions for users of a finished catalog, which the command line calls too: objects by name and place, cutouts, joint draws."""

from galbatch.api.cutouts import (
    Cutout,
    cutouts_as_fits,
    find_cutouts,
    north_up,
    on_image,
    store_beside,
    write_cutouts,
)
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
from galbatch.api.lookup import (
    FlagText,
    ModelValues,
    ObjectValues,
    central_levels,
    flag_counts,
    flag_texts,
    object_values,
    sexagesimal,
    short_columns,
)
from galbatch.api.places import parse_position, parse_radius

__all__ = [
    "Cutout",
    "Drawn",
    "FlagText",
    "ModelValues",
    "NoDraws",
    "ObjectValues",
    "Request",
    "as_table",
    "central_levels",
    "correlation",
    "cutouts_as_fits",
    "draw",
    "find_cutouts",
    "flag_counts",
    "flag_texts",
    "north_up",
    "object_values",
    "on_image",
    "parse_position",
    "parse_radius",
    "plot_paths",
    "sexagesimal",
    "short_columns",
    "store_beside",
    "summary_tables",
    "write_cutouts",
]

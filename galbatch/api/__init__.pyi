from .catalogs import Catalog, CatalogObject, as_qtable, open_catalog
from .cutouts import (
    Cutout,
    cutouts_as_fits,
    find_cutouts,
    north_up,
    on_image,
    store_beside,
    write_cutouts,
)
from .draws import (
    Drawn,
    NoDraws,
    Request,
    as_table,
    correlation,
    draw,
    plot_paths,
    summary_tables,
)
from .hips import write_hips
from .lookup import (
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
from .merging import merge
from .nddata import as_ccddata
from .pictures import (
    encoded_png,
    intensity_stretch,
    picture_png,
    thumbnail_path,
    thumbnail_png,
    write_thumbnail,
)
from .places import parse_position, parse_radius
from .running import RunPlan, plan, run
from .simulating import simulate
from .stores import Store, open_store
from .verifying import Verification, verify

__all__ = [
    "Catalog",
    "CatalogObject",
    "Cutout",
    "Drawn",
    "FlagText",
    "ModelValues",
    "NoDraws",
    "ObjectValues",
    "Request",
    "RunPlan",
    "Store",
    "Verification",
    "as_ccddata",
    "as_qtable",
    "as_table",
    "central_levels",
    "correlation",
    "cutouts_as_fits",
    "draw",
    "encoded_png",
    "find_cutouts",
    "flag_counts",
    "flag_texts",
    "intensity_stretch",
    "merge",
    "north_up",
    "object_values",
    "on_image",
    "open_catalog",
    "open_store",
    "parse_position",
    "parse_radius",
    "picture_png",
    "plan",
    "plot_paths",
    "run",
    "sexagesimal",
    "short_columns",
    "simulate",
    "store_beside",
    "summary_tables",
    "thumbnail_path",
    "thumbnail_png",
    "verify",
    "write_cutouts",
    "write_hips",
    "write_thumbnail",
]

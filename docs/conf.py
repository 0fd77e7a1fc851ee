"""Settings of the documentation's site: ``make docs`` builds it into build/docs."""

import sys
from pathlib import Path

import galbatch

sys.path.insert(0, str(Path(__file__).parent))

project = "galbatch"
author = "The galbatch developers"
copyright = author  # noqa: A001
release = galbatch.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "from_code"]
source_suffix = {".md": "myst-nb"}
exclude_patterns = ["_*"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # the types of numpydoc's parameters are prose: axes, dtypes, units
html_theme = "furo"
html_title = "galbatch"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_copy_source = False
html_show_sphinx = False
myst_heading_anchors = 4
# The tutorial is carried out at each build; a cell that fails fails the build. The ceiling is for slow machines.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 900
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "none"  # axes, dtypes and units stand in the text
napoleon_google_docstring = False
napoleon_use_rtype = False
suppress_warnings = [
    "misc.highlighting_failure",
    "ref.python",
]  # shell sessions with ...; fields of one name in several classes

"""How Sphinx builds the site from this folder: `make docs`."""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "inrkit"
copyright = "the authors of inrkit, MIT licence"
release = version = metadata.version("inrkit")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings", "listings", "offline"]
exclude_patterns = ["extensions"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

# Notebooks are stored with their outputs (tools/notebooks.py); building the site runs none of them.
nb_execution_mode = "off"
nb_render_image_options = {"alt": "the figure that the cell above draws"}
myst_heading_anchors = 4  # a link may name any heading, as on a forge
myst_enable_extensions = ["deflist"]

# Docstrings are written for the terminal: single backquotes are code.
default_role = "code"
highlight_language = "none"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_param = False  # names that share a description stay together
maximum_signature_line_length = 80

html_theme = "furo"
html_title = "inrkit"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # summaries are fetched, which a browser refuses of pages opened from disk

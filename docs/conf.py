"""Configures Sphinx: `make docs` builds the site into dist/docs."""

import fer_jax

project = "fer_jax"
author = "The fer_jax authors"
release = version = fer_jax.__version__
copyright = "The fer_jax authors"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "sphinx_book_theme"
html_title = "fer_jax"
html_theme_options = {"use_download_button": False, "show_navbar_depth": 1}

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give types with shapes and ranges
napoleon_numpy_docstring = False
napoleon_use_ivar = True
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600

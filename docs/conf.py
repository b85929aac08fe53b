"""How Sphinx makes the pages of this folder a site; CONTRIBUTING.md has the command."""

from mindspore_cvae import __version__

project = "mindspore_cvae"
author = "the maintainers of mindspore_cvae"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "mindspore_cvae"
myst_enable_extensions = ["colon_fence"]
# Headings are linked to as the code host names them.
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_rtype = False

"""Sphinx: the pages of this folder as HTML (`make docs`)."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

import gallery  # noqa: E402

from calib import __version__  # noqa: E402

gallery.write()

project = "calib"
author = copyright = "calib developers"
release = version = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "From raw memristor measurements to trained networks", "fixed_sidebar": True}

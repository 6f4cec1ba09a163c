"""How Sphinx makes the site of these pages; `scripts/build_docs.sh` runs it. Nothing is fetched from outside."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import dipmed

sys.path.append(str(Path(__file__).parent / "_ext"))
# one thread, as continuous integration has: the examples then give the same numbers everywhere
os.environ.setdefault("OMP_NUM_THREADS", "1")

project = "dipmed"
author = "the dipmed authors"
project_copyright = "the dipmed authors, Apache-2.0"
version = release = dipmed.__version__

ARRAY = re.compile(r"~?numpy\.ndarray\[tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[(.*?)\]\]")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_gallery.gen_gallery", "command_help"]
exclude_patterns = ["examples", "_build"]
root_doc = "index"
highlight_language = "none"  # indented lines are equations and drawings; code says its language
default_role = "py:obj"
suppress_warnings = ["config.cache"]

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = False  # types are in the signature
add_module_names = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "/",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "write_computation_times": False,
    "show_signature": False,
    "min_reported_time": 0,
    "thumbnail_size": (400, 124),  # most pictures are a row of images
    "matplotlib_animations": False,
}

html_theme = "furo"
html_title = f"dipmed {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_last_updated_fmt = ""
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5c78", "color-brand-content": "#0b5c78"},
    "dark_css_variables": {"color-brand-primary": "#6fc3de", "color-brand-content": "#6fc3de"},
}


def readable_signature(*details: Any) -> tuple[str, str | None] | None:
    """Write a default that is made anew for each object as ``...``, which Sphinx can read; arrays as ``NDArray``."""
    signature, returned = (text and ARRAY.sub(r"~numpy.typing.NDArray[\1]", text) for text in details[-2:])
    return (signature.replace("<factory>", "..."), returned) if signature else None


def setup(app: Sphinx) -> None:
    """Have signatures passed through `readable_signature`."""
    app.connect("autodoc-process-signature", readable_signature)

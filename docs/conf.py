"""The sphinx site: ``make docs`` writes it to ``build/docs``. It needs no network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402

import diffpref  # noqa: E402

reference.write_pages(HERE / "generated")

project = "diffpref"
author = "the diffpref authors"
copyright = "the diffpref authors, Apache-2.0"
version = release = diffpref.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["*.py"]
default_role = "py:obj"  # a name in single backticks is a link where it is known
html_theme = "furo"
html_title = "diffpref"

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3


def forget_what_a_type_says(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """A constant without a comment of its own would be described by the docstring of ``dict`` or ``tuple``."""
    if what == "data" and " ".join(lines).split() == (type(thing).__doc__ or "").split():
        lines.clear()


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", forget_what_a_type_says)

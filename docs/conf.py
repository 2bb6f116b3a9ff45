"""How the documentation is built: ``tox -e docs``."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "pytest-kvm"
copyright = "the pytest-kvm developers"
release = version = installed("pytest-kvm")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "sphinxarg.ext", "plugin_reference"]
exclude_patterns = ["extensions"]
html_theme = "furo"
html_title = f"pytest-kvm {version}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# sphinx-argparse has a domain that cannot be searched by myst-parser.
suppress_warnings = ["myst.domains"]
# Prompts are not what one copies.
copybutton_prompt_text = "$ "

# Of the typographer's work no dashes: --all is an option.
smartquotes_action = "q"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

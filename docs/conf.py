"""The documentation as a site: ``make docs`` builds it by Sphinx, and every warning is an error.

The source folder is the repository itself, so that a link between two documents is the same here and in the repository;
a link to a file that is no document becomes a download. What is taken up is listed in ``include_patterns``, and what
``docs/index.md`` does not name is a warning.
"""

import tomllib
from pathlib import Path

project = "bioverify"
release = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]["version"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/**.md",
    "k8s/chart/README.md",
    "observability/README.md",
    "services/bioverify/verifiers/*/README.md",
    "services/bioverify/artifacts/bundled/ATTRIBUTION.md",
]
extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"bioverify {release}"
html_show_copyright = False
# Anchors by the rule of the places that show the repository, for links such as performance.md#replicas.
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "misc.highlighting_failure"]
nitpicky = True
linkcheck_timeout = 20

"""The documentation as a site, and its notebook."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from runs import ROOT

NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make docs` makes, of a copy, since the links to the package's folders are laid beside the pages."""
    source = tmp_path_factory.mktemp("source")
    for name in ("mkdocs.yml", "setup.cfg", "README.md", "REPRODUCE.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source)
    for folder in ("docs", "sam_uniref", "adapters", "train", "eval", "configs"):
        (source / folder).symlink_to(ROOT / folder)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(source / "site")],
        cwd=source,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return source / "site"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(site: Path) -> None:
    assert (site / "index.html").is_file()
    assert "from_pretrained" in (site / "api" / "models.html").read_text()
    assert "Table 8" in (site / "reproduce.html").read_text()


@pytest.mark.slow
def test_the_site_fetches_nothing(site: Path) -> None:
    """No fonts, scripts or counters of anybody else's: links are all that leads away."""
    for page in site.rglob("*.html"):
        fetched = re.findall(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=\"(https?://[^\"]+)", page.read_text())
        assert fetched == [], page


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_run(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_small_and_without_outputs(path: Path) -> None:
    assert path.stat().st_size < 300_000
    cells = nbformat.read(path, as_version=4).cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")

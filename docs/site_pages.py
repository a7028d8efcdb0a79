"""Pages of the site whose text stands elsewhere in the repository: a hook of MkDocs, named in ``mkdocs.yml``."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ELSEWHERE = {"reproduce.md": "REPRODUCE.md", "changelog.md": "CHANGELOG.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the pages in; links into ``docs/`` become links beside them."""
    root = Path(config.config_file_path).parent
    for name, source in ELSEWHERE.items():
        text = (root / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of the repository's pages to those files, ``../REPRODUCE.md``, become links to the pages made of them."""
    for name, source in ELSEWHERE.items():
        markdown = markdown.replace(f"../{source}", name)
    return markdown

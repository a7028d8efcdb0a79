"""A hook of MkDocs, named in ``mkdocs.yml``: pages whose text stands elsewhere, and where the package's modules are."""

from __future__ import annotations

import configparser
import shutil
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ELSEWHERE = {"reproduce.md": "REPRODUCE.md", "changelog.md": "CHANGELOG.md"}
PACKAGE = Path("build") / "package"


@event_priority(100)  # before the plugin that looks whether the folder is there
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lay the package's modules out as they are installed: the repository's folders are subpackages of it."""
    root = Path(config.config_file_path).parent
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg", encoding="utf-8")
    shutil.rmtree(root / PACKAGE, ignore_errors=True)
    for line in setup["options"]["package_dir"].strip().splitlines():
        name, folder = line.split(" = ")
        for module in (root / folder).rglob("*.py"):
            copy = root / PACKAGE / name.replace(".", "/") / module.relative_to(root / folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(module, copy)
    return config


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

"""A hook of MkDocs, named in ``mkdocs.yml``: pages whose text stands elsewhere, and where the package's modules are."""

from __future__ import annotations

import configparser
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ELSEWHERE = {"reproduce.md": "REPRODUCE.md", "changelog.md": "CHANGELOG.md"}
PACKAGE = Path("build") / "package" / "sam_uniref"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lay the package out as it is installed, by links: the repository's folders are subpackages of it."""
    root = Path(config.config_file_path).parent
    package = root / PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg", encoding="utf-8")
    folders = dict(line.split(" = ") for line in setup["options"]["package_dir"].strip().splitlines())
    wanted = {entry.name: entry for entry in (root / folders.pop("sam_uniref")).iterdir() if entry.name != "__pycache__"}
    wanted |= {name.removeprefix("sam_uniref."): root / folder for name, folder in folders.items()}
    for link in package.iterdir():
        link.unlink()
    for name, target in wanted.items():
        (package / name).symlink_to(target)
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

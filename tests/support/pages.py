"""What is on a page that was written."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Tags, texts by the tag they are in, and pictures; tags that do not match are an error.

    Args:
        folder: Of the page.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.alternatives: dict[str, str] = {}
        self.captions: dict[str, str] = {}
        self._source: str | None = None
        self.feed((folder / "index.html").read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags.append((tag, given))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "figure":
            self._source = None
        if tag in ("img", "video"):
            self._source = str(given["src"])
            self.captions[self._source] = ""
        if tag == "img":
            self.alternatives[str(given["src"])] = str(given["alt"])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)
        if "figcaption" in self.open and self._source is not None:
            self.captions[self._source] += data

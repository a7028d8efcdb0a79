"""The repository's pages of documentation: their code blocks, and which of them say that they are not run.

A comment above a block, ``<!-- not run: needs the data -->``, exempts it from being run, not from being checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from runs import ROOT

PAGES = [ROOT / "README.md", ROOT / "REPRODUCE.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*) -->\n)?(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_NOT_RUN = re.compile(r"not run: (needs [\w ']+)")


@dataclass(frozen=True)
class Block:
    """A piece of code on a page.

    Attributes:
        language: ``python``, ``bash``, ...
        code: What is in it.
        line: Where its code begins on the page, from 1.
        why_not_run: What the page says that it needs; None for a block that is run.
    """

    language: str
    code: str
    line: int
    why_not_run: str | None


def name_of(page: Path) -> str:
    """A page's path below the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page in these languages, in their order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        if match["language"] in languages:
            note = _NOT_RUN.fullmatch(match["note"] or "")
            indent = len(match["indent"])
            code = "".join(line[indent:] if line.strip() else "\n" for line in match["code"].splitlines(keepends=True))
            line = text.count("\n", 0, match.start("code")) + 1
            found.append(Block(match["language"], code, line, note[1] if note else None))
    return found


def commands_in_text(page: Path) -> str:
    """Whole commands between backquotes in a page's running text and tables, one a line."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", text)
    whole = re.compile(
        r"(?:python (?:eval|train|docs)/\S+\.py|sam-uniref [a-z]+|accelerate launch .*\.py) .*-|\w+=\"--"
    )
    return "\n".join(span for span in spans if whole.match(span))

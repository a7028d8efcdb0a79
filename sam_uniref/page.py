"""A page of pictures as plain HTML: no script, nothing from elsewhere, light or dark as its reader has it.

Arguments called ``*_html`` are put in as they stand, and come from functions that escape what they are given, as
those here do. All others are text, and are escaped here.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

PAGE = "index.html"
# What file managers leave in any folder that is looked at.
LEFT_BY_BROWSING = (".DS_Store", "Thumbs.db", "desktop.ini")

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3 { line-height: 1.25; }
h2 { margin-top: 3rem; border-top: 1px solid #8886; padding-top: 1.5rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
article { margin: 2rem 0; }
p { max-width: 48rem; }
.row { display: flex; flex-wrap: wrap; gap: .75rem; margin-bottom: .75rem; }
.row figure { flex: 0 1 16rem; min-width: 8rem; }
.row.small figure { flex-basis: 9rem; min-width: 4rem; }
figure { margin: 0; }
figure.wide { margin-bottom: .75rem; }
img, video { display: block; width: 100%; height: auto; border-radius: 3px; }
figcaption { font-size: .875rem; }
svg { display: block; width: 100%; max-width: 40rem; height: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .15rem .75rem .15rem 0; text-align: left; font-variant-numeric: tabular-nums; }
th { border-bottom: 1px solid #8886; }
.thirds { display: grid; grid-template-columns: repeat(3, 1fr); }
"""


def figure(source: str, alternative: str, caption: str, *, wide: bool = False) -> str:
    """A picture with its caption.

    Args:
        source: Where the picture is, from the page.
        alternative: What the picture shows, for those who do not see it.
        caption: Below it.
        wide: Over the page's whole width.
    """
    kind = ' class="wide"' if wide else ""
    picture = f'<img src="{escape(source)}" alt="{escape(alternative)}">'
    return f"<figure{kind}>{picture}<figcaption>{escape(caption)}</figcaption></figure>\n"


def row(figures_html: Iterable[str], *, small: bool = False) -> str:
    """Figures beside each other, as many as there is room for."""
    return f'<div class="row{" small" if small else ""}">\n{"".join(figures_html)}</div>\n'


def case(title: str, content_html: Iterable[str]) -> str:
    """One thing that was asked, and all that belongs to it."""
    return f"<article>\n<h3>{escape(title)}</h3>\n{''.join(content_html)}</article>\n"


def film(source: str, columns: Iterable[str]) -> str:
    """A video with a caption below each of three columns.

    Args:
        source: Where the video is, from the page.
        columns: What is seen in them, from the left.
    """
    captions = "".join(f"<span>{escape(column)}</span>" for column in columns)
    video = f'<video src="{escape(source)}" controls loop muted playsinline></video>'
    return f'<figure class="wide">{video}<figcaption class="thirds">{captions}</figcaption></figure>\n'


def listing(entries: Iterable[str]) -> str:
    """A list, an entry a line; nothing where there are none."""
    items = "".join(f"<li>{escape(entry)}</li>\n" for entry in entries)
    return f"<ul>\n{items}</ul>\n" if items else ""


def drawing(svg_html: str, caption: str) -> str:
    """An inline SVG diagram with its caption."""
    return f'<figure class="wide">{svg_html}<figcaption>{escape(caption)}</figcaption></figure>\n'


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table, a list of cells a row."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>\n" for cells in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table>\n"


def section(title: str, text: str, content_html: Iterable[str]) -> str:
    """A part of the page."""
    return f"<section>\n<h2>{escape(title)}</h2>\n<p>{escape(text)}</p>\n{''.join(content_html)}</section>\n"


def document(title: str, paragraphs: Iterable[str], sections_html: Iterable[str], *, generator: str) -> str:
    """The whole page.

    Args:
        title: Of the page.
        paragraphs: Below the title.
        sections_html: Below these.
        generator: Says in the page's head what wrote it, as `generated_by` gives it.
    """
    introduction = "".join(f"<p>{escape(paragraph)}</p>\n" for paragraph in paragraphs)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{generated_by(generator)}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{introduction}{"".join(sections_html)}</body>
</html>
"""


def generated_by(generator: str) -> str:
    """The line of a page's head by which its writer knows it again."""
    return f'<meta name="generator" content="{escape(generator)}">'


def check_place(out: Path, what: str, generator: str, others: Iterable[str] = ()) -> None:
    """Refuse to write a page's folder where anything but an earlier one is.

    Args:
        out: The folder.
        what: What the folder is called in messages.
        generator: Writer of the page, as `document` was given it.
        others: Names in the folder that are the writer's own though the page does not show them.

    Raises:
        FileExistsError: Naming what is there.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f"a {what} is a folder, and {out} is a file")
    shown = (out / PAGE).read_text(encoding="utf-8", errors="replace") if (out / PAGE).is_file() else ""
    written = generated_by(generator) in shown
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.name in LEFT_BY_BROWSING:
            continue
        if not written or (name not in (PAGE, *others) and f'src="{name}"' not in shown):
            raise FileExistsError(f"{out} holds {name}, which is of no {what}; give another folder, or empty it first")

"""A picture on the page that is clicked and painted on; what it sends is read by `sam_uniref.web.marks`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr

POINTS = ("on", "beside")
PAINT = ("on", "beside", "paint", "erase")

_TOOLS = {
    "on": ("Click it", "Click on the object"),
    "beside": ("Not this", "Click on what does not belong to it"),
    "paint": ("Paint", "Paint the object"),
    "erase": ("Erase", "Take paint away"),
}


def pad(name: str, *, tools: Sequence[str], upload: str, empty: str) -> gr.HTML:
    """A picture that can be marked.

    Args:
        name: Its id on the page.
        tools: Of ``on``, ``beside``, ``paint`` and ``erase``; the first one is in the hand at first.
        upload: Id of the upload button that a dropped file goes to.
        empty: What is read where there is no picture yet.
    """
    import gradio as gr

    buttons = "".join(
        f'<button type="button" data-tool="{tool}" title="{escape(_TOOLS[tool][1])}">{escape(_TOOLS[tool][0])}</button>'
        for tool in tools
    )
    if "paint" in tools:
        buttons += '<input class="size" type="range" min="6" max="80" value="28" aria-label="Size of the brush" hidden>'
    template = (
        f'<div class="pad" data-pad="{escape(name)}"><div class="stage" data-upload="{escape(upload)}">'
        f'<canvas></canvas><p class="empty">{escape(empty)}</p></div>'
        f'<div class="tools">{buttons}<span class="gap"></span>'
        '<button type="button" class="undo">Undo</button><button type="button" class="wipe">Clear</button></div></div>'
    )
    script = files("sam_uniref.web").joinpath("pad.js").read_text(encoding="utf-8")
    return gr.HTML(value=None, html_template=template, js_on_load=script, elem_id=name, apply_default_css=False)

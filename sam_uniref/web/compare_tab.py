"""The tab in which methods are seen side by side on the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from sam_uniref.web.answers import Answer
from sam_uniref.web.marks import Marks
from sam_uniref.web.pad import PAINT, POINTS, pad
from sam_uniref.web.samples import example_samples
from sam_uniref.web.site import PICTURES, Site, sample_strip, told
from sam_uniref.web.visits import Visit

_PLACE, _EXAMPLE = "compared", "compared_example"


def compare_tab(site: Site) -> None:
    """Build the tab and wire it."""
    pairs = [(picture, f"example {n}") for n, (picture, _) in enumerate(example_samples(), 1)]
    samples = sample_strip("compared_samples", pairs, columns=len(pairs))
    with gr.Row(equal_height=False):
        with gr.Column(scale=1):
            upload = gr.UploadButton("Choose a picture", file_types=["image"], elem_id="compared_upload", size="sm")
            query = pad("compared", tools=POINTS, upload="compared_upload", empty="Choose a picture, or drop one here")
        with gr.Column(scale=1):
            with gr.Row():
                example_upload = gr.UploadButton(
                    "Choose an example", file_types=["image"], elem_id="compared_example_upload", size="sm"
                )
                mask_upload = gr.UploadButton(
                    "Its mask, if you have it", file_types=["image"], elem_id="compared_mask_upload", size="sm"
                )
            example = pad(
                "compared_example",
                tools=PAINT,
                upload="compared_example_upload",
                empty="An example, then mark the object",
            )
    with gr.Row(equal_height=True):
        sentence = gr.Textbox(
            label="A sentence, too, if you like", elem_id="compared_sentence", max_length=site.limits.sentence, scale=3
        )
        go = gr.Button("Compare", variant="primary", elem_id="compare", scale=1)
    answers = gr.Gallery(
        label="Answers",
        columns=4,
        object_fit="contain",
        elem_id="answers",
        interactive=False,
        format="png",
        height="auto",
    )
    handlers = _Handlers(site)
    site.takes_picture(upload, _PLACE, query)
    site.takes_picture(example_upload, _EXAMPLE, example)
    site.takes_mask(mask_upload, _EXAMPLE, example)
    for event in (go.click, sentence.submit):
        event(told(handlers.compare), [query, sentence, example], answers, **PICTURES)
    samples.select(told(handlers.sample), None, [query, sentence, example, answers], **PICTURES)


class _Handlers:
    """What the tab's events do."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def compare(self, value: object, words: str, example: object, request: gr.Request) -> list[Any]:
        """Ask everybody."""
        site = self._site
        sentence = site.limits.check_sentence(words)
        picture, marks = site.marks(value, _PLACE, "picture", request)
        shown = site.marked_example(example, _EXAMPLE, request)
        answers = site.asked.compare(picture, sentence=sentence, marks=marks, examples=[] if shown is None else [shown])
        return _outputs(site.visit(request), answers)

    def sample(self, chosen: gr.SelectData, request: gr.Request) -> tuple[Any, ...]:
        """Show one of the page's own pairs, and ask everybody."""
        site = self._site
        picture, example = example_samples()[int(chosen.index)]
        query = site.show(picture, _PLACE, request)
        shown = site.show(example[0], _EXAMPLE, request, mask=example[1])
        answers = site.asked.compare(picture, sentence=None, marks=Marks(), examples=[example])
        return query, "", shown, _outputs(site.visit(request), answers)


def _outputs(visit: Visit, answers: Sequence[Answer]) -> list[tuple[str, str]]:
    """Answers as the gallery shows them."""
    paths = visit.write("compared", [answer.overlay for answer in answers])
    return [(path, answer.caption) for path, answer in zip(paths, answers, strict=True)]

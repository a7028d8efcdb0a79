"""The tab in which methods are seen side by side on the same picture."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sam_uniref.web.marks import Marks
from sam_uniref.web.pad import PAINT, POINTS, pad
from sam_uniref.web.samples import example_samples
from sam_uniref.web.site import EVENT, PICTURES, Site, told
from sam_uniref.web.uploads import small

_PLACE, _EXAMPLE = "compared", "compared_example"
_THUMBNAIL = 160


def compare_tab(site: Site) -> None:
    """Build the tab and wire it."""
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
        label="Answers", columns=3, object_fit="contain", elem_id="answers", interactive=False, format="png", height=400
    )
    thumbnails = [(small(picture, _THUMBNAIL), f"example {n}") for n, (picture, _) in enumerate(example_samples(), 1)]
    samples = gr.Gallery(
        thumbnails, label="Try one of these", columns=8, height=170, allow_preview=False, object_fit="cover",
        elem_id="compared_samples", elem_classes="samples", buttons=[], interactive=False,
    )  # fmt: skip
    handlers = _Handlers(site)
    upload.upload(told(handlers.take_picture), upload, query, **EVENT)
    example_upload.upload(told(handlers.take_example), example_upload, example, **EVENT)
    mask_upload.upload(told(handlers.take_mask), mask_upload, example, **EVENT)
    for event in (go.click, sentence.submit):
        event(told(handlers.compare), [query, sentence, example], answers, **PICTURES)
    samples.select(told(handlers.sample), None, [query, sentence, example, answers], **PICTURES)


class _Handlers:
    """What the tab's events do."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def take_picture(self, file: str, request: gr.Request) -> dict[str, Any]:
        """Show an uploaded picture."""
        return self._site.show_upload(file, _PLACE, request)

    def take_example(self, file: str, request: gr.Request) -> dict[str, Any]:
        """Show an uploaded example."""
        return self._site.show_upload(file, _EXAMPLE, request)

    def take_mask(self, file: str, request: gr.Request) -> dict[str, Any]:
        """Put an uploaded mask on the example."""
        return self._site.uploaded_mask(file, _EXAMPLE, request)

    def compare(self, value: object, words: str, example: object, request: gr.Request) -> list[Any]:
        """Ask everybody."""
        site = self._site
        sentence = site.limits.check_sentence(words)
        picture, marks = site.marks(value, _PLACE, "picture", request)
        shown = site.marked_example(example, _EXAMPLE, request)
        answers = site.asked.compare(picture, sentence=sentence, marks=marks, examples=[] if shown is None else [shown])
        return [(answer.overlay, answer.caption) for answer in answers]

    def sample(self, chosen: gr.SelectData, request: gr.Request) -> tuple[Any, ...]:
        """Show one of the page's own pairs, and ask everybody."""
        site = self._site
        picture, example = example_samples()[int(chosen.index)]
        query = site.show(picture, _PLACE, request)
        shown = site.show(example[0], _EXAMPLE, request, mask=example[1])
        answers = site.asked.compare(picture, sentence=None, marks=Marks(), examples=[example])
        return query, "", shown, [(answer.overlay, answer.caption) for answer in answers]

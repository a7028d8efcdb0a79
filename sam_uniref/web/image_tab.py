"""The tab in which one object is found in a picture."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np

from sam_uniref.segmentation import overlay_mask
from sam_uniref.web.answers import EXAMPLE_COLOR, Answer
from sam_uniref.web.limits import RefusedError
from sam_uniref.web.marks import Marks
from sam_uniref.web.pad import PAINT, POINTS, pad
from sam_uniref.web.samples import picture_samples
from sam_uniref.web.site import EVENT, EXAMPLE_WITHOUT_MASK, PICTURES, Site, examples_of, sample_strip, told
from sam_uniref.web.uploads import small
from sam_uniref.web.visits import Visit

_PLACE, _EXAMPLE = "picture", "example"
_THUMBNAIL = 160


def image_tab(site: Site) -> None:
    """Build the tab and wire it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=1):
            upload = gr.UploadButton("Choose a picture", file_types=["image"], elem_id="picture_upload", size="sm")
            query = pad("picture", tools=POINTS, upload="picture_upload", empty="Choose a picture, or drop one here")
            sentence = gr.Textbox(
                label="What to find", placeholder="a purple object", elem_id="sentence", max_length=site.limits.sentence
            )
            with gr.Accordion("or show it by an example", open=False, elem_id="by_example") as by_example:
                with gr.Row():
                    example_upload = gr.UploadButton(
                        "Picture with the object", file_types=["image"], elem_id="example_upload", size="sm"
                    )
                    mask_upload = gr.UploadButton(
                        "Its mask, if you have it", file_types=["image"], elem_id="mask_upload", size="sm"
                    )
                example = pad("example", tools=PAINT, upload="example_upload", empty="Choose it, then mark the object")
                with gr.Row():
                    add = gr.Button("Add another example", size="sm", elem_id="add_example")
                    drop = gr.Button("Remove examples", size="sm", elem_id="drop_examples")
                added = gr.Gallery(label="Examples", columns=4, height=130, visible="hidden", elem_id="examples")
            go = gr.Button("Segment", variant="primary", elem_id="segment")
        with gr.Column(scale=1):
            overlay = gr.Image(
                label="Found", interactive=False, elem_id="overlay", elem_classes="result", format="png",
                buttons=["download", "fullscreen"],
            )  # fmt: skip
            caption = gr.Markdown(elem_id="caption")
            with gr.Accordion("Mask", open=False):
                mask = gr.Image(
                    show_label=False, interactive=False, elem_id="mask", elem_classes="result", format="png",
                    buttons=["download"],
                )  # fmt: skip
            samples = sample_strip("picture_samples", [(s.picture, s.caption) for s in picture_samples()], columns=3)
    handlers = _Handlers(site)
    results = [overlay, mask, caption]
    site.takes_picture(upload, _PLACE, query)
    site.takes_picture(example_upload, _EXAMPLE, example)
    site.takes_mask(mask_upload, _EXAMPLE, example)
    add.click(told(handlers.add_example), example, [example, added], **PICTURES)
    drop.click(told(handlers.drop_examples), None, [example, added], **EVENT)
    for event in (go.click, sentence.submit):
        event(told(handlers.segment), [query, sentence, example], results, **PICTURES)
    samples.select(told(handlers.sample), None, [query, sentence, by_example, example, added, *results], **PICTURES)


class _Handlers:
    """What the tab's events do."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def add_example(self, value: object, request: gr.Request) -> tuple[Any, ...]:
        """Put the example on the page to those that were added, and make room for another."""
        visit = self._site.visit(request)
        visit.placed(_EXAMPLE, "example picture")
        shown = self._site.marked_example(value, _EXAMPLE, request)
        if shown is None:
            raise RefusedError(EXAMPLE_WITHOUT_MASK)
        if len(visit.examples) >= self._site.limits.examples:
            raise RefusedError(f"At most {self._site.limits.examples} examples are taken.")
        visit.examples.append(shown)
        del visit.places[_EXAMPLE]
        return None, _added(visit)

    def drop_examples(self, request: gr.Request) -> tuple[Any, ...]:
        """Forget all examples."""
        visit = self._site.visit(request)
        visit.examples.clear()
        visit.places.pop(_EXAMPLE, None)
        return None, _added(visit)

    def segment(self, value: object, words: str, example: object, request: gr.Request) -> tuple[Any, ...]:
        """Find what all that is given points at."""
        site = self._site
        sentence = site.limits.check_sentence(words)
        picture, marks = site.marks(value, _PLACE, "picture", request)
        visit = site.visit(request)
        shown = site.marked_example(example, _EXAMPLE, request)
        if shown is None and _EXAMPLE in visit.places and sentence is None and not marks.points:
            raise RefusedError(EXAMPLE_WITHOUT_MASK)
        found = site.asked.segment(picture, sentence=sentence, marks=marks, examples=examples_of(visit, shown))
        return _outputs(visit, found)

    def sample(self, chosen: gr.SelectData, request: gr.Request) -> tuple[Any, ...]:
        """Show one of the page's own pictures and ask about it."""
        site, picked = self._site, picture_samples()[int(chosen.index)]
        visit = site.visit(request)
        visit.examples.clear()
        visit.places.pop(_EXAMPLE, None)
        marks = Marks()
        points: list[list[float]] = []
        if picked.point is not None:
            x, y = picked.point
            height, width = picked.picture.shape[:2]
            marks, points = Marks([(x * width, y * height)], [1]), [[x, y, 1]]
        examples = [picked.example] if picked.example else []
        found = site.asked.segment(picked.picture, sentence=picked.sentence, marks=marks, examples=examples)
        query = site.show(picked.picture, _PLACE, request, points=points)
        example = None
        if picked.example is not None:
            example = site.show(picked.example[0], _EXAMPLE, request, mask=picked.example[1])
        opened = gr.update(open=example is not None)
        return query, picked.sentence or "", opened, example, _added(visit), *_outputs(visit, found)


def _outputs(visit: Visit, found: Answer) -> tuple[str, str, str]:
    """An answer as the tab shows it."""
    overlay, mask = visit.write("found", [found.overlay, found.mask])
    return overlay, mask, found.caption


def _added(visit: Visit) -> dict[str, Any]:
    """The examples that were added, painted."""
    painted = [
        np.asarray(small(overlay_mask(picture, mask, EXAMPLE_COLOR), _THUMBNAIL)) for picture, mask in visit.examples
    ]
    return gr.update(value=visit.write("examples", painted), visible=True if painted else "hidden")

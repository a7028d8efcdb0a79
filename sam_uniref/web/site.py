"""What all tabs of the page share: whom to ask, who is visiting, and how errors are told."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from sam_uniref.images import RGB, Mask
from sam_uniref.web.answers import Asked, Examples
from sam_uniref.web.limits import Limits, RefusedError
from sam_uniref.web.marks import Marks, read_marks, shown
from sam_uniref.web.uploads import checked_mask, checked_picture, small
from sam_uniref.web.visits import Visit, Visits

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# How the page's events are listed: they are the page's own.
EVENT: dict[str, Any] = {"api_visibility": "private"}
PICTURES: dict[str, Any] = {**EVENT, "concurrency_id": "pictures", "concurrency_limit": 4}
VIDEOS: dict[str, Any] = {**EVENT, "concurrency_id": "videos", "concurrency_limit": 2}

EXAMPLE_WITHOUT_MASK = "Mark the object in the example: click on it, paint it, or give its mask."
_THUMBNAIL = 200
_APOLOGY = "That did not work, and it is our fault, not yours; the server's log says more."


@dataclass
class Site:
    """A page's settings and state.

    Attributes:
        asked: The model and what it is compared with.
        visits: Everybody's things.
        limits: What one visitor may ask for.
        note: In one sentence, what the model is good for.
    """

    asked: Asked
    visits: Visits
    limits: Limits
    note: str

    def visit(self, request: gr.Request) -> Visit:
        """Whoever asks."""
        return self.visits.visit(request.session_hash)

    def show(self, picture: RGB, place: str, request: gr.Request, **marked: Any) -> dict[str, Any]:
        """Show a picture at a place; see `sam_uniref.web.marks.shown`."""
        return shown(picture, self.visit(request).place(place, picture).number, **marked)

    def marks(self, value: object, place: str, what: str, request: gr.Request) -> tuple[RGB, Marks]:
        """The picture at a place, and what is marked on it.

        Raises:
            RefusedError: If there is none.
        """
        placed = self.visit(request).placed(place, what)
        return placed.picture, read_marks(value, placed.picture.shape[:2], placed.number)

    def marked_example(self, value: object, place: str, request: gr.Request) -> tuple[RGB, Mask] | None:
        """The example that is on the page with its object's mask; None where there is none, or nothing is marked."""
        if place not in self.visit(request).places:
            return None
        picture, marks = self.marks(value, place, "example", request)
        mask = self.asked.mask_at(picture, marks)
        return None if mask is None else (picture, mask)

    def takes_picture(self, upload: gr.UploadButton, place: str, shown_at: gr.HTML) -> None:
        """Wire an upload button: the picture is checked and shown at a place."""

        def take(file: str, request: gr.Request) -> dict[str, Any]:
            path = remember_upload(self.visit(request), file)
            return self.show(checked_picture(path, self.limits), place, request)

        upload.upload(told(take), upload, shown_at, **EVENT)

    def takes_mask(self, upload: gr.UploadButton, place: str, shown_at: gr.HTML) -> None:
        """Wire an upload button: the mask is checked and painted on the picture at a place."""

        def take(file: str, request: gr.Request) -> dict[str, Any]:
            visit = self.visit(request)
            picture = visit.placed(place, "example picture").picture
            mask = checked_mask(remember_upload(visit, file), picture.shape[:2], self.limits)
            return self.show(picture, place, request, mask=mask)

        upload.upload(told(take), upload, shown_at, **EVENT)


def sample_strip(name: str, pictures: Sequence[tuple[RGB, str]], *, columns: int) -> gr.Gallery:
    """Small pictures that are tried by a click, with what is read below them."""
    return gr.Gallery(
        [(small(picture, _THUMBNAIL), caption) for picture, caption in pictures],
        label="Try one of these",
        columns=columns,
        height="auto",
        fit_columns=False,
        allow_preview=False,
        object_fit="cover",
        elem_id=name,
        elem_classes="samples",
        buttons=[],
        interactive=False,
    )


def remember_upload(visit: Visit, file: str) -> Path:
    """A file that the visitor gave; it is removed with the visitor's things."""
    path = Path(file)
    visit.uploads.add(path)
    return path


def told(handler: Callable[P, R]) -> Callable[P, R]:
    """A handler whose errors are told to the visitor in a sentence, and to the log in full."""

    @functools.wraps(handler)
    def telling(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return handler(*args, **kwargs)
        except RefusedError as refusal:
            raise gr.Error(str(refusal), title="Please look again", duration=12, print_exception=False) from None
        except gr.Error:
            raise
        except Exception as error:
            logger.exception("a visitor's request failed")
            raise gr.Error(_APOLOGY, title="Sorry", print_exception=False) from error

    return telling


def examples_of(visit: Visit, on_page: tuple[RGB, Mask] | None) -> Examples:
    """Those that were added, and the one on the page."""
    return [*visit.examples, *([on_page] if on_page is not None else [])]

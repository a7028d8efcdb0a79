"""Asking models about pictures: one answer, or the answers of several methods side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sam_uniref.images import RGB, ImageLike, Mask
from sam_uniref.reference import MaskReference
from sam_uniref.segmentation import Segmentation, overlay_mask
from sam_uniref.sentences import check_known_words
from sam_uniref.web.limits import RefusedError, refused
from sam_uniref.web.marks import Marks

if TYPE_CHECKING:
    from sam_uniref.trainable import TrainableModel

Examples = Sequence[tuple[RGB, Mask]]
FOUND_COLOR = (255, 64, 32)
EXAMPLE_COLOR = (32, 140, 255)
_DIMMED = 0.4
_BLACK_AND_WHITE = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)


class ExampleMethod(Protocol):
    """A method to compare with, which is asked by annotated pictures."""

    def segment(self, image: ImageLike, *, examples: Sequence[MaskReference] | None = None) -> Segmentation:
        """Segment what the examples show."""


@dataclass(frozen=True)
class Answer:
    """What was found in a picture.

    Attributes:
        overlay: The picture with the mask painted on, HWC uint8 RGB.
        mask: ``(H, W, 3)`` uint8, white on black.
        caption: In one line.
        found: Whether the mask has a pixel.
    """

    overlay: RGB
    mask: RGB
    caption: str
    found: bool


@dataclass
class Asked:
    """The model of a page, and what it is compared with; asked by one visitor at a time.

    Attributes:
        model: In evaluation mode.
        name: What visitors read.
        methods: Others, by what visitors read.
        vocabulary: The only words it knows, where they are few.
    """

    model: TrainableModel
    name: str
    methods: Mapping[str, ExampleMethod] = field(default_factory=dict)
    vocabulary: frozenset[str] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def strange_words(self, sentence: str | None) -> list[str]:
        """Words of a sentence that the model has never seen, where that is known."""
        if sentence is None or self.vocabulary is None:
            return []
        words = "".join(c if c.isalnum() or c == "-" else " " for c in sentence.lower()).split()
        return [word for word in dict.fromkeys(words) if word not in self.vocabulary]

    def check_words(self, sentence: str | None) -> None:
        """Refuse a sentence of which the model knows no word, such as one in another script.

        Raises:
            RefusedError: If it knows none.
        """
        if sentence is None:
            return
        try:
            check_known_words(sentence, self.model)
        except ValueError as error:
            raise refused(error) from error

    def segment(self, picture: RGB, *, sentence: str | None, marks: Marks, examples: Examples) -> Answer:
        """Find what all that is given points at.

        Raises:
            RefusedError: If nothing is given, the model knows no word of the sentence, or it can't be asked so.
        """
        if sentence is None and not marks.points and not examples:
            raise RefusedError("Say what to find: write a sentence, click on it, or show an example.")
        self.check_words(sentence)
        start = time.perf_counter()
        with self.lock:
            found = self._ask(picture, sentence, marks, examples)
        caption = _caption(found, time.perf_counter() - start)
        strange = self.strange_words(sentence)
        if strange:
            caption += f" · words this model does not know: {', '.join(strange)}"
        return answer(picture, found.mask, caption)

    def mask_at(self, picture: RGB, marks: Marks) -> Mask | None:
        """What is marked on a picture: as it was painted, or what the model finds at the points.

        Raises:
            RefusedError: If the model can't be asked by points, or finds nothing there.
        """
        if marks.mask is not None:
            return marks.mask
        if not marks.points:
            return None
        with self.lock:
            found = self._ask(picture, None, marks, ())
        if not found.mask.any():
            raise RefusedError("Nothing was found at the points; click elsewhere, or paint the object.")
        return found.mask

    def compare(self, picture: RGB, *, sentence: str | None, marks: Marks, examples: Examples) -> list[Answer]:
        """The answers of every method that can be asked by what is given, ours first.

        Raises:
            RefusedError: If nothing is given, or the model knows no word of the sentence.
        """
        if sentence is None and not marks.points and not examples:
            raise RefusedError("Give what to compare by: an example, a sentence, or a click on the picture.")
        self.check_words(sentence)
        references = _references(examples)
        answers = []
        with self.lock:
            if examples:
                answers.append(self._timed(picture, f"{self.name}, by the example", None, Marks(), examples))
                for name, method in self.methods.items():
                    start = time.perf_counter()
                    found = method.segment(picture, examples=references)
                    caption = f"{name}, by the example · {_caption(found, time.perf_counter() - start)}"
                    answers.append(answer(picture, found.mask, caption))
            if sentence is not None:
                answers.append(self._timed(picture, f"{self.name}, by the sentence", sentence, Marks(), ()))
            if marks.points:
                answers.append(self._timed(picture, "plain SAM, by the clicks", None, marks, ()))
        return answers

    def _timed(self, picture: RGB, title: str, sentence: str | None, marks: Marks, examples: Examples) -> Answer:
        """The model's answer, with what it was asked by in the caption."""
        start = time.perf_counter()
        found = self._ask(picture, sentence, marks, examples)
        return answer(picture, found.mask, f"{title} · {_caption(found, time.perf_counter() - start)}")

    def _ask(self, picture: RGB, sentence: str | None, marks: Marks, examples: Examples) -> Segmentation:
        """One call of the model, which may be of a kind that can't be asked so."""
        try:
            return self.model.segment(
                picture,
                text=sentence,
                examples=_references(examples) or None,
                points=marks.points or None,
                labels=marks.labels or None,
            )
        except ValueError as error:
            raise RefusedError(f"The model refuses: {error}.") from error


def answer(picture: RGB, mask: Mask, caption: str) -> Answer:
    """A mask in the forms that are shown."""
    overlay = overlay_mask(_dimmed(picture, ~mask), mask, FOUND_COLOR, alpha=0.3) if mask.any() else picture
    return Answer(overlay, _BLACK_AND_WHITE[mask.astype(np.uint8)], caption, bool(mask.any()))


def _dimmed(picture: RGB, where: Mask) -> RGB:
    """A copy that is darker there, so that what is found stands out whatever its colour."""
    dimmed = picture.copy()
    dimmed[where] = (dimmed[where] * _DIMMED).astype(np.uint8)
    return dimmed


def _references(examples: Examples) -> list[MaskReference]:
    return [MaskReference(picture, mask) for picture, mask in examples]


def _caption(found: Segmentation, seconds: float) -> str:
    """Score and time, or that there is nothing."""
    share = 100 * float(found.mask.mean())
    what = f"score {found.score:.2f}, {share:.1f} % of the picture" if found.mask.any() else "nothing was found"
    return f"{what}, {seconds:.2f} s"

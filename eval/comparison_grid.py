"""A comparison as one picture: a case a row, the question, the truth and each method's answer in columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from sam_uniref.data.batch import Task
from sam_uniref.data.prepared import decode_mask
from sam_uniref.eval.cases import Clip, Query, SpokenImage
from sam_uniref.eval.painting import ANSWER, TRUTH, fitted, singled_out, tinted
from sam_uniref.eval.predictions import Prediction
from sam_uniref.eval.protocols import TaskProtocol, Tracks
from sam_uniref.eval.running import StoredPredictions
from sam_uniref.images import RGB, Mask
from sam_uniref.state import whole_file

CASES = 3
"""Of each task, the first so many."""

_TILE, _GAP, _HEAD, _LEFT, _FONT = 144, 6, 40, 170, 13
_PAPER, _INK = (250, 250, 250), (20, 20, 20)

Answers = Mapping[str, Mapping[Task, StoredPredictions]]


def write_grid(path: Path, protocols: Mapping[Task, TaskProtocol[Any, Any]], answers: Answers) -> None:
    """Draw the first cases of each task, not chosen; a method that is not asked leaves its place empty.

    Args:
        path: A PNG; whole or not there.
        protocols: By task.
        answers: By method and task.
    """
    rows = [
        (label, [question, truth, *(_answer(answers[name].get(task), protocol, case, key) for name in answers)])
        for task, protocol in protocols.items()
        for case in (protocol.source[index] for index in range(min(CASES, len(protocol.source))))
        for label, key, question, truth in _asked(task, protocol, case)
    ]
    heads = ["question", "truth", *answers]
    width = _LEFT + len(heads) * (_TILE + _GAP)
    sheet = PILImage.new("RGB", (width, _HEAD + len(rows) * (_TILE + _GAP)), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    for column, head in enumerate(heads):
        draw.multiline_text((_LEFT + column * (_TILE + _GAP), 6), _lines(head, 18), font=font, fill=_INK)
    for number, (label, pictures) in enumerate(rows):
        top = _HEAD + number * (_TILE + _GAP)
        draw.multiline_text((6, top + 6), label, font=font, fill=_INK)
        for column, picture in enumerate(pictures):
            if picture is not None:
                sheet.paste(PILImage.fromarray(fitted(picture, _TILE)), (_LEFT + column * (_TILE + _GAP), top))
    with whole_file(path) as temporary:
        sheet.save(temporary, format="PNG")


def _asked(task: Task, protocol: TaskProtocol[Any, Any], case: Any) -> Iterator[tuple[str, tuple[str, int], RGB, RGB]]:
    """The first thing that is asked about a case: its label, answer and frame, the question and the truth."""
    if isinstance(case, SpokenImage):
        sentence, picture = case.sentences[0], case.load()
        truth = _mask(sentence.mask, case.size)
        yield f"{task}\n{_lines(sentence.text)}", (sentence.name, 0), picture, tinted(picture, truth, TRUTH)
    elif isinstance(case, Query):
        support, picture = case.supports()[0], case.load()
        shown = singled_out(np.asarray(support.image), np.asarray(support.mask), TRUTH)
        shots = min(protocol.answers(case), key=int)
        yield f"{task}, one example\n{case.category}", (shots, 0), shown, tinted(picture, decode_mask(case.mask), TRUTH)
    elif isinstance(case, Clip) and isinstance(protocol, Tracks):
        track = next((track for track in protocol.tracks(case) if track.frames), None)
        if track is not None:
            # The last frame in which it is seen: what is left after all of the way.
            frame = max((f for f in track.frames if f in track.item.masks), default=track.frames[-1])
            picture = case.load(frame)
            truth = _mask(track.item.masks.get(frame), case.size)
            question = picture if track.sentence else _first(case, track.item)
            label = f"{task}, frame {frame}\n{_lines(track.sentence or f'object {track.item.id}')}"
            yield label, (track.answer, frame), question, tinted(picture, truth, TRUTH)


def _first(case: Clip, item: Any) -> RGB:
    """The frame whose mask is given, with it."""
    return singled_out(case.load(item.first), _mask(item.masks.get(item.first), case.size), TRUTH)


def _mask(encoded: Any, size: tuple[int, int]) -> Mask:
    return np.zeros(size, bool) if encoded is None else decode_mask(encoded)


def _answer(
    predictions: StoredPredictions | None, protocol: TaskProtocol[Any, Any], case: Any, key: tuple[str, int]
) -> RGB | None:
    """A method's answer, painted; None if it is not asked this task."""
    if predictions is None:
        return None
    prediction: Prediction = predictions.read(case)
    name, frame = key
    picture = case.load(frame) if isinstance(case, Clip) else case.load()
    return tinted(picture, prediction.mask(name, frame), ANSWER)


def _lines(text: str, width: int = 24) -> str:
    """Text broken between words."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:6])

"""What a RefShapes sentence says, read from its words alone: shares nothing with the grammar that wrote it.

No margins: "left of" is any smaller x, "largest" any greater size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol


class Thing(Protocol):
    """What the checker looks at."""

    @property
    def shape(self) -> str: ...
    @property
    def colour(self) -> str: ...
    @property
    def texture(self) -> str: ...
    @property
    def size(self) -> float: ...
    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...


def _shape(*names: str) -> Callable[[Thing], bool]:
    return lambda o: o.shape in names


def _colour(name: str) -> Callable[[Thing], bool]:
    return lambda o: o.colour == name


def _texture(name: str) -> Callable[[Thing], bool]:
    return lambda o: o.texture == name


_NOT_SAYING = {"the", "a", "an", "in", "is", "that", "which", "with", "object", "shape", "thing"}
_MEANING: dict[str, Callable[[Thing], bool]] = {
    **{
        n: _shape(n)
        for n in [
            "circle",
            "square",
            "triangle",
            "star",
            "heart",
            "cross",
            "ring",
            "diamond",
            "arrow",
            "rectangle",
            "drop",
        ]
    },
    "disc": _shape("circle"),
    "crescent": _shape("crescent"),
    "moon": _shape("crescent"),
    **{n: _colour(n) for n in ["red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"]},
    "plain": _texture("plain"),
    "striped": _texture("striped"),
    "stripes": _texture("striped"),
    "dotted": _texture("dotted"),
    "spotted": _texture("dotted"),
    "dots": _texture("dotted"),
    "checked": _texture("checked"),
    "checks": _texture("checked"),
    # Nothing is drawn with a radius between 0.1 and 0.13.
    "small": lambda o: o.size < 0.116,
    "little": lambda o: o.size < 0.116,
    "large": lambda o: o.size > 0.116,
    "big": lambda o: o.size > 0.116,
}
_ORDER: dict[str, Callable[[Thing], float]] = {
    "left": lambda o: o.x,
    "right": lambda o: -o.x,
    "top": lambda o: o.y,
    "bottom": lambda o: -o.y,
    "largest": lambda o: -o.size,
    "smallest": lambda o: o.size,
}
_SUPERLATIVE = {
    "leftmost": "left",
    "rightmost": "right",
    "topmost": "top",
    "highest": "top",
    "top": "top",
    "bottommost": "bottom",
    "lowest": "bottom",
    "bottom": "bottom",
    "largest": "largest",
    "biggest": "largest",
    "smallest": "smallest",
}
_RELATION = {
    "left of": "left",
    "right of": "right",
    "above": "top",
    "higher than": "top",
    "below": "bottom",
    "under": "bottom",
    "lower than": "bottom",
}
_RANK = {"second": 1, "third": 2}
_BEST = "|".join(_SUPERLATIVE)
_SIDES = "left|right|top|bottom"
_FORMS = [
    (rf"(?:the )?(?P<rank>second|third) (?P<what>.+) from the (?P<way>{_SIDES})", "rank"),
    (rf"from the (?P<way>{_SIDES}) the (?P<rank>second|third) (?P<what>.+)", "rank"),
    (r"(?P<what>.+) furthest (?P<way>left|right)", "best"),
    (rf"(?P<what>.+) which is the (?P<best>{_BEST})", "best"),
    (rf"(?:the )?(?P<best>{_BEST}) (?P<what>.+)", "best"),
    (
        rf"(?P<what>.+?)(?: that is| which is)?(?: to the)? (?P<relation>{'|'.join(_RELATION)}) (?P<anchor>.+)",
        "relation",
    ),
]


def kind_of(sentence: str) -> str:
    """``rank``, ``best``, ``relation`` or ``attributes``."""
    return next((kind for form, kind in _FORMS if re.fullmatch(form, sentence)), "attributes")


def true_of(sentence: str, objects: Sequence[Thing]) -> list[int]:
    """Which objects a sentence is true of.

    Raises:
        ValueError: If a word is not known.
    """
    for form, kind in _FORMS:
        match = re.fullmatch(form, sentence)
        if match:
            said = match.groupdict()
            return _singled_out(kind, said, objects, _those(said["what"], objects))
    return _those(sentence, objects)


def _those(phrase: str, objects: Sequence[Thing]) -> list[int]:
    """Objects that all words of a phrase are true of."""
    words = [w for w in phrase.split() if w not in _NOT_SAYING]
    unknown = [w for w in words if w not in _MEANING]
    if unknown:
        raise ValueError(f"{unknown} in {phrase!r}")
    return [k for k, o in enumerate(objects) if all(_MEANING[w](o) for w in words)]


def _singled_out(kind: str, said: dict[str, str], objects: Sequence[Thing], members: list[int]) -> list[int]:
    """Those of the members that a place, an order or another object singles out."""
    if kind == "relation":
        anchors = _those(said["anchor"], objects)
        if len(anchors) != 1:
            return []
        order = _ORDER[_RELATION[said["relation"]]]
        return [k for k in members if order(objects[k]) < order(objects[anchors[0]])]
    order = _ORDER[_SUPERLATIVE[said["best"]] if said.get("best") else said["way"]]
    place = _RANK[said["rank"]] if kind == "rank" else 0
    # Ties count for all: a sentence that holds for two is not true of one.
    return [k for k in members if sum(order(objects[o]) < order(objects[k]) for o in members) == place]

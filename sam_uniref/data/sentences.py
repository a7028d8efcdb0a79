"""What a picture's flip does to the sentence about it."""

from __future__ import annotations

import re

_OPPOSITE = {"left": "right", "right": "left"}
_SIDE = re.compile(r"\b(left|right)(?=(?:most|hand|ward|wards|ish|er)?\b)", re.IGNORECASE)
# A crop moves the picture's edges and may cut away the others that a position is counted from.
_POSITION = re.compile(
    r"\b(left|right|top|bottom|upper|lower|middle|center|centre|corner|edge|side|front|back|behind|far|near\w*|"
    r"close\w*|between|above|below|under|over|next|first|second|third|fourth|fifth|last|\d+(st|nd|rd|th)|"
    r"(left|right|top|bottom|upper|lower|middle)(most|hand))\b",
    re.IGNORECASE,
)


def mirror_sentence(sentence: str) -> str:
    """Swap the words left and right (also leftmost, right-hand), not letters inside "bright" or "cleft"."""

    def opposite(match: re.Match[str]) -> str:
        word = match.group(0)
        swapped = _OPPOSITE[word.lower()]
        if word.isupper():
            return swapped.upper()
        return swapped.capitalize() if word[0].isupper() else swapped

    return _SIDE.sub(opposite, sentence)


def names_position(sentence: str) -> bool:
    """Whether the sentence speaks of a place or an order in the picture."""
    return bool(_POSITION.search(sentence))

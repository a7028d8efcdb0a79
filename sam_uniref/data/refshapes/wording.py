"""Descriptions in words: a small grammar a style, over one closed vocabulary."""

from __future__ import annotations

from sam_uniref.data.refshapes.draws import Draws
from sam_uniref.data.refshapes.language import SIDES, Description, Phrase
from sam_uniref.data.refshapes.palette import COLOURS, Style
from sam_uniref.data.refshapes.shapes import SEEN_SHAPES

_NOUNS: dict[str | None, tuple[str, ...]] = {
    **{shape: (shape,) for shape in SEEN_SHAPES},
    # The word people use first stands twice: it is drawn twice as often.
    "circle": ("circle", "circle", "disc"),
    "crescent": ("crescent", "crescent", "moon"),
    None: ("object", "shape", "thing"),
}
_SIZES = {"small": ("small", "little"), "large": ("large", "big")}
_TEXTURES = {
    "plain": ("plain",),
    "striped": ("striped",),
    "dotted": ("dotted", "spotted"),
    "checked": ("checked",),
}
_PATTERNS = {"striped": "with stripes", "dotted": "with dots", "checked": "with checks"}
_RELATIONS = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "top": ("above", "higher than"),
    "bottom": ("below", "under", "lower than"),
}
_SUPERLATIVES = {
    "left": ("leftmost",),
    "right": ("rightmost",),
    "top": ("topmost", "highest", "top"),
    "bottom": ("bottommost", "lowest", "bottom"),
    "largest": ("largest", "biggest"),
    "smallest": ("smallest",),
}
_ORDINALS = {2: "second", 3: "third"}
_GRAMMAR = ("the", "a", "an", "in", "that", "which", "is", "from", "furthest")

VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {
            *_GRAMMAR,
            *COLOURS,
            *_ORDINALS.values(),
            *(
                word
                for table in (_NOUNS, _SIZES, _TEXTURES, _RELATIONS, _SUPERLATIVES)
                for choices in table.values()
                for choice in choices
                for word in choice.split()
            ),
            *(word for pattern in _PATTERNS.values() for word in pattern.split()),
        }
    )
)
"""All words of all sentences, of both styles. Sentences have no capitals and no punctuation."""


def word(description: Description, draws: Draws, style: Style = "textured") -> str:
    """A sentence that says a description: lower-case words of `VOCABULARY`, one blank between."""
    return _plain(description, draws) if style == "plain" else _textured(description, draws)


# ---- The textured style's wording ----


def _textured(description: Description, draws: Draws) -> str:
    """Most of the variety is here."""
    noun_phrase = _noun_phrase(description.phrase, draws)
    if description.kind == "superlative":
        if description.way in ("left", "right") and draws.chance(0.3):
            return f"{_definite(noun_phrase, draws)} furthest {description.way}"
        return _definite(f"{draws.choice(_SUPERLATIVES[description.way])} {noun_phrase}", draws)
    if description.kind == "ordinal":
        return f"{_definite(f'{_ORDINALS[description.rank]} {noun_phrase}', draws)} from the {description.way}"
    if description.kind == "relation" and description.anchor is not None:
        link = "that is " if draws.chance(0.2) and " that " not in f" {noun_phrase} " else ""
        relation = draws.choice(_RELATIONS[description.way])
        anchor = _definite(_noun_phrase(description.anchor, draws), draws)
        return f"{_article(noun_phrase, draws)} {link}{relation} {anchor}"
    return _article(noun_phrase, draws)


def _noun_phrase(phrase: Phrase, draws: Draws) -> str:
    """Attributes before and after a noun."""
    before, after = [], ""
    texture = draws.choice(_TEXTURES[phrase.texture]) if phrase.texture else ""
    colour = phrase.colour or ""
    ending = draws.weighted(("", "pattern", "colour"), (6, 2, 1))
    if ending == "pattern" and phrase.texture in _PATTERNS:
        texture, after = "", f" {_PATTERNS[phrase.texture]}"
    elif ending == "colour" and colour:
        colour, after = "", f" {draws.choice(('in', 'that is', 'which is'))} {colour}"
    if phrase.size_name:
        before.append(draws.choice(_SIZES[phrase.size_name]))
    before += [colour, texture] if draws.chance(0.3) else [texture, colour]
    noun = draws.choice(_NOUNS[phrase.shape])
    return " ".join([*(w for w in before if w), noun]) + after


def _article(phrase: str, draws: Draws) -> str:
    """A phrase after "the", "a" or nothing."""
    indefinite = "an" if phrase[0] in "aeiou" else "a"
    start = draws.weighted(("the ", f"{indefinite} ", ""), (6, 2, 2))
    return start + phrase


def _definite(phrase: str, draws: Draws) -> str:
    """A phrase that has but one object, after "the" or nothing."""
    return f"the {phrase}" if draws.chance(0.8) else phrase


# ---- The plain style's wording: other templates of the same words ----


def _plain(description: Description, draws: Draws) -> str:
    """Relative clauses, and the place first."""
    noun_phrase = _plain_noun_phrase(description.phrase)
    if description.kind == "superlative":
        # "The top" of what stands after it, but not "which is the top".
        words = [w for w in _SUPERLATIVES[description.way] if w not in SIDES]
        return f"the {noun_phrase} which is the {draws.choice(words)}"
    if description.kind == "ordinal":
        return f"from the {description.way} the {_ORDINALS[description.rank]} {noun_phrase}"
    if description.kind == "relation" and description.anchor is not None:
        anchor = _plain_noun_phrase(description.anchor)
        return f"the {noun_phrase} which is {draws.choice(_RELATIONS[description.way])} the {anchor}"
    if description.phrase.shape:
        article = "an" if noun_phrase[0] in "aeiou" else "a"
        return f"the {draws.choice(_NOUNS[None])} which is {article} {noun_phrase}"
    return f"the {noun_phrase}"


def _plain_noun_phrase(phrase: Phrase) -> str:
    """Attributes in one order."""
    words = [phrase.size_name, phrase.colour, phrase.shape or "object"]
    return " ".join(w for w in words if w)

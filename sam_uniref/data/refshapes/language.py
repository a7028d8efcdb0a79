"""What may be said of a scene: descriptions that are clearly true of exactly one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

from sam_uniref.data.refshapes.draws import Draws
from sam_uniref.data.refshapes.palette import Style
from sam_uniref.data.refshapes.scene import ShapeObject

Kind = Literal["attributes", "relation", "superlative", "ordinal"]
KINDS: tuple[Kind, ...] = ("attributes", "relation", "superlative", "ordinal")
_KIND_WEIGHTS = {"attributes": 40, "relation": 24, "superlative": 22, "ordinal": 14}

SIDES: tuple[str, ...] = ("left", "right", "top", "bottom")
# What people would not call a difference is none: nothing is said that depends on it.
_RELATION_GAP = 0.1
_PLACE_GAP = 0.06
_SIZE_RATIO = 1.25

ATTRIBUTES: tuple[str, ...] = ("size_name", "texture", "colour", "shape")


@dataclass(frozen=True)
class Phrase:
    """Attributes that an object has; None says nothing.

    Attributes:
        size_name: ``small`` or ``large``.
        texture: One of `TEXTURES`.
        colour: One of `COLOURS`.
        shape: One of `SEEN_SHAPES`.
    """

    size_name: str | None = None
    texture: str | None = None
    colour: str | None = None
    shape: str | None = None

    def matches(self, item: ShapeObject) -> bool:
        """Whether all of it is true of an object."""
        return all(getattr(self, name) in (None, getattr(item, name)) for name in ATTRIBUTES)

    def members(self, objects: Sequence[ShapeObject]) -> list[int]:
        """Which objects it is true of."""
        return [k for k, item in enumerate(objects) if self.matches(item)]


@dataclass(frozen=True)
class Description:
    """A query on a scene.

    Attributes:
        kind: How the object is singled out among those of the phrase.
        phrase: What it is.
        way: Relation or place: one of `SIDES` (in a relation: on that side of the anchor); superlatives also
            ``largest`` and ``smallest``.
        anchor: The other object of a relation.
        rank: Of an ordinal, from 1, counted from the side ``way``.
    """

    kind: Kind
    phrase: Phrase
    way: str = ""
    anchor: Phrase | None = None
    rank: int = 1


def resolve(description: Description, objects: Sequence[ShapeObject]) -> int | None:
    """The one object that a description is clearly true of; None if there is none, or any doubt."""
    members = description.phrase.members(objects)
    if description.kind == "attributes":
        return members[0] if len(members) == 1 else None
    if description.kind == "relation":
        return _related(description, objects, members)
    if description.way in ("largest", "smallest"):
        return _extreme_size(description, objects, members)
    # The leftmost of one is no choice, and the second of two is better called the rightmost.
    if len(members) < (2 if description.kind == "superlative" else 3) or description.rank > len(members):
        return None
    ordered = sorted(members, key=lambda k: _depth_from(description.way, objects[k]))
    places = [_depth_from(description.way, objects[k]) for k in ordered]
    around = places[max(0, description.rank - 2) : description.rank + 1]
    clear = all(b - a >= _PLACE_GAP for a, b in pairwise(around))
    return ordered[description.rank - 1] if clear else None


def _depth_from(side: str, item: ShapeObject) -> float:
    """Distance from a side of the picture."""
    return {"left": item.x, "right": 1 - item.x, "top": item.y, "bottom": 1 - item.y}[side]


def _extreme_size(description: Description, objects: Sequence[ShapeObject], members: list[int]) -> int | None:
    """The largest or smallest, if it is so by far."""
    if len(members) < 2:
        return None
    ordered = sorted(members, key=lambda k: objects[k].size, reverse=description.way == "largest")
    first, second = objects[ordered[0]].size, objects[ordered[1]].size
    return ordered[0] if max(first, second) >= _SIZE_RATIO * min(first, second) else None


def _related(description: Description, objects: Sequence[ShapeObject], members: list[int]) -> int | None:
    """The only member on the anchor's side, if no other comes near to being there."""
    anchors = description.anchor.members(objects) if description.anchor else []
    if len(anchors) != 1:
        return None
    anchor = objects[anchors[0]]
    found = []
    for k in members:
        if k == anchors[0]:
            continue
        ahead = _depth_from(description.way, anchor) - _depth_from(description.way, objects[k])
        if -_PLACE_GAP / 2 < ahead < _RELATION_GAP:
            return None
        if ahead > 0:
            found.append(k)
    return found[0] if len(found) == 1 else None


# ---- What can be said of one object ----


def phrases(item: ShapeObject, style: Style) -> list[Phrase]:
    """All true phrases about an object, the shortest first."""
    # The plain style's textures have no names.
    names = [name for name in ATTRIBUTES if name != "texture" or style == "textured"]
    return [
        Phrase(**{name: getattr(item, name) for name in chosen})
        for count in range(len(names) + 1)
        for chosen in combinations(names, count)
    ]


def draw_description(
    draws: Draws, objects: Sequence[ShapeObject], target: int, style: Style, kind: Kind | None = None
) -> Description | None:
    """A description of one object, each kind about as often as people use it.

    Args:
        draws: Chance.
        objects: Of the scene.
        target: Which one to describe.
        style: The plain style has no names for textures.
        kind: Only of this kind.

    Returns:
        One that `resolve` gives the target for; None if there is none.
    """
    kinds = list(KINDS) if kind is None else [kind]
    while kinds:
        chosen = draws.weighted(kinds, [_KIND_WEIGHTS[k] for k in kinds])
        for candidate in _candidates(draws, objects, target, style, chosen):
            if resolve(candidate, objects) == target:
                return candidate
        kinds.remove(chosen)
    return None


def _candidates(
    draws: Draws, objects: Sequence[ShapeObject], target: int, style: Style, kind: Kind
) -> list[Description]:
    """What might be said of the target, in the order in which it is tried."""
    about = phrases(objects[target], style)
    if kind == "attributes":
        # Now and then more is said than is needed.
        ordered = draws.shuffled(about[1:])
        if draws.chance(0.6):
            ordered.sort(key=_length)
        return [Description(kind, phrase) for phrase in ordered]
    # What singles the object out by attributes alone needs no place as well.
    wide = [p for p in draws.shuffled(about) if len(p.members(objects)) > 1]
    if kind == "superlative":
        ways = draws.shuffled((*SIDES, "largest", "smallest"))
        return [
            Description(kind, phrase, way)
            for phrase in wide
            for way in ways
            if not (phrase.size_name and way in ("largest", "smallest"))
        ]
    if kind == "ordinal":
        return [Description(kind, p, way, rank=rank) for p in wide for way in draws.shuffled(SIDES) for rank in (2, 3)]
    return _relations(draws, objects, target, style, wide)


def _relations(
    draws: Draws, objects: Sequence[ShapeObject], target: int, style: Style, wide: list[Phrase]
) -> list[Description]:
    """Relations to the other objects, each named by the shortest phrases that single it out."""
    found = []
    for other in draws.shuffled([k for k in range(len(objects)) if k != target]):
        names = [p for p in phrases(objects[other], style)[1:] if len(p.members(objects)) == 1]
        shortest = [p for p in names if _length(p) == _length(names[0])]
        if not shortest:
            continue
        anchor = draws.choice(shortest)
        ways = draws.shuffled(SIDES)
        found += [Description("relation", phrase, way, anchor) for phrase in wide[:6] for way in ways]
    return found


def _length(phrase: Phrase) -> int:
    """Number of attributes said."""
    return sum(getattr(phrase, name) is not None for name in ATTRIBUTES)

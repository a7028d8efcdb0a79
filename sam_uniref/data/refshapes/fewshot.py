"""Few-shot episodes: a class is a shape; colour, texture, size, angle and place change from picture to picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sam_uniref.data.refshapes.draws import Draws
from sam_uniref.data.refshapes.palette import Style, draw_background
from sam_uniref.data.refshapes.scene import Scene, ShapeObject, arrange, draw_object


@dataclass(frozen=True)
class ClassScene:
    """A scene with one object of a class.

    Attributes:
        scene: With objects of other classes.
        target: Which of its objects is of the class.
    """

    scene: Scene
    target: int


def draw_class_scene(
    draws: Draws,
    style: Style,
    shape: str,
    shapes: Sequence[str],
    others: tuple[int, int],
    lure: ShapeObject | None = None,
) -> ClassScene:
    """A scene with one object of a shape.

    Args:
        draws: Chance.
        style: Of the drawing.
        shape: The class.
        shapes: What the other objects may be; the class itself is left out.
        others: The fewest and the most of them.
        lure: Of another picture: one object of another shape takes its colour and texture, so that these mislead.
    """
    rest = [s for s in shapes if s != shape]
    while True:
        target = draw_object(draws, style, shape=shape)
        company = [draw_object(draws, style, shapes=rest) for _ in range(draws.between(*others))]
        if lure is not None and company:
            company[0] = draw_object(draws, style, shapes=rest, colour=lure.colour, texture=lure.texture)
        objects = arrange(draws, draws.shuffled([target, *company]))
        found = [k for k, o in enumerate(objects) if o.shape == shape]
        if found and len(objects) > others[0]:
            return ClassScene(Scene(objects, draw_background(draws, style)), found[0])

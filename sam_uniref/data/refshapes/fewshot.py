"""Few-shot episodes: a class is a shape; colour, texture, size, angle and place change from picture to picture.

As members of a class often do, half of the queries' objects look like those of the first support in colour and texture.
Of the others more than half have a lure: another shape that does.

In training half of the classes are doodles, outlines that mean nothing: a dozen named shapes alone teach to tell these
from each other, not to compare.
"""

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

    def classes(self) -> list[int]:
        """Objects that are the only one of their class, the target first."""
        shapes = [o.shape for o in self.scene.objects]
        alone = [k for k, shape in enumerate(shapes) if shapes.count(shape) == 1 and k != self.target]
        return [self.target, *alone]


def draw_class_scene(
    draws: Draws,
    style: Style,
    shape: str,
    shapes: Sequence[str],
    others: tuple[int, int],
    *,
    like: ShapeObject | None = None,
    lure: ShapeObject | None = None,
) -> ClassScene:
    """A scene with one object of a shape.

    Args:
        draws: Chance.
        style: Of the drawing.
        shape: The class.
        shapes: What the other objects may be; the class itself is left out.
        others: The fewest and the most of them.
        like: Of another picture: the object takes its colour and texture, so that these help.
        lure: Of another picture: one object of another shape takes its colour and texture, so that these mislead.
    """
    rest = [s for s in shapes if s != shape]
    while True:
        look = {} if like is None else {"colour": like.colour, "texture": like.texture}
        target = draw_object(draws, style, shape=shape, **look)
        company = [draw_object(draws, style, shapes=rest) for _ in range(draws.between(*others))]
        if lure is not None and company:
            company[0] = draw_object(draws, style, shapes=rest, colour=lure.colour, texture=lure.texture)
        objects = arrange(draws, draws.shuffled([target, *company]))
        found = [k for k, o in enumerate(objects) if o.shape == shape]
        if found and len(objects) > others[0]:
            return ClassScene(Scene(objects, draw_background(draws, style)), found[0])


def draw_shared_scene(
    draws: Draws, style: Style, wanted: Sequence[str], shapes: Sequence[str], like: ShapeObject | None
) -> Scene:
    """A scene with one object of each of several shapes, and at most one more.

    Args:
        draws: Chance.
        style: Of the drawing.
        wanted: Shapes, all of them different.
        shapes: What the one more may be; those that are wanted are left out.
        like: Of another picture: the object of the first shape takes its colour and texture.
    """
    rest = [s for s in shapes if s not in wanted]
    look = {} if like is None else {"colour": like.colour, "texture": like.texture}
    while True:
        drawn = [draw_object(draws, style, shape=wanted[0], **look)]
        drawn += [draw_object(draws, style, shape=shape) for shape in wanted[1:]]
        drawn += [draw_object(draws, style, shapes=rest) for _ in range(draws.below(2))]
        objects = arrange(draws, draws.shuffled(drawn))
        if {o.shape for o in objects}.issuperset(wanted):
            return Scene(objects, draw_background(draws, style))

"""How large training looks at pictures: a short side drawn for every sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sam_uniref.transforms import ImageTransform, ShortSideTransform

_STEP = 32


@dataclass(frozen=True)
class ShortSides:
    """What a sample's short side is drawn from: all its pictures get the same, as the frames of a clip must.

    Attributes:
        smallest: In pixels.
        largest: In pixels; between the two every 32nd.
        longest: Most that a long side may become, in pixels.
    """

    smallest: int
    largest: int
    longest: int

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.largest <= self.longest:
            raise ValueError(
                "short sides must be positive, the smallest first, and at most the longest side, got "
                f"{self.smallest}-{self.largest} and {self.longest}"
            )

    def draw(self, transform: ImageTransform, rng: np.random.Generator) -> ImageTransform:
        """A model's transform with a short side that is drawn.

        Raises:
            ValueError: If the model takes pictures of one size alone.
        """
        if not isinstance(transform, ShortSideTransform):
            raise ValueError("short_sides do nothing for a model whose input is a square; leave them out")
        side = int(rng.choice(np.arange(self.smallest, self.largest + 1, _STEP)))
        return replace(transform, size=side, longest=self.longest)

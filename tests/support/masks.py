"""Masks of all shapes, for round trips."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

RING = (np.hypot(*(np.mgrid[:40, :50] - np.array([20, 25])[:, None, None])) < 18) & (
    np.hypot(*(np.mgrid[:40, :50] - np.array([20, 25])[:, None, None])) > 7
)


@st.composite
def any_mask(draw: st.DrawFn) -> NDArray[np.bool_]:
    """Noise, rectangles in rectangles (holes), or one of the corner cases."""
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    kind = draw(st.sampled_from(["noise", "rectangles", "empty", "full", "pixel", "row", "checkered"]))
    if kind == "noise":
        return draw(hnp.arrays(np.bool_, (height, width)))
    if kind == "rectangles":
        mask = np.zeros((height, width), bool)
        for _ in range(draw(st.integers(1, 5))):
            y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
            part = (slice(y, y + draw(st.integers(1, 12))), slice(x, x + draw(st.integers(1, 12))))
            mask[part] = ~mask[part]
        return mask
    if kind == "checkered":
        return np.indices((height, width)).sum(0) % 2 == 0
    mask = np.full((height, width), kind == "full")
    if kind in ("pixel", "row"):
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        mask[y, x if kind == "pixel" else slice(None)] = True
    return mask

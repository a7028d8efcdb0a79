"""Small diagrams as inline SVG: in the page's own text colour, and with what they show in words."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

_WIDTH, _HEIGHT = 480, 180
# Room for the numbers at the axes.
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 10, 24
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
BINS = 20


def histogram(values: Sequence[float], what: str) -> str:
    """How many values lie where, as an ``<svg>`` element.

    Args:
        values: In 0-1.
        what: They are, for those who do not see it.
    """
    counts, edges = np.histogram(np.clip(values, 0, 1), BINS, (0, 1))
    most = max(1, int(counts.max()))
    bars = [
        f'<rect x="{_x(low):.1f}" y="{_y(count / most):.1f}" width="{_x(high) - _x(low) - 1:.1f}" '
        f'height="{_y(0) - _y(count / most):.1f}" fill="currentColor" opacity=".6"/>'
        for count, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True)
        if count
    ]
    mean = float(np.mean(values)) if len(values) else 0.0
    told = f"Histogram of {what}: {len(values)} values, mean {mean:.3f}"
    return _diagram(told, bars, {0.0: "0", 1.0: str(most)})


def curve(values: Sequence[float], what: str) -> str:
    """Values at equal distances from first to last, as an ``<svg>`` element.

    Args:
        values: In 0-1.
        what: They are, for those who do not see it.
    """
    places = np.linspace(0, 1, len(values)) if len(values) > 1 else np.zeros(len(values))
    points = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in zip(places, values, strict=True))
    line = f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="2"/>'
    told = f"{what}, from {values[0]:.3f} to {values[-1]:.3f}" if len(values) else what
    return _diagram(told, [line], {y: f"{y:g}" for y in _TICKS})


def _diagram(told: str, shapes: Sequence[str], heights: dict[float, str]) -> str:
    """Shapes in a frame, with numbers at the axes."""
    marks = [f'<text x="{_x(x):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{x:g}</text>' for x in _TICKS]
    marks += [
        f'<text x="{_LEFT - 6}" y="{_y(y) + 4:.1f}" text-anchor="end">{text}</text>' for y, text in heights.items()
    ]
    frame = f'<path d="M{_LEFT} {_TOP}V{_y(0)}H{_x(1)}" fill="none" stroke="currentColor" opacity=".5"/>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(told)}" font-size="11" '
        f'fill="currentColor">{frame}{"".join(shapes)}{"".join(marks)}</svg>'
    )


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

"""The way into and out of a canvas: sizes, padding, and there and back, for squares and for short sides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_uniref.transforms import ImageTransform, ShortSideTransform, SquareTransform

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SQUARE = SquareTransform(64, MEAN, STD)
SHORT = ShortSideTransform(48, MEAN, STD, longest=96)
sides = st.integers(1, 300)


@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides)
def test_short_side_becomes_the_size_unless_the_long_one_would_be_too_long(height: int, width: int) -> None:
    size = SHORT.input_size((height, width))
    scale = min(48 / min(height, width), 96 / max(height, width))
    assert all(abs(got - side * scale) <= 0.5 or got == 1 for got, side in zip(size, (height, width), strict=True))
    assert max(size) <= 96
    assert min(size) <= 48
    assert min(size) == 48 or max(size) == 96 or 1 in size


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(1, 96), st.integers(1, 96)), min_size=1, max_size=4))
def test_a_canvas_holds_all_and_is_no_larger_than_it_must_be(sizes: list[tuple[int, int]]) -> None:
    canvas = SHORT.canvas(sizes)
    for side, content in zip(canvas, (max(s[0] for s in sizes), max(s[1] for s in sizes)), strict=True):
        assert side % 32 == 0
        assert 0 <= side - content < 32
    assert SQUARE.canvas(sizes) == (64, 64)


def test_published_sizes() -> None:
    """UniRef++'s tests: short side 480, long side at most 1333."""
    transform = ShortSideTransform(480, MEAN, STD, longest=1333)
    assert transform.input_size((720, 1280)) == (480, 853)
    assert transform.input_size((100, 500)) == (267, 1333)
    assert transform.canvas([(480, 853)]) == (480, 864)


@pytest.mark.parametrize("transform", [SQUARE, SHORT])
def test_pictures_of_a_batch_are_as_they_are_alone_and_zero_around(transform: ImageTransform) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((50, 70), (90, 40), (33, 33))]
    pixels, input_sizes = transform.batch(pictures)
    assert pixels.shape == (3, 3, *transform.canvas(input_sizes))
    for picture, shared, (height, width) in zip(pictures, pixels, input_sizes, strict=True):
        alone, size = transform.image(picture)
        assert size == (height, width)
        torch.testing.assert_close(shared[:, :height, :width], alone[:, :height, :width], rtol=0, atol=0)
        assert not shared[:, height:].any()
        assert not shared[:, :, width:].any()


@pytest.mark.parametrize("transform", [SQUARE, SHORT])
def test_a_mask_comes_back(transform: ImageTransform) -> None:
    """A large disc, through a canvas that another picture enlarged, and back to the picture's pixels."""
    rows, columns = np.mgrid[:120, :90]
    mask = (rows - 60) ** 2 + (columns - 40) ** 2 < 30**2
    input_size = transform.input_size(mask.shape)
    canvas = transform.canvas([input_size, (50, 60)])
    inside = transform.mask(mask, canvas)
    assert inside.shape == canvas
    assert not inside[input_size[0] :].any()
    assert not inside[:, input_size[1] :].any()
    back = transform.logits(inside[None, None] * 2 - 1, input_size, (120, 90), canvas)[0, 0].numpy() > 0
    assert (back & mask).sum() / (back | mask).sum() > 0.93


def test_a_pixel_is_not_lost() -> None:
    mask = np.zeros((300, 300), bool)
    mask[151, 7] = True
    assert SHORT.mask(mask).sum() >= 1

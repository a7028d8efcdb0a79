"""Masks of chosen queries: definitions, and that a query's mask is its own."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from sam_uniref.detr.config import MaskHeadConfig
from sam_uniref.detr.mask_head import MaskHead, aligned_upsample


def head() -> MaskHead:
    """A mask head of 32 channels on a map of 12 channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MaskHead(32, 12, MaskHeadConfig()).eval()


def test_the_published_number_of_weights_a_query() -> None:
    assert MaskHead(256, 256, MaskHeadConfig()).controller.layers[-1].out_features == 169


def test_a_mask_is_three_convolutions_of_features_and_coordinates() -> None:
    model = head()
    features, hidden = torch.randn(2, 8, 5, 7), torch.randn(3, 32)
    at, rows = torch.tensor([[3.0, 9.0], [20.0, 1.0], [0.0, 0.0]]), torch.tensor([1, 0, 1])
    with torch.no_grad():
        got = model.build(features, hidden, at, rows)
        numbers = model.controller(hidden)
    assert got.shape == (3, 5, 7)
    y, x = torch.meshgrid(torch.arange(5) * 4.0 + 2, torch.arange(7) * 4.0 + 2, indexing="ij")
    for k in range(3):
        first, second, third = (
            numbers[k, :80].view(8, 10, 1, 1),
            numbers[k, 80:144].view(8, 8, 1, 1),
            numbers[k, 144:152],
        )
        given = torch.cat([torch.stack([at[k, 0] - x, at[k, 1] - y]), features[rows[k]]])[None]
        inner = F.conv2d(given, first, numbers[k, 152:160]).relu()
        inner = F.conv2d(inner, second, numbers[k, 160:168]).relu()
        expected = F.conv2d(inner, third.view(1, 8, 1, 1), numbers[k, 168:])
        torch.testing.assert_close(got[k], expected[0, 0], rtol=1e-4, atol=1e-4)


def test_some_queries_have_the_masks_they_have_among_all() -> None:
    model = head()
    features, hidden, at = torch.randn(2, 8, 4, 4), torch.randn(6, 32), torch.rand(6, 2) * 16
    rows = torch.tensor([0, 1, 0, 1, 1, 0])
    with torch.no_grad():
        whole = model.build(features, hidden, at, rows)
        some = torch.tensor([4, 2])
        part = model.build(features, hidden[some], at[some], rows[some])
    torch.testing.assert_close(part, whole[some])
    assert whole.shape == (6, 4, 4)


def test_no_query_no_mask() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    made = head().build(torch.randn(1, 8, 4, 6), torch.zeros(0, 32), torch.zeros(0, 2), nothing)
    assert made.shape == (0, 4, 6)


def test_autocast_does_not_blur_where_a_pixel_is() -> None:
    model = head()
    features, hidden, at = torch.randn(1, 8, 64, 4), torch.randn(1, 32), torch.tensor([[3.0, 251.0]])
    row = torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        expected = model.build(features, hidden, at, row)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model.build(features, hidden, at, row), expected)


def test_aligned_upsampling_keeps_cells_where_they_begin() -> None:
    maps = torch.randn(2, 3, 4, 5)
    assert aligned_upsample(maps, 1) is maps
    got = aligned_upsample(maps, 4)
    assert got.shape == (2, 3, 16, 20)
    # Half a cell later each value is met exactly, and between two of them it is on the line.
    torch.testing.assert_close(got[..., 2::4, 2::4], maps)
    torch.testing.assert_close(
        got[..., 2, 3:6], torch.stack([maps[..., 0, 0].lerp(maps[..., 0, 1], k / 4) for k in (1, 2, 3)], -1)
    )


def test_mask_features_are_of_stride_4() -> None:
    model = head()
    memory = [torch.randn(2, 32, 8, 12), torch.randn(2, 32, 4, 6), torch.randn(2, 32, 2, 3), torch.randn(2, 32, 1, 2)]
    with torch.no_grad():
        fine = model.lateral(torch.randn(2, 12, 16, 24))
        made = model.features(memory, fine)
        other = model.features([*memory[:3], memory[3] + 1], fine)
    assert made.shape == (2, 8, 16, 24)
    assert torch.equal(made, other)  # the coarsest level is not used

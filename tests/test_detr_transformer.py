"""Deformable attention, proposals and decoder: definitions, shapes that padding must not change, and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sam_uniref.detr import deformable_attention, fused_sampling
from sam_uniref.detr.boxes import centers, corners, inverse_sigmoid
from sam_uniref.detr.config import TransformerConfig
from sam_uniref.detr.deformable_attention import DeformableAttention, sample_levels
from sam_uniref.detr.fused_sampling import sample_fused
from sam_uniref.detr.positions import box_positions, sine_positions
from sam_uniref.detr.proposals import grid_boxes
from sam_uniref.detr.transformer import DetectionTransformer
from sam_uniref.transforms import Size, content_mask

STRIDES = (8, 16, 32, 64)
SMALL = {"width": 32, "heads": 4, "encoder_layers": 1, "decoder_layers": 2, "feedforward": 16, "queries": 5}


def network(seed: int = 0, **options: object) -> DetectionTransformer:
    """A small transformer with noise on its weights, so that no head is zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DetectionTransformer(TransformerConfig(**{**SMALL, **options}), levels=4, classes=2, iou_head=True)  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def levels(sizes: Sequence[Size], canvas: Size, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Feature levels with zeros in the padding, and the padding, of images of these sizes on a canvas."""
    maps, padding = [], []
    for stride in STRIDES:
        grid = (-(-canvas[0] // stride), -(-canvas[1] // stride))
        content = content_mask(sizes, grid, stride, torch.device("cpu"))
        drawn = torch.zeros(len(sizes), 32, *grid)
        for row, (height, width) in enumerate(sizes):
            generator = torch.Generator().manual_seed(1000 * seed + 10 * row + stride)
            own = (-(-height // stride), -(-width // stride))
            drawn[row, :, : own[0], : own[1]] = torch.randn(32, *own, generator=generator)
        maps.append(drawn)
        padding.append(~content)
    return maps, padding


def sampled_one_by_one(values: Tensor, sizes: Sequence[Size], locations: Tensor, weights: Tensor) -> Tensor:
    """The definition, a sample at a time: bilinear between cell centres, zeros outside."""
    rows, _, heads, width = values.shape
    result = torch.zeros(rows, locations.shape[1], heads, width)
    starts = [sum(h * w for h, w in sizes[:level]) for level in range(len(sizes))]
    for n, q, head, level, point in torch.cartesian_prod(*map(torch.arange, locations.shape[:5])).tolist():
        h, w = sizes[level]
        x, y = (locations[n, q, head, level, point] * torch.tensor([w, h]) - 0.5).tolist()
        for row in (int(y // 1), int(y // 1) + 1):
            for column in (int(x // 1), int(x // 1) + 1):
                if 0 <= row < h and 0 <= column < w:
                    share = (1 - abs(y - row)) * (1 - abs(x - column))
                    cell = values[n, starts[level] + row * w + column, head]
                    result[n, q, head] += weights[n, q, head, level, point] * share * cell
    return result.flatten(2)


def drawn_samples(seed: int = 0) -> tuple[Tensor, list[Size], Tensor, Tensor]:
    """Values, sizes, locations (some outside) and weights."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(3, 4), (2, 1)]
    values = torch.randn(2, 14, 2, 3, generator=generator)
    locations = torch.rand(2, 5, 2, 2, 3, 2, generator=generator) * 1.6 - 0.3
    weights = torch.rand(2, 5, 2, 2, 3, generator=generator)
    return values, sizes, locations, weights


def test_samples_are_bilinear_sums() -> None:
    given_samples = drawn_samples()
    torch.testing.assert_close(sample_levels(*given_samples), sampled_one_by_one(*given_samples))


class PlainKernel:
    """What a compiled kernel offers, made of plain PyTorch; it counts its calls."""

    def __init__(self) -> None:
        self.calls = {"forward": 0, "backward": 0}

    def ms_deform_attn_forward(
        self, values: Tensor, sizes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor, rows: int
    ) -> Tensor:
        self.calls["forward"] += 1
        assert sizes.dtype == starts.dtype == torch.int64
        assert starts.tolist() == [0, *(sizes.prod(1).cumsum(0)[:-1].tolist())]
        assert len(values) % rows == 0
        assert all(tensor.is_contiguous() for tensor in (values, locations, weights))
        return sample_levels(values, [(h, w) for h, w in sizes.tolist()], locations, weights)

    def ms_deform_attn_backward(
        self,
        values: Tensor,
        sizes: Tensor,
        starts: Tensor,
        locations: Tensor,
        weights: Tensor,
        gradient: Tensor,
        rows: int,
    ) -> list[Tensor]:
        self.calls["backward"] += 1
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_() for tensor in (values, locations, weights)]
            made = sample_levels(leaves[0], [(h, w) for h, w in sizes.tolist()], *leaves[1:])
            return list(torch.autograd.grad(made, leaves, gradient))


def test_a_fused_kernel_gives_the_same_values_and_gradients() -> None:
    values, sizes, locations, weights = drawn_samples()
    plain = [tensor.clone().requires_grad_() for tensor in (values, locations, weights)]
    fused = [tensor.clone().requires_grad_() for tensor in (values, locations, weights)]
    expected = sample_levels(plain[0], sizes, plain[1], plain[2])
    kernel = PlainKernel()
    got = sample_fused(kernel, fused[0], torch.tensor(sizes), fused[1], fused[2])
    torch.testing.assert_close(got, expected)
    expected.square().sum().backward()
    got.square().sum().backward()
    assert kernel.calls == {"forward": 1, "backward": 1}
    for one, other in zip(fused, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_kernel_is_that_which_is_installed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    installed: dict[str, object] = {}

    def find(name: str) -> object:
        if name not in installed:
            raise ImportError(name)
        return installed[name]

    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(fused_sampling.importlib, "import_module", find)
    look = fused_sampling.fused_kernel.__wrapped__
    assert look() is None
    installed["kernels"] = SimpleNamespace(get_kernel=lambda name, version: (name, version))
    assert look() == ("kernels-community/deformable-detr", 1)
    installed["kernels"] = SimpleNamespace(get_kernel=fail)
    assert look() is None
    assert "no network" in caplog.text
    installed["MultiScaleDeformableAttention"] = compiled = PlainKernel()
    assert look() is compiled


def test_attention_on_the_cpu_asks_for_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deformable_attention, "fused_kernel", lambda: pytest.fail("asked for a kernel"))
    network()(*levels([(64, 64)], (64, 64)))


def test_attention_starts_as_a_star() -> None:
    attention = DeformableAttention(32, heads=8, levels=2, points=3)
    assert not attention.sampling_offsets.weight.any()
    star = attention.sampling_offsets.bias.view(8, 2, 3, 2)
    torch.testing.assert_close(star[:, 0], star[:, 1])
    torch.testing.assert_close(star.abs().amax(3), torch.tensor([1.0, 2.0, 3.0]).expand(8, 2, 3))
    torch.testing.assert_close(star[0, 0, 1], torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(star[1, 0, 0], torch.tensor([1.0, 1.0]))
    weights = attention.attention_weights(torch.randn(1, 1, 32))
    assert not weights.any()  # all samples alike


def test_what_is_in_padding_is_not_seen() -> None:
    model = network()
    maps, padding = levels([(64, 40)], (64, 96))
    other = [
        torch.where(padded[:, None], torch.randn_like(level), level)
        for level, padded in zip(maps, padding, strict=True)
    ]
    with torch.no_grad():
        got, expected = model(other, padding), model(maps, padding)
    torch.testing.assert_close(got.boxes, expected.boxes)
    torch.testing.assert_close(got.logits, expected.logits)


@pytest.mark.parametrize("canvas", [(64, 96), (128, 96), (160, 320)])
def test_the_canvas_changes_nothing(canvas: Size) -> None:
    model = network()
    with torch.no_grad():
        alone = model(*levels([(64, 90)], (64, 96)))
        beside = model(*levels([(64, 90), (canvas[0], canvas[1])], canvas))
    torch.testing.assert_close(beside.boxes[:, :1], alone.boxes, rtol=0, atol=1e-5)
    torch.testing.assert_close(beside.logits[:, :1], alone.logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(beside.references[:, :1], alone.references, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mixed_selection", [True, False])
def test_fewer_valid_tokens_than_queries_leave_the_count(mixed_selection: bool) -> None:
    model = network(queries=30, mixed_selection=mixed_selection)
    with torch.no_grad():
        alone = model(*levels([(20, 9)], (32, 32)))  # 21 tokens in all
        beside = model(*levels([(20, 9), (96, 96)], (96, 96)))
    assert alone.boxes.shape == (2, 1, 30, 4)
    assert alone.boxes.isfinite().all()
    torch.testing.assert_close(beside.boxes[:, :1], alone.boxes, rtol=0, atol=1e-5)
    assert (alone.references[0, 0, -1] == 1).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2), st.integers(0, 2))
def test_every_image_has_a_valid_proposal(height: int, width: int, more_rows: int, more_columns: int) -> None:
    canvas = ((-(-height // 32) + more_rows) * 32, (-(-width // 32) + more_columns) * 32)
    tokens = network().tokens(*levels([(height, width)], canvas))
    odds, valid = grid_boxes(tokens)
    assert valid.any()
    assert not (valid & tokens.padding).any()
    boxes = odds.sigmoid()
    assert (boxes[~valid] == 1).all()
    assert ((boxes[valid] > 0.01) & (boxes[valid] < 0.99)).all()


def test_invalid_proposals_are_the_last() -> None:
    model = network(queries=120)
    tokens = model.tokens(*levels([(64, 40)], (64, 96)))  # 128 tokens
    _, valid = grid_boxes(tokens)
    with torch.no_grad():
        found = model.proposals(model.encoder(tokens), tokens, model.heads)
    count = int(valid.sum())
    assert count == 8 * 5 + 4 * 3 + 2 * 2 + 1
    assert valid[0][found.chosen[0, :count]].all()
    assert not valid[0][found.chosen[0, count:]].any()
    ranks = found.logits[0, :, 0][found.chosen[0, :count]]
    assert (ranks.diff() <= 0).all()


@pytest.mark.parametrize("twice", [True, False])
def test_look_forward_twice_reaches_the_layer_before(twice: bool) -> None:
    model = network(look_forward_twice=twice)
    output = model(*levels([(64, 64)], (64, 64)))
    heads = [head.layers[-1].weight for head in model.heads.boxes[:2]]

    def reaches(tensor: Tensor) -> list[bool]:
        if not tensor.requires_grad:
            return [False, False]
        found = torch.autograd.grad(tensor.sum(), heads, retain_graph=True, allow_unused=True)
        return [gradient is not None and bool(gradient.any()) for gradient in found]

    assert reaches(output.boxes[0]) == [True, False]
    assert reaches(output.boxes[1]) == [twice, True]
    assert reaches(output.references[0]) == [False, False]
    assert reaches(output.references[1]) == [twice, False]


def test_boxes_are_references_changed_by_heads() -> None:
    output = network()(*levels([(64, 64)], (64, 64)))
    changes = torch.stack([head(x) for head, x in zip(network().heads.boxes, output.hidden, strict=False)])
    torch.testing.assert_close(output.boxes, (changes + inverse_sigmoid(output.references)).sigmoid())
    torch.testing.assert_close(output.references[1], output.boxes[0])


def test_heads_start_as_rare_and_without_a_change() -> None:
    model = DetectionTransformer(TransformerConfig(**SMALL), levels=4, classes=3, iou_head=True)  # type: ignore[arg-type]
    assert len(model.heads.classes) == len(model.heads.boxes) == 3
    assert model.heads.ious is not None
    assert len(model.heads.ious) == 2
    for head in (*model.heads.classes, *model.heads.ious):
        torch.testing.assert_close(head.bias.sigmoid(), torch.full_like(head.bias, 0.01))
    assert not any(head.layers[-1].weight.any() or head.layers[-1].bias.any() for head in model.heads.boxes)
    model.heads.renew_classes(1)
    assert [tuple(head.weight.shape) for head in model.heads.classes] == [(1, 32)] * 3


def test_positions_tell_where_in_the_content() -> None:
    padding = torch.zeros(1, 6, 8, dtype=torch.bool)
    padding[:, 4:] = True
    padding[:, :, 5:] = True
    got = sine_positions(padding, 16)[:, :, :4, :5]
    torch.testing.assert_close(got, sine_positions(padding[:, :4, :5], 16))
    assert not torch.equal(got[0, :, 0, 0], got[0, :, 0, 1])


def test_box_positions_are_four_numbers_side_by_side() -> None:
    boxes = torch.rand(2, 3, 4)
    got = box_positions(boxes, 8)
    assert got.shape == (2, 3, 32)
    again = box_positions(boxes[..., [1, 0, 2, 3]], 8)
    torch.testing.assert_close(got[..., :8], again[..., 8:16])
    torch.testing.assert_close(got[..., 16:], again[..., 16:])


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_there_and_back(values: list[float]) -> None:
    box = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(centers(corners(box)), box)
    torch.testing.assert_close(inverse_sigmoid(box).sigmoid(), box.clamp(1e-5, 1 - 1e-5), rtol=0, atol=2e-5)

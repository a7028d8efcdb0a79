"""Attention with its products in another order: what is linear around it folded to one side, with equal results."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import perturb, random_features, random_references
from torch import Tensor

from sam_uniref.adapters import CrossAttention, ReferenceFeatures, UniFusion, shared_attention
from sam_uniref.adapters.attention import ImageQueries
from sam_uniref.adapters.shared_attention import attend_shared

CHANNELS, HEADS, HEAD_WIDTH = 16, 2, 20
# More tokens than a head is wide, so that a picture is not taken for a sentence.
LENGTH = HEAD_WIDTH + 3


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks even of a few queries."""
    monkeypatch.setattr(shared_attention, "BLOCK", 4 * LENGTH)
    monkeypatch.setattr(shared_attention, "LEAST_QUERIES", 1)


def fusion(dropout: float = 0.0) -> UniFusion:
    """With noisy weights, in float64: what differs then is more than rounding."""
    torch.manual_seed(0)
    module = UniFusion(CHANNELS, heads=HEADS, head_width=HEAD_WIDTH, dropout=dropout)
    perturb(module, 0.3)
    return module.double()


def gradients(module: UniFusion, fused: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
    """Of everything that has one, by name; of the inputs too."""
    named = {**dict(module.named_parameters()), **{f"input {number}": tensor for number, tensor in enumerate(inputs)}}
    weights = torch.randn(fused.shape, generator=torch.Generator().manual_seed(1), dtype=fused.dtype)
    found = torch.autograd.grad((fused * weights).sum(), list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(named[name]) if gradient is None else gradient
        for name, gradient in zip(named, found, strict=True)
    }


def plain(module: UniFusion, feature: Tensor, reference: ReferenceFeatures) -> Tensor:
    """Equation 4 with every projection where it is written."""
    queries = module.queries(feature.flatten(2).transpose(1, 2), reference.image_index)
    keys, values, padding, _ = reference.level(0)
    projected = queries.projected.expand(len(reference), -1, -1, -1)
    return module.attention(projected, module.key_norm(keys), values, padding | ~reference.present[:, None])


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 4),
    images=st.integers(1, 3),
    length=st.sampled_from([1, 3, HEAD_WIDTH, LENGTH, 2 * LENGTH]),
    padded=st.integers(0, 3),
    absent=st.booleans(),
    frozen=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_any_order_gives_the_same_and_the_same_gradients(
    rows: int, images: int, length: int, padded: int, absent: bool, frozen: bool, seed: int
) -> None:
    module = fusion()
    (feature,) = random_features(images, ((4, 5),), seed=seed)
    index = torch.randint(images, (rows,), generator=torch.Generator().manual_seed(seed))
    reference = random_references(rows, (length,), seed=seed, padded=min(padded, length - 1)).about(index)
    reference = reference.to("cpu", torch.float64)
    if absent:
        reference = replace(reference, present=torch.arange(rows) > 0)
    keys, values = reference.keys[0].requires_grad_(not frozen), reference.values[0].requires_grad_()
    learned = (values,) if frozen else (values, keys)
    queries = module.queries(feature.double().flatten(2).transpose(1, 2), index)
    padding = reference.padding[0] | ~reference.present[:, None]
    ours = module.attend(queries, keys, values, padding)[reference.present]
    wanted = plain(module, feature.double(), reference)[reference.present]
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)
    got, expected = gradients(module, ours, *learned), gradients(module, wanted, *learned)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-8, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_of_shared_attention_are_those_of_differences(dropout: float) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = ((9, 4), (5, 4), (5, 3))
    given_ = [torch.randn(*size, generator=generator, dtype=torch.float64).requires_grad_() for size in sizes]

    def attend(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(3)
        return attend_shared(*tensors, dropout)

    assert torch.autograd.gradcheck(attend, given_)


def test_dropped_weights_are_as_many_as_asked_for_and_the_mean_is_kept() -> None:
    torch.manual_seed(0)
    queries, keys = torch.zeros(500, 4), torch.randn(200, 4)
    attended, sums = attend_shared(queries, keys, torch.ones(200, 1), 0.3)
    # Weights are all alike, so a query's sum is the share that was kept, over the probability of keeping.
    assert sums.mean().item() == pytest.approx(1.0, abs=0.01)
    assert sums.std().item() == pytest.approx((0.3 / 0.7 / 200) ** 0.5, rel=0.15)
    torch.testing.assert_close(attended[:, 0], sums)
    again = attend_shared(queries, keys, torch.ones(200, 1), 0.3)[1]
    assert not torch.equal(again, sums)
    torch.manual_seed(0)
    torch.randn(200, 4)
    assert torch.equal(attend_shared(queries, keys, torch.ones(200, 1), 0.3)[1], sums)


@pytest.mark.parametrize("length", [3, LENGTH])
def test_dropout_is_for_training_and_leaves_the_mean(length: int) -> None:
    module = fusion(dropout=0.4)
    (feature,), reference = random_features(1, ((2, 3),)), random_references(1, (length,)).to("cpu", torch.float64)
    whole = module.eval()([feature.double()], [reference])[0]
    assert torch.equal(module([feature.double()], [reference])[0], whole)
    module.train()
    torch.manual_seed(0)
    with torch.no_grad():
        many = torch.stack([module([feature.double()], [reference])[0] for _ in range(1500)])
    assert not torch.equal(many[0], many[1])
    deviation = many.std(dim=0) / len(many) ** 0.5
    assert ((many.mean(dim=0) - whole).abs() < 5 * deviation + 1e-9).all()


def test_attention_weights_are_never_held_as_a_whole() -> None:
    module, kept = fusion(dropout=0.1).train(), []
    (feature,), reference = random_features(1, ((12, 12),)), random_references(1, (200,)).to("cpu", torch.float64)

    def remember(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        module([feature.double()], [reference])
    assert max(kept) < HEADS * 12 * 12 * 200 / 2


def test_half_precision_is_close() -> None:
    module = fusion().float()
    (feature,), reference = random_features(1, ((4, 5),)), random_references(1, (LENGTH,))
    (whole,) = module([feature], [reference])
    with torch.autocast("cpu", torch.bfloat16):
        (halved,) = module([feature], [reference])
    halved.float().square().sum().backward()
    assert module.attention.value.weight.grad is not None
    torch.testing.assert_close(halved.float(), whole, rtol=0.1, atol=0.1)


def test_narrow_heads_are_not_made_wider() -> None:
    narrow = CrossAttention(CHANNELS, heads=2, head_width=CHANNELS - 1)
    assert not narrow.shares_on(torch.device("cpu"))
    assert fusion().attention.shares_on(torch.device("cpu"))
    assert not fusion().attention.shares_on(torch.device("cuda"))


def test_a_row_of_padding_alone_sees_nothing() -> None:
    module = fusion()
    for length in (3, LENGTH):
        (feature,), reference = random_features(1, ((2, 3),)), random_references(2, (length,)).to("cpu", torch.float64)
        queries = ImageQueries(
            module.attention, feature.double().flatten(2).transpose(1, 2), torch.zeros(2, dtype=torch.int64)
        )
        padding = torch.zeros(2, length, dtype=torch.bool)
        padding[1] = True
        attended = module.attend(queries, reference.keys[0], reference.values[0], padding)
        torch.testing.assert_close(attended[1], module.attention.output.bias.expand(6, -1))
        assert attended[0].std() > 0.01

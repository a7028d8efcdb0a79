"""The plug-in alone: identity at the start, absent rows, padding, batching, gradients, and its two kernels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import perturb, random_features, random_references
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.adapters import CrossAttention, ReferenceFeatures, UniFusion, concat, stack_rows
from sam_uniref.adapters.attention import attend_flash, attend_sdpa, flash_is_usable

CHANNELS = 16
SIZES = ((4, 5), (2, 3))
LENGTHS = (9, 5)


def fusion(*, trained: bool = True) -> UniFusion:
    """A small module in evaluation mode; its weights are noisy if it is to count as trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = UniFusion(CHANNELS, heads=2, head_width=8).eval()
    if trained:
        perturb(module, 0.3)
    return module


def with_rows(reference: ReferenceFeatures, *, present: list[bool]) -> ReferenceFeatures:
    return replace(reference, present=torch.tensor(present))


def assert_levels_close(got: list[Tensor], wanted: list[Tensor]) -> None:
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


# ---- Identity ----


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 3),
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3),
    count=st.integers(1, 4),
    tokens=st.integers(1, 6),
    padded=st.integers(0, 6),
    seed=st.integers(0, 10_000),
)
def test_fresh_adapters_are_the_identity(
    rows: int, sizes: list[tuple[int, int]], count: int, tokens: int, padded: int, seed: int
) -> None:
    features = random_features(rows, tuple(sizes), seed=seed)
    references = [
        random_references(rows, (tokens,) * len(sizes), seed=seed + k, padded=min(padded, tokens)) for k in range(count)
    ]
    fused = fusion(trained=False)(features, references)
    assert len(fused) == len(features)
    assert all(torch.equal(a, b) for a, b in zip(fused, features, strict=True))


def test_fresh_adapters_are_the_identity_after_many_rounds() -> None:
    module = fusion(trained=False)
    features = levels = random_features(2, SIZES)
    for seed in range(5):
        levels = module(levels, [random_references(2, LENGTHS, seed=seed)])
    assert all(torch.equal(a, b) for a, b in zip(levels, features, strict=True))


def test_without_zero_init_references_count_at_once() -> None:
    torch.manual_seed(0)
    module = UniFusion(CHANNELS, heads=2, head_width=8, zero_init=False).eval()
    features = random_features(2, SIZES)
    fused = module(features, [random_references(2, LENGTHS)])
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(fused, features, strict=True))


def test_first_gradients_reach_the_gate_only() -> None:
    module = fusion(trained=False)
    (fused,) = module(random_features(2, SIZES[:1]), [random_references(2)])
    fused.square().sum().backward()
    shift, scale, gate = module.modulation[1].weight.grad.chunk(3)
    assert not shift.any()
    assert not scale.any()
    assert (gate.abs().sum(1) > 0).all()
    inner = [parameter.grad for name, parameter in module.named_parameters() if not name.startswith("modulation")]
    assert not any(grad.any() for grad in inner)


def test_modulation_thirds_are_shift_scale_gate() -> None:
    """Equation 5 against a plain computation of one contribution."""
    module = fusion()
    (feature,), reference = random_features(1, SIZES[:1]), random_references(1)
    tokens = feature.flatten(2).transpose(1, 2)
    queries = module.attention.project_queries(module.query_norm(tokens))
    attended = module.attention(queries, module.key_norm(reference.keys[0]), reference.values[0], reference.padding[0])
    weight, bias = module.modulation[1].weight, module.modulation[1].bias
    modulation = F.silu(reference.pooled[0]) @ weight.T + bias
    shift, scale, gate = modulation[:, :16], modulation[:, 16:32], modulation[:, 32:]
    wanted = tokens + gate[:, None] * (attended * (1 + scale[:, None]) + shift[:, None])
    (fused,) = module([feature], [reference])
    torch.testing.assert_close(fused.flatten(2).transpose(1, 2), wanted)


# ---- Absent rows and padding ----


def test_absent_rows_contribute_exactly_nothing() -> None:
    module, features = fusion(), random_features(3, SIZES)
    reference = random_references(3, LENGTHS)
    garbage = reference.map(lambda t: t * 1e6 if t.is_floating_point() else t)
    fused = module(features, [with_rows(garbage, present=[False, True, False])])
    whole = module(features, [garbage])
    for level, feature in enumerate(features):
        assert torch.equal(fused[level][0], feature[0])
        assert torch.equal(fused[level][2], feature[2])
        assert torch.equal(fused[level][1], whole[level][1])
        assert not torch.equal(fused[level][1], feature[1])


def test_absent_kind_beside_a_present_one_changes_nothing() -> None:
    module, features = fusion(), random_features(2, SIZES)
    masks = random_references(2, LENGTHS, seed=1)
    sentence = with_rows(random_references(2, seed=2), present=[False, False])
    for a, b in zip(module(features, [sentence, masks]), module(features, [masks]), strict=True):
        assert torch.equal(a, b)


def test_absent_rows_give_finite_gradients_and_get_none() -> None:
    module, features = fusion(), random_features(2, SIZES)
    reference = with_rows(random_references(2, LENGTHS), present=[False, True])
    for tensor in (*reference.keys, *reference.values, *reference.pooled):
        tensor.requires_grad_(True)
    sum(level.square().sum() for level in module(features, [reference])).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())
    for tensor in (*reference.keys, *reference.values, *reference.pooled):
        assert not tensor.grad[0].any()
        assert tensor.grad[1].any()


def test_all_rows_absent_give_zero_gradients() -> None:
    module, features = fusion(), random_features(2, SIZES)
    fused = module(features, [with_rows(random_references(2, LENGTHS), present=[False, False])])
    sum(level.square().sum() for level in fused).backward()
    assert all(torch.isfinite(p.grad).all() and not p.grad.any() for p in module.parameters())


def test_rows_with_padding_only_see_no_token() -> None:
    """Such a row still has its pooled vector, but neither NaN nor anything of its keys and values."""
    module, features = fusion(), random_features(2, SIZES[:1])
    reference = random_references(2, padded=7)
    other = replace(random_references(2, seed=5, padded=7), pooled=reference.pooled)
    (fused,), (again,) = module(features, [reference]), module(features, [other])
    assert torch.isfinite(fused).all()
    assert torch.equal(fused, again)
    fused.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


def test_attention_of_padding_only_is_zero() -> None:
    attended = attend_sdpa(*(torch.randn(2, 2, 3, 4) for _ in range(3)), torch.tensor([[True] * 3, [False] * 3]))
    assert not attended[0].any()
    assert attended[1].any()


def test_added_padding_changes_nothing() -> None:
    module, features = fusion(), random_features(2, SIZES[:1])
    reference = random_references(2)
    longer = random_references(2, (12,), seed=9)
    padded = replace(
        reference,
        keys=(torch.cat([reference.keys[0], longer.keys[0]], dim=1),),
        values=(torch.cat([reference.values[0], longer.values[0]], dim=1),),
        padding=(torch.cat([reference.padding[0], torch.ones(2, 12, dtype=torch.bool)], dim=1),),
    )
    seen = replace(padded, padding=(torch.zeros(2, 19, dtype=torch.bool),))
    assert_levels_close(module(features, [padded]), module(features, [reference]))
    assert not torch.allclose(module(features, [seen])[0], module(features, [reference])[0], atol=1e-3)


# ---- Parallel references, rows and images ----


def test_references_are_taken_in_parallel() -> None:
    """Order does not matter, and each is attended to from the same F."""
    module, features = fusion(), random_features(2, SIZES)
    references = [random_references(2, LENGTHS, seed=s) for s in range(3)]
    fused = module(features, references)
    assert_levels_close(fused, module(features, references[::-1]))
    for level, feature in enumerate(features):
        each = [module(features, [reference])[level] - feature for reference in references]
        torch.testing.assert_close(fused[level], feature + sum(each), rtol=1e-5, atol=1e-5)
        step_by_step = feature
        for reference in references:
            step_by_step = module([step_by_step] * 2, [reference])[level]
        assert not torch.allclose(fused[level], step_by_step, atol=1e-3)


def test_one_image_serves_many_rows() -> None:
    module, features = fusion(), random_features(2, SIZES)
    index = torch.tensor([1, 0, 1, 1])
    references = [random_references(4, LENGTHS, seed=s).about(index) for s in range(2)]
    repeated = [feature[index] for feature in features]
    wanted = module(repeated, [r.about(torch.arange(4)) for r in references])
    assert_levels_close(module(features, references), wanted)


def test_one_token_level_serves_every_feature_level() -> None:
    module, features = fusion(), random_features(2, SIZES)
    sentence = random_references(2)
    twice = replace(
        sentence,
        keys=sentence.keys * 2,
        values=sentence.values * 2,
        padding=sentence.padding * 2,
        pooled=sentence.pooled * 2,
    )
    for a, b in zip(module(features, [sentence]), module(features, [twice]), strict=True):
        assert torch.equal(a, b)


def test_fusion_refuses_no_reference_and_unequal_rows() -> None:
    module, features = fusion(), random_features(2, SIZES[:1])
    with pytest.raises(ValueError, match="at least one reference"):
        module(features, [])
    with pytest.raises(ValueError, match=r"same number of rows, got \[1, 2\]"):
        module(features, [random_references(2), random_references(1)])


def test_dropout_acts_in_training_only() -> None:
    module, features = fusion(), random_features(2, SIZES[:1])
    reference = [random_references(2)]
    assert torch.equal(module(features, reference)[0], module(features, reference)[0])
    module.train()
    assert not torch.equal(module(features, reference)[0], module(features, reference)[0])


# ---- concat and stack_rows ----


def test_concat_averages_present_rows_only() -> None:
    first = with_rows(random_references(3, LENGTHS, seed=0), present=[True, True, False])
    second = with_rows(random_references(3, LENGTHS, seed=1), present=[True, False, False])
    joined = concat([first, second])
    assert joined.present.tolist() == [True, True, False]
    for level, length in enumerate(LENGTHS):
        torch.testing.assert_close(joined.pooled[level][0], (first.pooled[level][0] + second.pooled[level][0]) / 2)
        assert torch.equal(joined.pooled[level][1], first.pooled[level][1])
        assert joined.keys[level].shape == (3, 2 * length, CHANNELS)
        assert torch.equal(joined.values[level][:, length:], second.values[level])
        assert not joined.padding[level][0].any()
        assert joined.padding[level][1].tolist() == [False] * length + [True] * length
        assert joined.padding[level][2].all()


def test_concat_ignores_nan_of_absent_rows_in_the_average() -> None:
    first = random_references(2)
    second = with_rows(random_references(2, seed=1), present=[True, False])
    second.pooled[0][1] = torch.nan
    assert torch.equal(concat([first, second]).pooled[0][1], first.pooled[0][1])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_concat_joins_k_references_in_any_order(count: int) -> None:
    module, features = fusion(), random_features(2, SIZES)
    shots = [random_references(2, LENGTHS, seed=s, padded=s % 3) for s in range(count)]
    joined = concat(shots)
    assert joined.keys[0].shape[1] == count * LENGTHS[0]
    torch.testing.assert_close(joined.pooled[1], torch.stack([s.pooled[1] for s in shots]).mean(0))
    assert_levels_close(module(features, [joined]), module(features, [concat(shots[::-1])]))


def test_concat_of_an_absent_reference_is_the_other_one() -> None:
    module, features = fusion(), random_features(2, SIZES)
    shot = random_references(2, LENGTHS)
    absent = with_rows(random_references(2, LENGTHS, seed=1), present=[False, False])
    assert_levels_close(module(features, [concat([shot, absent])]), module(features, [shot]))


def test_concat_keeps_the_first_image_index() -> None:
    index = torch.tensor([1, 1])
    assert torch.equal(concat([random_references(2).about(index), random_references(2)]).image_index, index)


def test_concat_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="at least one"):
        concat([])
    with pytest.raises(ValueError, match=r"same rows and levels, got \[\(2, 1\), \(3, 1\)\]"):
        concat([random_references(2), random_references(3)])
    with pytest.raises(ValueError, match="same rows and levels"):
        concat([random_references(2), random_references(2, LENGTHS)])


def test_stack_rows_pads_the_shorter_and_keeps_answers() -> None:
    module, features = fusion(), random_features(2, SIZES)
    short = random_references(1, (3, 2)).about(torch.tensor([1]))
    long = with_rows(random_references(2, (6, 4), seed=1), present=[True, False])
    stacked = stack_rows([short, long])
    assert stacked.keys[0].shape == (3, 6, CHANNELS)
    assert stacked.padding[0].tolist() == [[False] * 3 + [True] * 3, [False] * 6, [False] * 6]
    assert stacked.present.tolist() == [True, True, False]
    assert stacked.image_index.tolist() == [1, 0, 1]
    together = module(features, [stacked])
    for level in range(2):
        alone = torch.cat([module(features, [r])[level] for r in (short, long)])
        torch.testing.assert_close(together[level], alone, rtol=1e-5, atol=1e-5)


def test_stack_rows_refuses_none_and_other_levels() -> None:
    with pytest.raises(ValueError, match="at least one"):
        stack_rows([])
    with pytest.raises(ValueError, match=r"same levels, got \[1, 2\]"):
        stack_rows([random_references(1), random_references(1, LENGTHS)])


# ---- ReferenceFeatures ----


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": ()}, "one entry a level"),
        ({"keys": (), "values": (), "padding": (), "pooled": ()}, "one entry a level"),
        ({"keys": (torch.zeros(2, 6, 16),)}, r"\(2, L, C\)"),
        ({"keys": (torch.zeros(7, 16),), "values": (torch.zeros(7, 16),)}, r"\(2, L, C\)"),
        ({"keys": (torch.zeros(3, 7, 16),), "values": (torch.zeros(3, 7, 16),)}, r"\(2, L, C\)"),
        ({"padding": (torch.zeros(2, 6, dtype=torch.bool),)}, "padding must be bool"),
        ({"padding": (torch.zeros(2, 7),)}, "padding must be bool"),
        ({"pooled": (torch.zeros(2, 15),)}, r"pooled must be \(2, 16\)"),
        ({"image_index": torch.zeros(3, dtype=torch.int64)}, r"image_index must be \(2,\)"),
        ({"present": torch.ones(2, dtype=torch.int64)}, "present must be bool"),
    ],
)
def test_malformed_references_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(random_references(2), **change)


def test_select_repeats_and_orders_rows() -> None:
    reference = random_references(3, LENGTHS)
    chosen = reference.select(torch.tensor([2, 0, 2]))
    assert chosen.image_index.tolist() == [2, 0, 2]
    assert torch.equal(chosen.keys[1], reference.keys[1][[2, 0, 2]])
    masked = reference.select(torch.tensor([False, True, True]))
    assert torch.equal(masked.pooled[0], reference.pooled[0][1:])


def test_to_changes_floating_tensors_only() -> None:
    moved = random_references(1).to("cpu", torch.float64)
    assert moved.keys[0].dtype == moved.pooled[0].dtype == torch.float64
    assert moved.padding[0].dtype == moved.present.dtype == torch.bool
    assert moved.image_index.dtype == torch.int64


# ---- The variable-length kernel ----


def varlen_kernel(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
) -> Tensor:
    """``flash_attn_varlen_func``'s contract, one sequence at a time."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    out = []
    for row in range(len(cu_seqlens_q) - 1):
        asked = slice(int(cu_seqlens_q[row]), int(cu_seqlens_q[row + 1]))
        known = slice(int(cu_seqlens_k[row]), int(cu_seqlens_k[row + 1]))
        assert asked.stop - asked.start <= max_seqlen_q
        assert 0 < known.stop - known.start <= max_seqlen_k
        q, k, v = queries[asked], keys[known], values[known]
        out.append(F.scaled_dot_product_attention(*(t.transpose(0, 1) for t in (q, k, v))).transpose(0, 1))
    assert cu_seqlens_q[-1] == len(queries)
    assert cu_seqlens_k[-1] == len(keys) == len(values)
    return torch.cat(out)


def test_flash_packing_gives_what_sdpa_gives() -> None:
    torch.manual_seed(0)
    queries, keys, values = torch.randn(4, 2, 5, 8), torch.randn(4, 2, 7, 8), torch.randn(4, 2, 7, 8)
    padding = torch.zeros(4, 7, dtype=torch.bool)
    padding[1, 4:] = padding[2, ::2] = padding[3] = True
    packed = attend_flash(queries, keys, values, padding, kernel=varlen_kernel)
    assert packed.shape == (4, 2, 5, 8)
    torch.testing.assert_close(packed, attend_sdpa(queries, keys, values, padding))


def test_flash_hands_dropout_on() -> None:
    seen = []

    def kernel(queries: Tensor, *_: object, dropout_p: float) -> Tensor:
        seen.append(dropout_p)
        return queries

    attend_flash(*(torch.randn(1, 2, 3, 4) for _ in range(3)), torch.zeros(1, 3, dtype=torch.bool), 0.25, kernel)
    assert seen == [0.25]


def test_flash_is_not_for_cpu_or_full_precision() -> None:
    assert not flash_is_usable(torch.zeros(1, dtype=torch.float16), 64)
    assert not flash_is_usable(torch.zeros(1), 64)


def test_flash_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam_uniref.adapters.attention._flash_varlen", lambda: None)
    with pytest.raises(RuntimeError, match="extra 'flash'"):
        attend_flash(*(torch.randn(1, 1, 2, 4) for _ in range(3)), torch.zeros(1, 2, dtype=torch.bool))


def test_cross_attention_takes_the_kernel_where_it_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = CrossAttention(CHANNELS, heads=2, head_width=8).eval()
    queries, reference = module.project_queries(torch.randn(2, 6, CHANNELS)), random_references(2, padded=2)
    arguments = (queries, reference.keys[0], reference.values[0], reference.padding[0])
    wanted = module(*arguments)
    calls = []

    def kernel(*args: Tensor, dropout_p: float) -> Tensor:
        calls.append(dropout_p)
        return varlen_kernel(*args, dropout_p=dropout_p)

    monkeypatch.setattr("sam_uniref.adapters.attention.flash_is_usable", lambda *_: True)
    monkeypatch.setattr("sam_uniref.adapters.attention._flash_varlen", lambda: kernel)
    torch.testing.assert_close(module(*arguments), wanted)
    assert calls == [0.0]


def test_attention_starts_at_what_looks_alike_unless_told_otherwise() -> None:
    torch.manual_seed(3)
    module = CrossAttention(32, heads=2, head_width=16).eval()
    tokens = F.layer_norm(torch.randn(1, 12, 32), (32,))
    scores = module.project_queries(tokens) @ module.split_heads(module.key(tokens)).transpose(2, 3)
    assert torch.equal(scores.mean(1)[0].argmax(1), torch.arange(12))
    apart = CrossAttention(32, heads=2, head_width=16, start_alike=False)
    assert not torch.equal(apart.query.weight, apart.key.weight)
    # Alike at the start only: each learns for itself.
    module(module.project_queries(tokens), tokens, tokens, torch.zeros(1, 12, dtype=torch.bool)).sum().backward()
    assert not torch.equal(module.query.weight.grad, module.key.weight.grad)

"""In which order UniFusion takes several kinds of reference: against a computation by hand, and through SamRef."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import disc, perturb, picture, random_features, random_references, tiny_model
from torch import Tensor
from torch.nn import functional as F

from sam_uniref import MaskReference, SamRef, SamRefConfig
from sam_uniref.adapters import ReferenceFeatures, UniFusion
from sam_uniref.adapters.unifusion import ORDERS
from sam_uniref.config import FusionConfig

CHANNELS, HEADS, HEAD_WIDTH = 16, 2, 8
SIZES = ((4, 5), (2, 3))
LENGTHS = (9, 5)
SEQUENCES = ("in_order", "reversed")


def fusion(order: str, *, trained: bool = True) -> UniFusion:
    """A small module in evaluation mode, with the same weights whatever the order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = UniFusion(CHANNELS, heads=HEADS, head_width=HEAD_WIDTH, order=order).eval()
    if trained:
        perturb(module, 0.3)
    return module


def two_kinds(rows: int, seed: int, index: Tensor, *, present: Sequence[bool] | None = None) -> list[ReferenceFeatures]:
    """A sentence, with one level and some padding, and an annotated image; absent sentences where not ``present``."""
    sentence = random_references(rows, seed=seed, padded=2).about(index)
    if present is not None:
        sentence = replace(sentence, present=torch.tensor(list(present)))
    return [sentence, random_references(rows, LENGTHS, seed=seed + 1).about(index)]


def by_hand(
    module: UniFusion, features: list[Tensor], kinds: list[ReferenceFeatures], order: str
) -> list[list[Tensor]]:
    """Per level and row ``(h * w, C)``: a row, a head and a kind at a time, from the weights alone."""
    state = dict(module.state_dict())

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]

    def contribution(tokens: Tensor, kind: ReferenceFeatures, level: int, row: int) -> Tensor:
        if not kind.present[row]:
            return torch.zeros_like(tokens)
        keys, values, padding, pooled = (field[row] for field in kind.level(level))
        q = linear("attention.query", norm("query_norm", tokens))
        k = linear("attention.key", norm("key_norm", keys[~padding]))
        v = linear("attention.value", values[~padding])
        heads = [slice(h * HEAD_WIDTH, (h + 1) * HEAD_WIDTH) for h in range(HEADS)]
        attended = [(q[:, h] @ k[:, h].T / math.sqrt(HEAD_WIDTH)).softmax(-1) @ v[:, h] for h in heads]
        output = linear("attention.output", torch.cat(attended, dim=-1))
        shift, scale, gate = linear("modulation.1", F.silu(pooled)).chunk(3)
        return gate * (output * (1 + scale) + shift)

    fused: list[list[Tensor]] = []
    for level, feature in enumerate(features):
        fused.append([])
        for row, image in enumerate(kinds[0].image_index.tolist()):
            tokens = feature[image].flatten(1).T
            first, second = kinds if order != "reversed" else kinds[::-1]
            after_first = tokens + contribution(tokens, first, level, row)
            seen = tokens if order == "parallel" else after_first
            fused[-1].append(after_first + contribution(seen, second, level, row))
    return fused


# ---- What the orders mean ----


@settings(max_examples=30, deadline=None)
@given(
    order=st.sampled_from(ORDERS),
    rows=st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1, max_size=4),
    seed=st.integers(0, 10_000),
)
def test_orders_are_as_by_hand(order: str, rows: list[tuple[int, bool]], seed: int) -> None:
    """Two images, any number of rows about them, some without a sentence."""
    module, features = fusion(order), random_features(2, SIZES, seed=seed)
    index, present = torch.tensor([image for image, _ in rows]), [has_sentence for _, has_sentence in rows]
    kinds = two_kinds(len(rows), seed, index, present=present)
    wanted = by_hand(module, features, kinds, order)
    for level, fused in enumerate(module(features, kinds)):
        assert fused.shape == (len(rows), CHANNELS, *SIZES[level])
        torch.testing.assert_close(fused.flatten(2).transpose(1, 2), torch.stack(wanted[level]), rtol=1e-4, atol=1e-4)


def test_orders_differ_where_there_are_two_kinds() -> None:
    """What `test_orders_are_as_by_hand` could not tell apart if they did not."""
    features, kinds = random_features(2, SIZES), two_kinds(2, 0, torch.arange(2))
    fused = {order: fusion(order)(features, kinds) for order in ORDERS}
    for one, other in (("parallel", "in_order"), ("parallel", "reversed"), ("in_order", "reversed")):
        assert all((a - b).abs().max() > 1e-2 for a, b in zip(fused[one], fused[other], strict=True))


def test_three_kinds_are_taken_one_after_another() -> None:
    module, features = fusion("in_order"), random_features(2, SIZES)
    kinds = [*two_kinds(2, 0, torch.arange(2)), random_references(2, LENGTHS, seed=7)]
    step_by_step = features
    for kind in kinds:
        step_by_step = fusion("parallel")(step_by_step, [kind])
    backwards = fusion("reversed")(features, kinds[::-1])
    for fused, wanted, again in zip(module(features, kinds), step_by_step, backwards, strict=True):
        torch.testing.assert_close(fused, wanted, rtol=1e-5, atol=1e-5)
        assert torch.equal(fused, again)


def test_parallel_is_the_default_and_the_sum_bit_for_bit() -> None:
    """Each contribution from queries that are projected once an image, added in the order of the kinds."""
    features, index = random_features(2, SIZES), torch.tensor([1, 0, 1])
    kinds = two_kinds(3, 0, index, present=[True, False, True])
    module = UniFusion(CHANNELS, heads=HEADS, head_width=HEAD_WIDTH).eval()
    module.load_state_dict(fusion("parallel").state_dict())
    assert module.order == "parallel"
    for level, fused in enumerate(module(features, kinds)):
        tokens = features[level].flatten(2).transpose(1, 2)
        queries = module.queries(tokens, index)
        wanted = tokens[index]
        for kind in kinds:
            wanted = wanted + module.contribution(queries, kind, level)
        assert torch.equal(fused.flatten(2).transpose(1, 2), wanted)


@pytest.mark.parametrize(("order", "batches"), [("parallel", [2]), ("in_order", [2, 5]), ("reversed", [2, 5])])
def test_queries_are_projected_once_an_image_until_something_is_injected(
    order: str, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, projected = fusion(order), []
    project = module.attention.project_queries

    def spy(tokens: Tensor) -> Tensor:
        projected.append(len(tokens))
        return project(tokens)

    monkeypatch.setattr(module.attention, "project_queries", spy)
    # So many tokens that these are not what is projected in place of the queries.
    lengths, index = (HEAD_WIDTH + 1, HEAD_WIDTH + 3), torch.tensor([0, 1, 1, 0, 1])
    module(random_features(2, SIZES), [random_references(5, lengths, seed=seed).about(index) for seed in (0, 1)])
    assert projected == batches * len(SIZES)


# ---- Where the order makes no difference ----


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 3), lengths=st.sampled_from([LENGTHS, (7,)]), seed=st.integers(0, 10_000))
def test_one_kind_is_the_same_in_any_order(rows: int, lengths: tuple[int, ...], seed: int) -> None:
    features, kind = random_features(rows, SIZES, seed=seed), random_references(rows, lengths, seed=seed)
    parallel, *sequences = (fusion(order)(features, [kind]) for order in ORDERS)
    for fused in sequences:
        assert all(torch.equal(a, b) for a, b in zip(fused, parallel, strict=True))
    assert not torch.equal(parallel[0], features[0])


@settings(max_examples=25, deadline=None)
@given(order=st.sampled_from(ORDERS), rows=st.integers(1, 3), count=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_fresh_adapters_are_the_identity_in_any_order(order: str, rows: int, count: int, seed: int) -> None:
    features = random_features(rows, SIZES, seed=seed)
    kinds = [random_references(rows, LENGTHS, seed=seed + k) for k in range(count)]
    fused = fusion(order, trained=False)(features, kinds)
    assert all(torch.equal(a, b) for a, b in zip(fused, features, strict=True))


@pytest.mark.parametrize("order", SEQUENCES)
def test_a_row_with_one_kind_of_two_is_as_with_that_kind_alone(order: str) -> None:
    features, index = random_features(2, SIZES), torch.arange(2)
    kinds = two_kinds(2, 0, index, present=[False, True])
    module = fusion(order)
    for fused, alone in zip(module(features, kinds), module(features, kinds[1:]), strict=True):
        torch.testing.assert_close(fused[0], alone[0], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(fused[1], alone[1], atol=1e-3)


@pytest.mark.parametrize("order", SEQUENCES)
def test_gradients_are_finite_with_absent_rows(order: str) -> None:
    module, features = fusion(order), random_features(2, SIZES)
    kinds = two_kinds(2, 0, torch.arange(2), present=[False, True])
    sum(level.square().sum() for level in module(features, kinds)).backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in module.parameters())


# ---- Configuration and SamRef ----


@pytest.mark.parametrize("order", ["serial", "", None, "Parallel"])
def test_an_unknown_order_is_refused(order: str) -> None:
    message = r"order must be one of \('parallel', 'in_order', 'reversed'\), got "
    with pytest.raises(ValueError, match=message):
        UniFusion(CHANNELS, heads=HEADS, head_width=HEAD_WIDTH, order=order)
    with pytest.raises(ValueError, match=message):
        FusionConfig(order=order)
    with pytest.raises(ValueError, match=message):
        SamRefConfig.from_dict({"fusion": {"order": order}})


def model_with(order: str) -> SamRef:
    """A tiny SamRef whose adapters answer, with the same weights whatever the order."""
    config = SamRefConfig.for_size("tiny")
    config.fusion.order = order
    return tiny_model(noise=0.1, config=config)


@pytest.fixture(scope="module")
def models() -> dict[str, SamRef]:
    return {order: model_with(order) for order in ORDERS}


def test_the_order_reaches_the_answers(models: dict[str, SamRef]) -> None:
    examples = [MaskReference(picture(seed=9), disc())]
    asked = {"text": "the dog", "examples": examples}
    both = {order: model.segment(picture(), **asked).low_res_logits for order, model in models.items()}
    text = {order: model.segment(picture(), text="the dog").low_res_logits for order, model in models.items()}
    for order in SEQUENCES:
        assert np.abs(both[order] - both["parallel"]).max() > 1e-3
        np.testing.assert_array_equal(text[order], text["parallel"])
    assert np.abs(both["in_order"] - both["reversed"]).max() > 1e-3


@pytest.mark.parametrize(("order", "text_first"), [("parallel", True), ("in_order", True), ("reversed", False)])
def test_the_sentence_comes_before_the_masks_unless_reversed(
    order: str, text_first: bool, models: dict[str, SamRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, taken = models[order], []
    contribution = model.fusion.contribution

    def spy(queries: Tensor, reference: ReferenceFeatures, level: int) -> Tensor:
        taken.append("text" if reference.keys[0] is reference.values[0] else "mask")
        return contribution(queries, reference, level)

    monkeypatch.setattr(model.fusion, "contribution", spy)
    model.segment(picture(), text="the dog", examples=[MaskReference(picture(seed=9), disc())])
    assert taken == (["text", "mask"] if text_first else ["mask", "text"])


def test_the_order_is_saved_and_a_configuration_without_it_is_the_published_one(
    models: dict[str, SamRef], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    models["reversed"].save_pretrained(folder)
    loaded = SamRef.from_pretrained(folder)
    assert loaded.config.fusion.order == loaded.fusion.order == "reversed"
    file = folder / "config.json"
    saved = json.loads(file.read_text())
    text = json.dumps(saved)
    assert text.count('"order": "reversed"') == 1
    file.write_text(text.replace(', "order": "reversed"', ""))
    assert "order" not in file.read_text()
    loaded = SamRef.from_pretrained(folder)
    assert loaded.config.fusion.order == loaded.fusion.order == "parallel"

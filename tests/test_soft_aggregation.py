"""Objects that compete for a pixel: the published rule, on probabilities and not on logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_uniref.aggregation import soft_aggregate


def logits_within(limit: int) -> st.SearchStrategy[float]:
    """Multiples of 1/64, so that float32 is exact and nothing is nearly a tie."""
    return st.integers(-64 * limit, 64 * limit).map(lambda number: number / 64)


@settings(max_examples=100, deadline=None)
@given(st.lists(logits_within(15), min_size=1, max_size=5))
def test_soft_aggregation_is_the_published_rule_on_probabilities(logits: list[float]) -> None:
    got = soft_aggregate(torch.tensor(logits).view(-1, 1, 1))[:, 0, 0]
    foreground = torch.tensor(logits, dtype=torch.float64).sigmoid()
    background = (1 - foreground).prod().view(1)
    expected = torch.logit(torch.cat([background, foreground])).softmax(0)
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-4)


@settings(max_examples=100, deadline=None)
@given(st.lists(logits_within(1000) | st.just(float("-inf")), min_size=1, max_size=5))
def test_soft_aggregation_of_any_logits(logits: list[float]) -> None:
    got = soft_aggregate(torch.tensor(logits).view(-1, 1, 1))[:, 0, 0]
    assert got.sum().item() == pytest.approx(1, abs=1e-5)
    assert bool((got >= 0).all())
    winner = int(got.argmax())
    if winner > 0:
        assert logits[winner - 1] == max(logits), "among objects the likeliest wins"
    elif len(logits) > 1:
        assert max(logits) <= 0, "an object above one half is never lost to the background"


@settings(max_examples=100, deadline=None)
@given(logits_within(100))
def test_one_object_is_foreground_where_its_probability_is_above_one_half(logit: float) -> None:
    assert bool(soft_aggregate(torch.full((1, 1, 1), logit)).argmax(0).item()) == (logit > 0)


def test_certain_objects_are_not_lost_to_the_background() -> None:
    """The published code multiplies logits: two objects at 3, or at 10, become background there."""
    for a, b, owner in ((3.0, 3.1, 2), (10.0, 9.0, 1), (40.0, 41.0, 2), (90.0, 80.0, 1)):
        assert soft_aggregate(torch.tensor([a, b]).view(2, 1, 1)).argmax(0).item() == owner


def test_two_weak_objects_do_not_make_a_strong_one() -> None:
    """0.45 and 0.45: the background has 0.55 * 0.55 = 0.30 and loses, though each alone would not be seen."""
    logit = float(np.log(0.45 / 0.55))
    assert soft_aggregate(torch.full((2, 1, 1), logit)).argmax(0).item() == 1
    assert soft_aggregate(torch.full((1, 1, 1), logit)).argmax(0).item() == 0

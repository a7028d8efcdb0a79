"""The two numbers that PerSAM-F learns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_uniref.eval.baselines.mask_weights import (
    IMAGE_SCHEDULE,
    Lesson,
    MaskWeights,
    Schedule,
    learn_mask_weights,
)


def lesson(right: int = 1, seed: int = 0, size: tuple[int, int] = (12, 15)) -> Lesson:
    """Three masks of noise, one of which is the right one."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(size, generator=generator) > 0.7
    logits = 4 * torch.randn(3, *size, generator=generator)
    logits[right] = torch.where(mask, 4.0, -4.0)
    return Lesson(logits, mask)


@pytest.mark.parametrize("right", [0, 1, 2])
def test_the_right_mask_gets_the_weight(right: int) -> None:
    weights = learn_mask_weights([lesson(right)], Schedule(1e-2, 200))
    assert int(weights.argmax()) == right
    assert weights[right] > 0.5


def test_the_loss_falls() -> None:
    learner = MaskWeights([lesson()], Schedule(1e-2, 100))
    losses = [sum(float(loss) for loss in learner.step()) for _ in range(100)]
    assert losses[-1] < losses[0] - 0.05
    assert learner.learning_rate == pytest.approx(0, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_the_weights_sum_to_one_and_are_the_same_again(seed: int, epochs: int) -> None:
    schedule = Schedule(IMAGE_SCHEDULE.learning_rate, epochs)
    weights = learn_mask_weights([lesson(seed=seed)], schedule)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
    assert weights.equal(learn_mask_weights([lesson(seed=seed)], schedule))


def test_several_lessons_of_different_sizes_have_equal_parts() -> None:
    schedule = Schedule(1e-3, 5)
    once = learn_mask_weights([lesson()], schedule)
    torch.testing.assert_close(learn_mask_weights([lesson(), lesson()], schedule), once)
    mixed = learn_mask_weights([lesson(), lesson(2, 1, (30, 20))], schedule)
    assert not torch.allclose(mixed, once)
    torch.testing.assert_close(mixed, learn_mask_weights([lesson(2, 1, (30, 20)), lesson()], schedule))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_learns_wherever_it_is_called(mode: type[torch.no_grad]) -> None:
    schedule = Schedule(1e-3, 5)
    expected = learn_mask_weights([lesson()], schedule)
    with mode():
        assert learn_mask_weights([lesson()], schedule).equal(expected)

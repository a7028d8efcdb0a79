"""What PerSAM-F learns of an object: how SAM's three candidate masks add up to it.

Facts from ZrrSkywalker/Personalize-SAM at a7e8724. The published program runs the decoder anew in every step, though
nothing in it changes; here the three masks are computed once, with the same weights to show for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_EPSILON = 1e-4
_FOCAL_ALPHA = 0.25


@dataclass(frozen=True)
class Schedule:
    """How the weights are learned.

    Attributes:
        learning_rate: AdamW's at the start; cosine to 0 over all epochs.
        epochs: Steps; each sees all examples.
    """

    learning_rate: float
    epochs: int


IMAGE_SCHEDULE = Schedule(1e-3, 1000)
VIDEO_SCHEDULE = Schedule(4e-4, 800)


@dataclass(frozen=True)
class Lesson:
    """SAM's candidates for one example, and what they should add up to.

    Attributes:
        logits: ``(3, H, W)`` float32 at the picture's size.
        mask: ``(H, W)`` bool.
    """

    logits: Tensor
    mask: Tensor


class MaskWeights:
    """Learns two numbers (w1, w2) by gradient descent; the three masks' weights are (1 - w1 - w2, w1, w2).

    The loss is Dice plus focal loss of the weighted logits, its mean over several examples (our choice: the published
    program knows one).

    Args:
        lessons: One or more.
        schedule: Rate and length.
    """

    def __init__(self, lessons: Sequence[Lesson], schedule: Schedule) -> None:
        # Inference mode may be on around an evaluation; its tensors can't be learned from.
        with torch.inference_mode(False):
            masks = [lesson.mask.flatten().float() for lesson in lessons]
            self._sizes = [len(mask) for mask in masks]
            self._masks = torch.cat(masks)
            # A pixel's logit times 1 on the object and -1 beside it is the log-odds of the right answer; that halves
            # what is to be computed a thousand times.
            logits = torch.cat([lesson.logits.flatten(1) for lesson in lessons], dim=1)
            self._right = logits * (2 * self._masks - 1)
            balance = _FOCAL_ALPHA * self._masks + (1 - _FOCAL_ALPHA) * (1 - self._masks)
            share = torch.cat([torch.full_like(mask, 1 / (len(mask) * len(masks))) for mask in masks])
            self._focal_weights = balance * share
            self.learned = torch.full((2,), 1 / 3, device=logits.device).requires_grad_(True)
            self._optimiser = torch.optim.AdamW([self.learned], lr=schedule.learning_rate, eps=_EPSILON)
            self._rates = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, schedule.epochs)

    @property
    def weights(self) -> Tensor:
        """``(3,)`` of the masks, in SAM's order. They sum to 1."""
        return torch.cat([1 - self.learned.sum().reshape(1), self.learned])

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self._rates.get_last_lr()[0])

    def step(self) -> tuple[Tensor, Tensor]:
        """One epoch.

        Returns:
            The Dice and the focal loss before it, scalars.
        """
        with torch.inference_mode(False), torch.enable_grad():
            right = self.weights @ self._right
            wrong = (-right).sigmoid()
            # Focal loss (Lin et al. 2017) with gamma 2: the cross-entropy times the wrong answer's probability squared.
            focal = (wrong.square() * F.softplus(-right)) @ self._focal_weights
            parts = zip(wrong.split(self._sizes), self._masks.split(self._sizes), strict=True)
            dice = torch.stack([_dice_loss(*part) for part in parts]).mean()
            self._optimiser.zero_grad()
            (dice + focal).backward()
            self._optimiser.step()
            self._rates.step()
        return dice.detach(), focal.detach()


def learn_mask_weights(lessons: Sequence[Lesson], schedule: Schedule) -> Tensor:
    """``(3,)`` weights of SAM's three masks after all epochs; they sum to 1."""
    learner = MaskWeights(lessons, schedule)
    for _ in range(schedule.epochs):
        learner.step()
    return learner.weights.detach()


def _dice_loss(wrong: Tensor, mask: Tensor) -> Tensor:
    """``1 - (2 sum(p t) + 1) / (sum p + sum t + 1)`` of N pixels.

    Args:
        wrong: ``(N,)`` probability of the wrong answer, 1 - p on the object and p beside it.
        mask: ``(N,)`` float, t.
    """
    missed, size = wrong @ mask, mask.sum()
    found = size - missed
    return 1 - (2 * found + 1) / (found + wrong.sum() - missed + size + 1)

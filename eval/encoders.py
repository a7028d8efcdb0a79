"""SAM's image encoder as several implementations have it, with the same random weights, and the memory each takes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from sam_uniref.memory import peak_megabytes, release_free, reset_peak
from sam_uniref.sam import ImageEncoder, build_sam
from sam_uniref.sam.compilation import CompiledBlocks
from sam_uniref.sam.image_encoder import PRECISIONS
from sam_uniref.sam.resize import resize_sam

ORIGINAL, TRANSFORMERS, OURS, COMPILED = "segment-anything", "transformers SDPA", "sam_uniref", "sam_uniref compiled"
IMPLEMENTATIONS = (ORIGINAL, TRANSFORMERS, OURS, COMPILED)
Encode = Callable[[Tensor], Tensor]
"""``(B, 3, S, S)`` float32 to ``(B, C, h, w)``."""

# What transformers calls the layers of segment-anything's encoder.
_TRANSFORMERS_NAMES = {
    "patch_embed.proj.": "patch_embed.projection.",
    "blocks.": "layers.",
    ".norm1.": ".layer_norm1.",
    ".norm2.": ".layer_norm2.",
    "neck.0.": "neck.conv1.",
    "neck.1.": "neck.layer_norm1.",
    "neck.2.": "neck.conv2.",
    "neck.3.": "neck.layer_norm2.",
}


@dataclass(frozen=True)
class Case:
    """What is built and asked.

    Attributes:
        implementation: One of `IMPLEMENTATIONS`.
        model: One of `sam_uniref.sam.SAM_SIZES`.
        precision: One of `PRECISIONS`: of weights and products.
        image_size: Side of the input square in pixels.
        batch_size: Pictures at once.
        device: Its name.
        threads: Of the CPU.
    """

    implementation: str
    model: str
    precision: str
    image_size: int
    batch_size: int
    device: str
    threads: int


def random_encoder(size: str, image_size: int | None) -> ImageEncoderViT:
    """segment-anything's encoder; its tables of positions, which are zeros at first, are random too.

    Raises:
        ValueError: If the image size is no multiple of the patch size.
    """
    torch.manual_seed(0)
    sam = build_sam(size)
    encoder = sam.image_encoder.requires_grad_(False)
    for name, parameter in encoder.named_parameters():
        if "pos" in name:
            parameter.normal_(0, 0.1)
    if image_size is not None:
        resize_sam(sam, image_size)
    return encoder


def noise(case: Case) -> Tensor:
    """The pictures, ``(B, 3, S, S)`` float32 as if normalised."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(case.batch_size, 3, case.image_size, case.image_size, generator=generator).to(case.device)


def build(case: Case, encoder: ImageEncoderViT) -> Encode:
    """An implementation that encodes as segment-anything's does; in float32 it shares its weights."""
    if case.implementation in (OURS, COMPILED):
        shared = ImageEncoder(encoder)
        ours = shared if case.precision == "float32" else copy.deepcopy(shared)
        ours.hold_in(case.precision)
        if case.implementation == COMPILED:
            ours.run_frozen_block = CompiledBlocks()
        return ours.to(case.device).eval()
    precision = PRECISIONS[case.precision]
    other = encoder if case.implementation == ORIGINAL else _transformers_encoder(encoder)
    module = other if case.precision == "float32" else copy.deepcopy(other).to(precision)
    module.to(case.device).eval()

    def encode(pixels: Tensor) -> Tensor:
        embedding = module(pixels.to(precision))
        return embedding if isinstance(embedding, Tensor) else embedding.last_hidden_state

    return encode


def _transformers_encoder(encoder: ImageEncoderViT) -> nn.Module:
    """That of transformers with the very weights of segment-anything's."""
    from transformers.models.sam.configuration_sam import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    first, windowed = encoder.blocks[0], [block.window_size for block in encoder.blocks]
    config = SamVisionConfig(
        hidden_size=encoder.pos_embed.shape[-1],
        output_channels=encoder.neck[0].out_channels,
        num_hidden_layers=len(encoder.blocks),
        num_attention_heads=first.attn.num_heads,
        image_size=encoder.img_size,
        patch_size=encoder.patch_embed.proj.kernel_size[0],
        mlp_dim=first.mlp.lin1.out_features,
        window_size=max(windowed),
        global_attn_indexes=[index for index, window in enumerate(windowed) if window == 0],
    )
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        other = SamVisionEncoder(config)
    state = {}
    for name, tensor in encoder.state_dict().items():
        for theirs, renamed in _TRANSFORMERS_NAMES.items():
            name = name.replace(theirs, renamed)
        state[name] = tensor
    other.load_state_dict(state, assign=True)
    return other.requires_grad_(False)


def peak_alone(case: Case) -> float:
    """Peak memory in MB of one batch in a process of its own, after one that warms up."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_here, case).result()


@torch.no_grad()
def _peak_here(case: Case) -> float:
    """Of this process, which did nothing else."""
    torch.set_num_threads(case.threads)
    device = torch.device(case.device)
    encode, pixels = build(case, random_encoder(case.model, case.image_size)), noise(case)
    encode(pixels)
    release_free(device)
    reset_peak(device)
    encode(pixels)
    return peak_megabytes(device)

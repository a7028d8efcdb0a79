"""A picture and a point to masks, as several implementations do it with the same random weights; and how masks agree.

All get normalised square pictures and give masks of the picture's size. Image encoders are those of `encoders`, in the
precision of the case; what comes after them is in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.eval.encoders import (
    ORIGINAL,
    TRANSFORMERS,
    Case,
    Encode,
    build,
    noise,
    random_sam,
    renamed,
    vision_config,
)
from sam_uniref.eval.side_by_side import in_fresh_process
from sam_uniref.interfaces import Prompts
from sam_uniref.memory import peak_megabytes, release_free, reset_peak
from sam_uniref.sam.host import PromptedSamHost

# Points in so many rows and columns show how masks agree.
_GRID = 3
# What transformers calls the layers of segment-anything's prompt encoder and mask decoder; replaced in this order.
_TRANSFORMERS_NAMES = {
    ".layers.0.weight": ".proj_in.weight",
    ".layers.0.bias": ".proj_in.bias",
    ".layers.2.": ".proj_out.",
    ".layers.1.weight": ".layers.0.weight",
    ".layers.1.bias": ".layers.0.bias",
    "output_upscaling.0.": "upscale_conv1.",
    "output_upscaling.1.": "upscale_layer_norm.",
    "output_upscaling.3.": "upscale_conv2.",
    ".norm": ".layer_norm",
    "mask_downscaling.0.": "mask_embed.conv1.",
    "mask_downscaling.1.": "mask_embed.layer_norm1.",
    "mask_downscaling.3.": "mask_embed.conv2.",
    "mask_downscaling.4.": "mask_embed.layer_norm2.",
    "mask_downscaling.6.": "mask_embed.conv3.",
    "point_embeddings.": "point_embed.",
    "pe_layer.positional_encoding_gaussian_matrix": "shared_embedding.positional_embedding",
}


class _Module(nn.Module):
    """A function in the place of an image encoder.

    Args:
        encode: ``(B, 3, S, S)`` to ``(B, C, h, w)``.
        side: S.
    """

    def __init__(self, encode: Encode, side: int) -> None:
        super().__init__()
        self.encode = encode
        self.img_size = side

    def forward(self, pixels: Tensor) -> Tensor:
        """In float32."""
        return self.encode(pixels).float()


def build_task(case: Case, sam: Sam) -> Callable[[Tensor], Tensor]:
    """What a case makes of ``(B, 3, S, S)`` pictures: embeddings, or masks ``(B, 3, S, S)``, bool, of the middle."""
    encode = build(case, sam.image_encoder)
    if not case.picture:
        return encode
    encoder = _Module(encode, case.image_size)
    if case.implementation == ORIGINAL:
        return _segment_anything(sam, encoder)
    return _transformers(sam, encoder) if case.implementation == TRANSFORMERS else _ours(sam, encoder)


def _middle(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """A point in the foreground for each picture: ``(B, 1, 2)`` and ``(B, 1)``."""
    rows, side = len(pixels), pixels.shape[-1]
    return pixels.new_full((rows, 1, 2), side / 2), torch.ones(rows, 1, dtype=torch.int64, device=pixels.device)


def _segment_anything(sam: Sam, encoder: _Module) -> Callable[[Tensor], Tensor]:
    """``Sam.forward``."""
    whole = Sam(encoder, sam.prompt_encoder, sam.mask_decoder, [0.0] * 3, [1.0] * 3)  # pictures are normalised already
    whole.to(sam.device).eval()

    def segment(pixels: Tensor) -> Tensor:
        points, labels = _middle(pixels)
        given = [
            {"image": image, "original_size": tuple(image.shape[1:]), "point_coords": point, "point_labels": label}
            for image, point, label in zip(pixels, points[:, None], labels[:, None], strict=True)
        ]
        return torch.cat([answer["masks"] for answer in whole(given, multimask_output=True)])

    return segment


def _transformers(sam: Sam, encoder: _Module) -> Callable[[Tensor], Tensor]:
    """``SamModel``, and masks as its processor makes them."""
    from transformers.models.sam.configuration_sam import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig
    from transformers.models.sam.modeling_sam import SamModel

    vision, decoder = vision_config(sam.image_encoder), sam.mask_decoder
    layer = decoder.transformer.layers[0]
    prompts = SamPromptEncoderConfig(
        hidden_size=decoder.transformer_dim,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        mask_input_channels=sam.prompt_encoder.mask_downscaling[3].out_channels,
    )
    masks = SamMaskDecoderConfig(
        hidden_size=decoder.transformer_dim,
        mlp_dim=layer.mlp.lin1.out_features,
        num_hidden_layers=len(decoder.transformer.layers),
        num_attention_heads=layer.self_attn.num_heads,
        iou_head_hidden_dim=decoder.iou_prediction_head.layers[0].out_features,
    )
    with torch.device("meta"):
        model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=masks))
    model.vision_encoder = None
    own = {name: tensor for name, tensor in sam.state_dict().items() if not name.startswith("image_encoder.")}
    state = renamed(own, _TRANSFORMERS_NAMES)
    state["shared_image_embedding.positional_embedding"] = state["prompt_encoder.shared_embedding.positional_embedding"]
    model.load_state_dict(state, assign=True)
    model.requires_grad_(False).eval()

    def segment(pixels: Tensor) -> Tensor:
        points, labels = _middle(pixels)
        given = {"input_points": points[:, None], "input_labels": labels[:, None]}
        logits = model(image_embeddings=encoder(pixels), multimask_output=True, **given).pred_masks[:, 0]
        return enlarged(logits, pixels.shape[-1])

    return segment


def _ours(sam: Sam, encoder: _Module) -> Callable[[Tensor], Tensor]:
    """Encoding and decoding as a SamRef's host does both."""
    host = PromptedSamHost(sam, encoder, encoder.img_size)

    def segment(pixels: Tensor) -> Tensor:
        logits = decoded(host, host.encode(pixels)[0][0], *_middle(pixels))
        return enlarged(logits, encoder.img_size)

    return segment


def prompted_host(sam: Sam) -> PromptedSamHost:
    """A SAM's prompt encoder and mask decoder as ours runs them; its image encoder is not wanted."""
    return PromptedSamHost(sam, nn.Identity(), sam.image_encoder.img_size)


def decoded(host: PromptedSamHost, embeddings: Tensor, points: Tensor, labels: Tensor) -> Tensor:
    """The three candidates' low-res logits ``(N, 3, 4h, 4w)`` of points ``(N, P, 2)`` in N embeddings."""
    rows = torch.arange(len(embeddings), device=embeddings.device)
    prompts = Prompts(rows, points, labels)
    return host.decode(embeddings, prompts, None, host.mask_decoder, multimask=True)[0]


def enlarged(logits: Tensor, side: int) -> Tensor:
    """Low-res logits as masks of a square picture."""
    return F.interpolate(logits, (side, side), mode="bilinear", align_corners=False) > 0


def masks_of_points(host: PromptedSamHost, embedding: Tensor) -> Tensor:
    """Masks ``(9 B, 3, 4h, 4w)`` of a point each, nine to a picture, by one and the same decoder in float32.

    Args:
        host: With the decoder.
        embedding: ``(B, C, h, w)`` of whatever encoder.
    """
    side = host.transform.size
    line = torch.arange(1, 2 * _GRID, 2, device=embedding.device) * (side / (2 * _GRID))
    points = torch.cartesian_prod(line, line)[:, None]
    labels = torch.ones(len(points), 1, dtype=torch.int64, device=embedding.device)
    own = embedding.float()
    return torch.cat([decoded(host, each.expand(len(points), -1, -1, -1), points, labels) for each in own[:, None]]) > 0


def mean_iou(masks: Tensor, others: Tensor) -> float:
    """Of masks ``(..., h, w)``, bool, each with the other's; 1 where both are empty."""
    both = (masks & others).sum((-2, -1))
    either = (masks | others).sum((-2, -1))
    return float(torch.where(either > 0, both / either.clamp(min=1), 1.0).mean())


def peak_alone(case: Case) -> float:
    """Peak memory in MB of one batch in a process of its own, after one that warms up."""
    return in_fresh_process(_peak_here, case)


@torch.no_grad()
def _peak_here(case: Case) -> float:
    """Of this process, which did nothing else."""
    device = torch.device(case.device)
    run, pixels = build_task(case, random_sam(case.model, case.image_size).to(device)), noise(case)
    run(pixels)
    release_free(device)
    reset_peak(device)
    run(pixels)
    return peak_megabytes(device)

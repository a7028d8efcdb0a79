"""SAM 2.1 (Ravi et al. 2024) as an image model: Hiera, a feature pyramid, and a mask decoder that sees two finer maps.

SAM 2's own memory is not used: what is tracked is tracked by references.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

from torch import Tensor, nn

from sam_uniref.hosts.host import Host
from sam_uniref.hosts.transformers_host import PIXEL_MEAN, PIXEL_STD, TransformersFamily, TransformersHost
from sam_uniref.transforms import StretchTransform

# Of the coarsest map of the pyramid, in pixels.
COARSEST_STRIDE = 32


class Sam2Host(TransformersHost):
    """A frozen SAM 2, or a model made like one.

    Its two finer maps are made with the released decoder's convolutions, once a picture; a trained decoder takes them
    as they are, and its own copies of these convolutions stay frozen.

    Args:
        model: A ``Sam2Model`` or ``EdgeTamModel``, whose weights become the host's.
        image_size: Side of the input square in pixels, which pictures are stretched to.
    """

    def __init__(self, model: Any, image_size: int) -> None:
        prompts = model.prompt_encoder
        side = image_size // int(model.config.prompt_encoder_config.patch_size)
        prompts.input_image_size = image_size
        prompts.image_embedding_size = (side, side)
        prompts.mask_input_size = (4 * side, 4 * side)
        super().__init__(model, StretchTransform(image_size, PIXEL_MEAN, PIXEL_STD))
        # What SAM 2 adds to a picture that nothing is remembered of.
        self.register_buffer("no_memory_embedding", model.no_memory_embedding.detach())
        self.no_memory_embedding: Tensor

    def encode(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """``(B, 3, S, S)`` to a level ``(B, C, h, w)``; ``(B, C / 8, 4h, 4w)`` and ``(B, C / 4, 2h, 2w)`` beside."""
        finest, finer, level = self.image_encoder(pixels, return_dict=True).fpn_hidden_states
        decoder = cast(Any, self.mask_decoder)
        level = level + self.no_memory_embedding.view(1, -1, 1, 1)
        return (level,), (decoder.conv_s0(finest), decoder.conv_s1(finer))

    def decoder_skips(self, skips: Sequence[Tensor]) -> dict[str, Any]:
        """See `TransformersHost.decoder_skips`."""
        return {"high_resolution_features": list(skips)}

    def without_points(self, rows: int) -> Tensor:
        """Two tokens that are no points: SAM 2 is never asked without any."""
        nothing = cast(Any, self.prompt_encoder).not_a_point_embed.weight
        return nothing.expand(rows, 1, 2, -1)

    def trainable_decoder(self) -> nn.Module:
        """As `Host.trainable_decoder`; it does not look for a better mask among three that are not trained."""
        decoder = super().trainable_decoder()
        cast(Any, decoder).dynamic_multimask_via_stability = False
        return decoder

    def never_asked(self, decoder: nn.Module) -> Iterator[nn.Module]:
        """Also whether there is an object at all, and the convolutions of the finer maps."""
        yield from super().never_asked(decoder)
        own = cast(Any, decoder)
        yield from (own.pred_obj_score_head, own.conv_s0, own.conv_s1)


class Sam2(TransformersFamily):
    """SAM 2.1's four sizes, and any ``Sam2Model``, also in a folder of the video model."""

    title = "SAM 2"
    model_type = "sam2"

    def classes(self) -> tuple[type[Any], type[Any]]:
        """See `TransformersFamily.classes`."""
        from transformers import Sam2Config, Sam2Model

        return Sam2Config, Sam2Model

    def named_architecture(self, name: str) -> dict[str, Any]:
        """Hiera's published sizes."""
        widths, depths, attention, background, windows = {
            "sam2.1_hiera_tiny": (96, [1, 2, 7, 2], [5, 7, 9], 7, [8, 4, 14, 7]),
            "sam2.1_hiera_small": (96, [1, 2, 11, 2], [7, 10, 13], 7, [8, 4, 14, 7]),
            "sam2.1_hiera_base_plus": (112, [2, 3, 16, 3], [12, 16, 20], 14, [8, 4, 14, 7]),
            "sam2.1_hiera_large": (144, [2, 6, 36, 4], [23, 33, 43], 7, [8, 4, 16, 8]),
        }[name]
        heads = 1 if widths == 96 else 2
        stages = [widths * 2**stage for stage in range(4)]
        backbone = {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": widths,
            "num_attention_heads": heads,
            "blocks_per_stage": depths,
            "embed_dim_per_stage": stages,
            "num_attention_heads_per_stage": [heads * 2**stage for stage in range(4)],
            "window_size_per_stage": windows,
            "global_attention_blocks": attention,
            "window_positional_embedding_background_size": [background, background],
        }
        return {"vision_config": {"backbone_config": backbone, "backbone_channel_list": stages[::-1]}}

    def image_size_step(self, model: nn.Module) -> tuple[int, int]:
        """Of the coarsest map, and of the first windows, whose positions are tiled."""
        config = cast(Any, model).config
        backbone = config.vision_config.backbone_config
        windows = backbone.patch_stride[0] * backbone.window_size_per_stage[0]
        return math.lcm(COARSEST_STRIDE, windows), int(config.prompt_encoder_config.image_size)

    def plug(self, model: nn.Module, image_size: int | None) -> Host:
        """See `HostFamily.plug`."""
        return Sam2Host(model, image_size or self.image_size_step(model)[1])

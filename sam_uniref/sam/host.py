"""SAM as a host: its encoder, its prompt encoder and its untouched decoder, batched for any images and rows."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch
from segment_anything.modeling import MaskDecoder, Sam
from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.interfaces import ImageFeatures, Prompts
from sam_uniref.sam.build import PIXEL_MEAN, PIXEL_STD
from sam_uniref.sam.compilation import CompiledBlocks
from sam_uniref.sam.image_encoder import ImageEncoder, run_block
from sam_uniref.sam.resize import resize_sam
from sam_uniref.sam.two_way import two_way
from sam_uniref.transforms import ImageTransform, Size, SquareTransform, content_mask

logger = logging.getLogger(__name__)


class SamHost(nn.Module):
    """The frozen SAM. Its parameters bear SAM's own names.

    Implements `ImageBackbone` and `MaskDecoder`.

    Args:
        sam: With its weights loaded, which become the host's.
        image_size: Side of the input square in pixels, a positive multiple of the patch size; SAM's own by default.

    Attributes:
        own_tables: Where the size is not SAM's own, its tables of positions before they were interpolated, by SAM's
            names: what SAM is at any size is saved with these.

    Raises:
        ValueError: If the image size is not such a multiple.
    """

    def __init__(self, sam: Sam, image_size: int | None = None) -> None:
        super().__init__()
        self.own_tables: dict[str, Tensor] = {} if image_size is None else resize_sam(sam, image_size)
        self.image_encoder = ImageEncoder(sam.image_encoder)
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        size = sam.image_encoder.img_size
        self.transform: ImageTransform = SquareTransform(size, PIXEL_MEAN, PIXEL_STD)
        self.strides: tuple[int, ...] = (size // sam.prompt_encoder.image_embedding_size[0],)
        self.channels = sam.mask_decoder.transformer_dim
        self.low_res_stride = self.strides[0] // 4
        self.requires_grad_(False)

    @property
    def encoder(self) -> nn.Module:
        """The image encoder."""
        return self.image_encoder

    def speed_up_encoder(self, precision: str = "float32", compile: bool = False) -> None:  # noqa: A002
        """Choose how the image encoder is computed.

        Args:
            precision: Of its matrix products, whose weights are held in it from now on: ``"float32"``, ``"bf16"`` or
                ``"fp16"``. What was rounded does not come back.
            compile: Run its blocks through `torch.compile` where no gradients are asked for; `warm_up` compiles them,
                or else the first picture. Without a compiler they run as they are, with a warning.

        Raises:
            ValueError: If there is no such precision.
        """
        self.image_encoder.hold_in(precision)
        self.image_encoder.run_frozen_block = CompiledBlocks() if compile else run_block

    @torch.no_grad()
    def warm_up(self, batch_size: int = 1) -> float:
        """Encode blank pictures twice, so that whatever is compiled or chosen at first is done; says so in the log.

        Args:
            batch_size: Of the pictures that will be encoded: each other size is compiled anew.

        Returns:
            Seconds that such a batch takes from now on.
        """
        weight = next(self.image_encoder.parameters())
        pixels = weight.new_zeros(batch_size, 3, self.transform.size, self.transform.size, dtype=torch.float32)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            self.encode(pixels)[0][0].sum().item()  # waits for a GPU
            seconds.append(time.perf_counter() - start)
        logger.info(
            "the image encoder is warm: %d x %d px on %s took %.2f s at first and takes %.2f s now",
            *(batch_size, self.transform.size, weight.device, *seconds),
        )
        return seconds[-1]

    def encode(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """``(B, 3, S, S)`` normalised images to one level ``(B, C, h, w)``, and no finer maps."""
        return (self.image_encoder(pixels),), ()

    def image_features(
        self,
        pixels: Tensor,
        input_sizes: Sequence[Size],
        original_sizes: Sequence[Size],
        levels: tuple[Tensor, ...] | None = None,
    ) -> ImageFeatures:
        """As `encode`, with which cells are padding.

        Args:
            pixels: ``(B, 3, S, S)``, normalised and padded.
            input_sizes: Per image ``(height, width)`` of its content in the square.
            original_sizes: Per image ``(height, width)`` of the picture.
            levels: What something else than `encode` made of the pixels, in place of what it would.
        """
        levels, skips = self.encode(pixels) if levels is None else (levels, ())
        padding = tuple(
            ~content_mask(input_sizes, (level.shape[2], level.shape[3]), stride, pixels.device)
            for level, stride in zip(levels, self.strides, strict=True)
        )
        return ImageFeatures(levels, padding, pixels, tuple(input_sizes), tuple(original_sizes), skips)

    def decode(
        self,
        features: Tensor,
        prompts: Prompts | None,
        tokens: Tensor | None,
        mask_decoder: MaskDecoder,
        *,
        multimask: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Decode N rows in one call, whatever images they are about.

        segment-anything's decoder multiplies B images with P prompts; here each row brings its own features.

        Args:
            features: ``(N, C, h, w)``, one map a row.
            prompts: N rows, or None.
            tokens: Extra sparse prompts ``(N, T, C)``, put after points and boxes, or None.
            mask_decoder: The untouched decoder, or a trained one of the same class.
            multimask: Three candidate masks instead of one.

        Returns:
            Low-res logits ``(N, M, 4h, 4w)`` and predicted IoU ``(N, M)``; M is 3 or 1.
        """
        logits, scores = self.decode_all(features, prompts, tokens, mask_decoder)
        wanted = slice(1, None) if multimask else slice(0, 1)
        return logits[:, wanted], scores[:, wanted]

    def decode_all(
        self, features: Tensor, prompts: Prompts | None, tokens: Tensor | None, mask_decoder: MaskDecoder
    ) -> tuple[Tensor, Tensor]:
        """As `decode`, with all four masks: the single one, then the three candidates."""
        sparse, dense = self.embed_prompts(prompts, features.shape[0])
        if tokens is not None:
            sparse = torch.cat([sparse, tokens.to(sparse.dtype)], dim=1)
        logits, scores, _ = self.run_decoder(features, sparse, dense, mask_decoder)
        return logits, scores

    def run_decoder(
        self, features: Tensor, sparse: Tensor, dense: Tensor, mask_decoder: MaskDecoder, padding: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode N rows whose prompts are embedded already.

        Args:
            features: ``(N, C, h, w)``, one map a row.
            sparse: Prompt tokens ``(N, T, C)``.
            dense: ``(N, C, h, w)``, added to the features.
            mask_decoder: As in `decode`.
            padding: ``(N, T)`` bool, True where a prompt token is there for its row's length only.

        Returns:
            Low-res logits ``(N, 4, 4h, 4w)`` and predicted IoU ``(N, 4)``, the single mask first; and the mask tokens
            as they leave the transformer, ``(N, 4, C)``.
        """
        outputs = torch.cat([mask_decoder.iou_token.weight, mask_decoder.mask_tokens.weight])
        queries = torch.cat([outputs.expand(features.shape[0], -1, -1), sparse], dim=1)
        positions = self.prompt_encoder.get_dense_pe().expand(features.shape[0], -1, -1, -1)
        if padding is None:
            states, image = mask_decoder.transformer(features + dense, positions, queries)
        else:
            unseen = F.pad(padding, (len(outputs), 0))
            states, image = two_way(mask_decoder.transformer, features + dense, positions, queries, unseen)
        image = image.transpose(1, 2).reshape(features.shape)
        image = mask_decoder.output_upscaling(image)
        # All four tokens, wanted or not: one matrix product of SAM's own shape gives SAM's own bits.
        masks = states[:, 1 : len(outputs)]
        kernels = [mlp(masks[:, i]) for i, mlp in enumerate(mask_decoder.output_hypernetworks_mlps)]
        logits = (torch.stack(kernels, dim=1) @ image.flatten(2)).unflatten(2, image.shape[-2:])
        return logits, mask_decoder.iou_prediction_head(states[:, 0]), masks

    def embed_prompts(self, prompts: Prompts | None, rows: int) -> tuple[Tensor, Tensor]:
        """Sparse ``(N, T, C)`` and dense ``(N, C, h, w)`` prompt embeddings; the no-mask embedding without a mask."""
        points = None
        if prompts is not None and prompts.points is not None and prompts.labels is not None:
            points = (prompts.points, prompts.labels)
        sparse, dense = self.prompt_encoder(
            points=points,
            boxes=prompts.boxes if prompts is not None else None,
            masks=prompts.mask_logits if prompts is not None else None,
        )
        if sparse.shape[0] != rows:  # without prompts SAM's encoder answers for one row
            sparse, dense = sparse.expand(rows, -1, -1), dense.expand(rows, -1, -1, -1)
        return sparse, dense

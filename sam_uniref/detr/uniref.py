"""UniRef: the full UniRef++ (paper, sections 3 and 4), a Deformable-DETR that is told by references what to find.

Backbone and transformer are trained; UniFusion injects the references into all four feature levels; the query with the
best score is the answer, and a mask is built for it alone. Without a reference it is a detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam_uniref.adapters import FrameReference, FrameReferences, ReferenceFeatures
from sam_uniref.annotated import annotated_images
from sam_uniref.detr.answers import best_queries, canvas_boxes, enlarge_followed, query_scores
from sam_uniref.detr.boxes import corners
from sam_uniref.detr.built import BuiltUniRef
from sam_uniref.detr.canvases import CANVAS_MULTIPLE, CanvasGroup, canvas_groups, extended, grid_size, paste
from sam_uniref.detr.detections import Detections, best_detections, check_limits, picture_boxes
from sam_uniref.detr.levels import LEVEL_STRIDES
from sam_uniref.detr.mask_head import MASK_STRIDE, aligned_upsample
from sam_uniref.detr.output import DetrOutput
from sam_uniref.detr.training import training_losses
from sam_uniref.images import ImageLike
from sam_uniref.interfaces import ImageFeatures, MaskPrediction, Prompts, Targets
from sam_uniref.transforms import Size, content_mask

# How many answers a row has when several are asked for; SAM's number.
_CANDIDATES = 3
_NO_PROMPTS = (
    "a UniRef finds objects by sentences and annotated images; points, boxes and mask logits are SamRef's: use that, "
    "or give text= or examples="
)


class UniRef(BuiltUniRef):
    """Segment a sentence's, an example's or a first frame's object; or detect all objects.

    Build one with `fresh` (to be trained) or `from_pretrained`.
    """

    # ---- Encoding: once an image, once a reference ----

    def encode_pixels(
        self, pixels: Tensor, input_sizes: Sequence[Size], original_sizes: Sequence[Size]
    ) -> ImageFeatures:
        """Encode ``(B, 3, H, W)`` images, normalised and padded, once each.

        In training the batch's canvas is that of each image, as published, unless the configuration has
        ``own_canvases``; in evaluation an image has its own (`sam_uniref.detr.canvases`), so that nothing depends on
        what else is in the batch.

        Raises:
            ValueError: If the canvas' sides are no multiples of 32.
        """
        canvas = (pixels.shape[-2], pixels.shape[-1])
        if canvas[0] % CANVAS_MULTIPLE or canvas[1] % CANVAS_MULTIPLE:
            raise ValueError(
                f"images must be padded to multiples of {CANVAS_MULTIPLE}, got {canvas} (height, width); "
                "UniRef.transform.batch does so"
            )
        groups = self._groups(input_sizes, canvas)
        maps = [self._encode_canvas(group.cut(pixels, 1)) for group in groups]
        strides = (MASK_STRIDE, *LEVEL_STRIDES)
        fine, *levels = (
            paste(groups, parts, grid_size(canvas, stride))
            for parts, stride in zip(zip(*maps, strict=True), strides, strict=True)
        )
        # A cell is padding if its first pixel is: as published, but for the last level of canvases that are no multiple
        # of 64, where the published mask is sampled elsewhere and depends on the canvas.
        padding = [
            ~content_mask(input_sizes, grid_size(canvas, stride), stride, pixels.device) for stride in LEVEL_STRIDES
        ]
        return ImageFeatures(
            tuple(levels), tuple(padding), pixels, tuple(input_sizes), tuple(original_sizes), skips=(fine,)
        )

    def _encode_canvas(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """``(n, 3, h, w)`` images of one canvas to the backbone's map at stride 4 and the four levels."""
        fine, *maps = self.backbone(pixels)
        return fine, *self.input_projection(maps)

    @property
    def own_canvases(self) -> bool:
        """Whether each image has the canvas it would have alone, now."""
        return self.config.own_canvases or not self.training

    def _groups(self, input_sizes: Sequence[Size], canvas: Size) -> list[CanvasGroup]:
        """Which rows run together."""
        return canvas_groups(input_sizes if self.own_canvases else [canvas] * len(input_sizes), self.device)

    def encode_text(self, sentences: Sequence[str]) -> ReferenceFeatures:
        """Encode N sentences.

        Raises:
            ValueError: If a sentence is empty, or the model was built without a text encoder.
        """
        if self.text_encoder is None:
            raise ValueError("this UniRef has no text encoder; build it with fresh(..., text_encoder=...)")
        return self.text_encoder(sentences)

    def encode_mask(self, features: ImageFeatures, masks: Tensor, source_index: Tensor) -> ReferenceFeatures:
        """Encode N annotated images (eq. 1-2): keys are the images' levels, values the mask encoder's.

        Args:
            features: The reference images, encoded.
            masks: ``(N, H, W)`` in [0, 1], in the canvas.
            source_index: ``(N,)`` int64, which reference image each mask belongs to.

        Returns:
            N rows, about images 0 to N-1 until `ReferenceFeatures.about` says otherwise. A row whose mask is empty is
            not present.
        """
        sizes = [features.input_sizes[image] for image in source_index.tolist()]
        groups = self._groups(sizes, features.canvas)
        encoded = []
        for group in groups:
            images, local = source_index[group.rows].unique(return_inverse=True)
            shown = CanvasGroup(group.canvas, images, len(images) == len(features))
            levels = [shown.cut(level, stride) for level, stride in zip(features.levels, LEVEL_STRIDES, strict=True)]
            encoded.append(
                self.mask_encoder(shown.cut(features.pixels, 1), group.cut(masks, 1)[:, None], levels, local)
            )
        grids = [grid_size(features.canvas, stride) for stride in LEVEL_STRIDES]
        values = [paste(groups, parts, grid) for parts, grid in zip(zip(*encoded, strict=True), grids, strict=True)]
        return annotated_images(
            features, masks, source_index, values, strides=LEVEL_STRIDES, pooling=self.config.pooling
        )

    def encode_frame(self, features: ImageFeatures, masks: Tensor) -> list[FrameReference]:
        """One encoded picture and ``(N, H, W)`` masks of it: N references that share the picture."""
        encoded = self.encode_mask(features, masks, torch.zeros(len(masks), dtype=torch.int64, device=masks.device))
        return self.fusion.frame_references(encoded)

    def frame_reference(self, annotated: ReferenceFeatures) -> FrameReference:
        """One row of annotated images from elsewhere as a reference to look back at in every frame."""
        return self.fusion.frame_references(annotated)[0]

    # ---- Answering ----

    def run(
        self, features: ImageFeatures, references: Sequence[ReferenceFeatures | FrameReferences]
    ) -> tuple[DetrOutput, Tensor]:
        """What the network puts out for N rows with references, or for B images without.

        Args:
            features: B images.
            references: Kinds of reference, each with N rows; none to detect all objects.

        Returns:
            The output, and ``(N,)`` int64, which image each row is about.

        Raises:
            ValueError: If the references differ in their number of rows.
        """
        if references:
            image_index = references[0].image_index
            levels = self.fusion(features.levels, references)
        else:
            image_index = torch.arange(len(features), device=features.pixels.device)
            levels = list(features.levels)
        found = self.transformer(levels, [padding[image_index] for padding in features.padding])
        fine = self.mask_head.lateral(features.skips[0])[image_index]
        sizes = [features.input_sizes[image] for image in image_index.tolist()]
        groups = self._groups(sizes, features.canvas)
        parts = [
            self.mask_head.features(
                [group.cut(level, stride) for level, stride in zip(found.memory, LEVEL_STRIDES, strict=True)],
                group.cut(fine, MASK_STRIDE),
            )
            for group in groups
        ]
        mask_features = paste(groups, parts, grid_size(features.canvas, MASK_STRIDE))
        return DetrOutput(**vars(found), mask_features=mask_features), image_index

    def predict(
        self,
        features: ImageFeatures,
        references: Sequence[ReferenceFeatures | FrameReferences],
        prompts: Prompts | None = None,
        *,
        multimask: bool = False,
        decoder: str = "auto",
    ) -> MaskPrediction:
        """Answer N rows: each row's query of the best score, and its mask.

        Args:
            features: B images.
            references: Kinds of reference, each with N rows. A row in which none is present is asked for whatever
                object is the clearest.
            prompts: None; others are SamRef's.
            multimask: The three best queries a row instead of one.
            decoder: ``"auto"`` or ``"trained"``, which are the same: there is one.

        Returns:
            Logits at stride 4. Where a row is about an object that is followed through frames by its masks alone, they
            are finer, a logit a pixel, as published, for all rows.

        Raises:
            ValueError: If there are no references, they differ in their number of rows, there are prompts, or the
                decoder is unknown.
        """
        if prompts is not None:
            raise ValueError(_NO_PROMPTS)
        if decoder not in ("auto", "trained"):
            raise ValueError(f"decoder must be 'auto' or 'trained' for a UniRef, got {decoder!r}")
        if not references:
            raise ValueError("give a sentence or annotated images; detect() finds all objects without")
        output, image_index = self.run(features, references)
        sizes = [features.input_sizes[image] for image in image_index.tolist()]
        scores, queries = best_queries(output, _CANDIDATES if multimask else 1)
        rows = torch.arange(len(queries), device=queries.device).repeat_interleave(queries.shape[1])
        logits = self.build_masks(output, rows, queries.flatten(), sizes).unflatten(0, queries.shape)
        logits = enlarge_followed(logits, references, self._groups(sizes, features.canvas), features.canvas)
        boxes = output.boxes[-1].gather(1, queries[..., None].expand(-1, -1, 4))
        return MaskPrediction(logits, scores, image_index, canvas_boxes(boxes, sizes))

    @torch.no_grad()
    def detect(self, image: ImageLike | ImageFeatures, *, score_threshold: float = 0.0, most: int = 100) -> Detections:
        """Find all objects.

        Args:
            image: The picture, or its features from `encode_image` (one image).
            score_threshold: Least score.
            most: How many at most; masks are built for these only.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If the image is broken, or there are several, the least score is no number, or ``most`` is below
                1.
        """
        check_limits(score_threshold, most)
        features = image if isinstance(image, ImageFeatures) else self.encode_image(image)
        if len(features) != 1:
            raise ValueError(f"detect takes one image, got {len(features)}; ask for each with features.select([i])")
        output, _ = self.run(features, [])
        scores, shares = query_scores(output)[0], corners(output.boxes[-1, 0]).clamp(0, 1)
        queries, labels = best_detections(scores, shares, threshold=score_threshold, most=most)
        size = features.original_sizes[0]
        logits = self.build_masks(output, torch.zeros_like(queries), queries, features.input_sizes)
        masks = np.zeros((len(queries), *size), np.bool_)
        for row, one in enumerate(logits[:, None, None].float()):  # one at a time: a picture may be large
            enlarged = self.transform.logits(one, features.input_sizes[0], size, features.canvas)
            masks[row] = (enlarged[0, 0] > 0).cpu().numpy()
        found = scores[queries, labels].cpu().numpy()
        return Detections(labels.cpu().numpy(), found, picture_boxes(shares[queries], size), masks)

    def build_masks(
        self,
        output: DetrOutput,
        rows: Tensor,
        queries: Tensor,
        sizes: Sequence[Size],
        *,
        layers: Tensor | int = -1,
        upsample: int = 1,
    ) -> Tensor:
        """Mask logits of K queries.

        Args:
            output: Of N rows.
            rows: ``(K,)`` int64.
            queries: ``(K,)`` int64.
            sizes: Of each of the N rows' images, its ``(height, width)`` in the canvas.
            layers: ``(K,)`` int64, of the decoder, or one for all.
            upsample: How many times finer than stride 4.

        Returns:
            ``(K, h, w)``.
        """
        scale = torch.tensor([(w, h) for h, w in sizes], dtype=torch.float32, device=rows.device)
        masks = self.mask_head.build(
            output.mask_features,
            output.hidden[layers, rows, queries],
            output.references[layers, rows, queries, :2] * scale[rows],
            rows,
        )
        if upsample > 1 and self.own_canvases:
            masks = extended(masks, sizes, rows, MASK_STRIDE)
        return aligned_upsample(masks[:, None], upsample)[:, 0]

    def _prompts(self, features: ImageFeatures, *given: Any) -> None:
        """There are no points, labels, boxes or mask logits.

        Raises:
            ValueError: If there are.
        """
        if any(prompt is not None for prompt in given):
            raise ValueError(_NO_PROMPTS)

    def losses(
        self, features: ImageFeatures, references: Sequence[ReferenceFeatures], targets: Targets
    ) -> dict[str, Tensor]:
        """Unweighted losses by name, of all decoder layers and of the encoder's proposals.

        Without references all objects of the images are asked for. See `sam_uniref.detr.criterion.set_losses`.

        Raises:
            ValueError: If there are not as many targets as rows, or a label is not among the model's classes.
        """
        return training_losses(self, features, references, targets)

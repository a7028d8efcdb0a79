"""The contracts between the parts: what is encoded once, what is asked, what comes out.

Notation: B images, N query rows (one object asked for in one image), C channels, H and W the canvas' sides: of
the input square for a SAM, of the largest picture of the batch, rounded up, for a detector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sam_uniref.adapters.frames import FrameReference, FrameReferences
from sam_uniref.adapters.references import ReferenceFeatures, concat
from sam_uniref.transforms import ImageTransform, Size, content_mask

if TYPE_CHECKING:
    from sam_uniref.data.batch import ReferenceBatch


@dataclass(frozen=True)
class ImageFeatures:
    """A batch of encoded images. Encoded once an image, whatever is asked of it afterwards.

    Attributes:
        levels: Per level ``(B, C, h, w)``.
        padding: Per level ``(B, h, w)`` bool, True where a cell holds padding only.
        pixels: ``(B, 3, H, W)``, the normalised and padded input; the mask encoder reads it.
        input_sizes: Per image ``(height, width)`` of its content in the canvas.
        original_sizes: Per image ``(height, width)`` of the picture.
        skips: Other maps that some decoders want, finest first; empty for SAM.
    """

    levels: tuple[Tensor, ...]
    padding: tuple[Tensor, ...]
    pixels: Tensor
    input_sizes: tuple[Size, ...]
    original_sizes: tuple[Size, ...]
    skips: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        """The number of images, B."""
        return len(self.input_sizes)

    @property
    def canvas(self) -> Size:
        """``(H, W)`` that the images are padded to."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def select(self, images: Sequence[int] | slice) -> ImageFeatures:
        """The given images, in that order."""
        at = list(range(len(self)))[images] if isinstance(images, slice) else list(images)
        index = images if isinstance(images, slice) else torch.tensor(at, device=self.pixels.device)
        return ImageFeatures(
            levels=tuple(level[index] for level in self.levels),
            padding=tuple(padding[index] for padding in self.padding),
            pixels=self.pixels[index],
            input_sizes=tuple(self.input_sizes[i] for i in at),
            original_sizes=tuple(self.original_sizes[i] for i in at),
            skips=tuple(skip[index] for skip in self.skips),
        )

    def valid_pixels(self) -> Tensor:
        """``(B, H, W)`` bool, False in the input's padding."""
        return content_mask(self.input_sizes, self.canvas, 1, self.pixels.device)


@dataclass(frozen=True)
class Prompts:
    """SAM's own prompts for N rows, in the input square's pixels.

    Attributes:
        image_index: ``(N,)`` int64, which image each row is about.
        points: ``(N, P, 2)`` as (x, y), or None.
        labels: ``(N, P)`` int: 1 foreground, 0 background, -1 padding; with points.
        boxes: ``(N, 4)`` as (x0, y0, x1, y1), or None.
        mask_logits: ``(N, 1, h, w)`` low-res logits of an earlier answer, or None.
    """

    image_index: Tensor
    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    mask_logits: Tensor | None = None

    def __len__(self) -> int:
        """The number of rows, N."""
        return self.image_index.shape[0]

    def select(self, rows: Tensor) -> Prompts:
        """The given rows."""

        def pick(given: Tensor | None) -> Tensor | None:
            return None if given is None else given[rows]

        return Prompts(
            self.image_index[rows],
            points=pick(self.points),
            labels=pick(self.labels),
            boxes=pick(self.boxes),
            mask_logits=pick(self.mask_logits),
        )


@dataclass(frozen=True)
class MaskPrediction:
    """What a model answers for N rows.

    Attributes:
        logits: ``(N, M, h, w)`` low-res logits of M candidate masks (M = 1 unless several were asked for).
            Positive is foreground.
        scores: ``(N, M)``. Predicted IoU for SamRef, class probability for UniRef.
        image_index: ``(N,)`` which image each row is about.
        boxes: ``(N, M, 4)`` as (x0, y0, x1, y1) in the canvas' pixels where the model predicts boxes.
    """

    logits: Tensor
    scores: Tensor
    image_index: Tensor
    boxes: Tensor | None = None


@dataclass(frozen=True)
class Instances:
    """All objects of one image that are known, in its canvas.

    Attributes:
        boxes: ``(M, 4)`` float32 as (x0, y0, x1, y1) in the canvas' pixels, x1 and y1 exclusive. Boxes and labels are
            few and are checked by the host: on another device than its own it waits for them.
        labels: ``(M,)`` int64 from 0.
        masks: ``(M, H, W)`` float in {0, 1}; None where only boxes are known.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        """The number of objects, M."""
        return len(self.labels)

    def map_masks(self, function: Callable[[Tensor], Tensor]) -> Instances:
        """The same with a function applied to the masks, if there are any."""
        return self if self.masks is None else replace(self, masks=function(self.masks))


@dataclass(frozen=True)
class Targets:
    """What training compares with.

    Attributes:
        masks: ``(N, H, W)`` float in {0, 1}; all zero where the reference points at nothing in the image. Without rows
            where `instances` say it all.
        instances: For detection, all objects of each of the B images; and for rows of which only boxes are known, the
            one of each of the N rows. None where the masks say it all.
    """

    masks: Tensor
    instances: tuple[Instances, ...] | None = None


@runtime_checkable
class ImageBackbone(Protocol):
    """What a host model must offer to be plugged into: its frozen encoder."""

    transform: ImageTransform
    strides: tuple[int, ...]
    channels: int

    @property
    def encoder(self) -> nn.Module:
        """The network whose weights decide what `encode` gives."""

    def encode(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """``(B, 3, H, W)`` to levels ``(B, C, h, w)`` and finer skip maps."""


@runtime_checkable
class MaskDecoder(Protocol):
    """What a host model must offer to be plugged into: its promptable decoder."""

    low_res_stride: int

    def decode(
        self,
        features: Tensor,
        prompts: Prompts | None,
        tokens: Tensor | None,
        mask_decoder: nn.Module,
        *,
        skips: Sequence[Tensor] = (),
        multimask: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """``(N, C, h, w)`` features, prompts, extra tokens ``(N, T, C)`` and rows of skips to logits and scores."""


@dataclass(frozen=True)
class TrainablePart:
    """A named part of a model, for the table of what is trained and for parameter groups.

    Attributes:
        name: What the table calls it.
        module: The part.
        lr_group: Which learning rate it follows: ``"base"``, ``"text"``, or one that its kind of model has beside them.
        tasks: That it is used in, and can learn from; None: in all.
    """

    name: str
    module: nn.Module
    lr_group: str = field(default="base")
    tasks: tuple[str, ...] | None = None


class ReferenceSegmenter(nn.Module, ABC):
    """The interface of both siblings. Trainer, tracker, predictor and evaluation know only this."""

    transform: ImageTransform

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @abstractmethod
    def encode_pixels(
        self, pixels: Tensor, input_sizes: Sequence[Size], original_sizes: Sequence[Size]
    ) -> ImageFeatures:
        """Encode normalised, padded images ``(B, 3, H, W)``, once each."""

    def frozen_backbone(self) -> ImageBackbone:
        """The encoder, whose answers may be kept since training leaves it as it is.

        Raises:
            ValueError: If training changes it, saying how.
        """
        raise ValueError(f"a {type(self).__name__} trains its image encoder, so that there is nothing to cache")

    def encoded_before(
        self,
        pixels: Tensor,
        input_sizes: Sequence[Size],
        original_sizes: Sequence[Size],
        levels: tuple[Tensor, ...],
    ) -> ImageFeatures:
        """As `encode_pixels`, with what `frozen_backbone` made of the pixels before."""
        raise ValueError(f"a {type(self).__name__} trains its image encoder, so that nothing of it can be reused")

    def features_of(self, batch: ReferenceBatch) -> ImageFeatures:
        """A batch's pictures: encoded now, once each, in one call, or before."""
        if batch.levels is None:
            return self.encode_pixels(batch.pixels, batch.input_sizes, batch.original_sizes)
        return self.encoded_before(batch.pixels, batch.input_sizes, batch.original_sizes, batch.levels)

    @abstractmethod
    def encode_text(self, sentences: Sequence[str]) -> ReferenceFeatures:
        """Encode N sentences; row i is about image i until `ReferenceFeatures.about` says otherwise."""

    @abstractmethod
    def encode_mask(self, features: ImageFeatures, masks: Tensor, source_index: Tensor) -> ReferenceFeatures:
        """Encode N annotated images: masks ``(N, H, W)`` of the images ``source_index`` (N,) of ``features``."""

    @abstractmethod
    def encode_frame(self, features: ImageFeatures, masks: Tensor) -> list[FrameReference]:
        """One encoded picture and ``(N, H, W)`` masks of it, none empty: N references that share the picture."""

    @abstractmethod
    def frame_reference(self, annotated: ReferenceFeatures) -> FrameReference:
        """One row of annotated images from elsewhere as a reference to look back at in every frame."""

    @abstractmethod
    def predict(
        self,
        features: ImageFeatures,
        references: Sequence[ReferenceFeatures | FrameReferences],
        prompts: Prompts | None = None,
        *,
        multimask: bool = False,
        decoder: str = "auto",
    ) -> MaskPrediction:
        """Answer N rows: references in order of precedence (the sentence first), prompts, or both."""

    @abstractmethod
    def losses(
        self, features: ImageFeatures, references: Sequence[ReferenceFeatures], targets: Targets
    ) -> dict[str, Tensor]:
        """Unweighted scalar losses by name, for N rows with references, or for B images without (detection)."""

    @abstractmethod
    def parts(self) -> list[TrainablePart]:
        """All parts of the model, each parameter in exactly one of them."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What is trained, by the learning rate that it follows."""
        groups: dict[str, list[nn.Parameter]] = {}
        for part in self.parts():
            groups.setdefault(part.lr_group, []).extend(p for p in part.module.parameters() if p.requires_grad)
        return groups

    @abstractmethod
    def trained_state_dict(self) -> dict[str, Tensor]:
        """What training changes and a checkpoint must hold, by name."""

    @abstractmethod
    def load_trained_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Load what `trained_state_dict` gave; missing, unexpected and misshapen names are a ValueError."""

    def without_lora(self) -> AbstractContextManager[None]:
        """Run the image encoder as it was before anything was plugged in."""
        return nullcontext()

    def references_of(self, batch: ReferenceBatch, features: ImageFeatures) -> list[ReferenceFeatures]:
        """The references of a batch: its sentences, then its annotated images joined to one.

        Args:
            batch: B samples.
            features: The batch's pictures.
        """
        references = []
        if batch.sentences is not None:
            references.append(self.encode_text(batch.sentences).about(batch.query_index))
        if len(batch.reference_masks):
            masks, index = batch.reference_masks.flatten(0, 1), batch.reference_index.flatten()
            annotated = self.encode_mask(features, masks, index)
            if batch.task in ("vos", "rvos"):
                annotated = annotated.of_kind("frames")
            shots = torch.arange(len(index), device=index.device).view_as(batch.reference_index)
            references.append(concat([annotated.select(rows) for rows in shots]).about(batch.query_index))
        return references

    def forward(self, batch: ReferenceBatch) -> dict[str, Tensor]:
        """Losses of a training batch."""
        features = self.features_of(batch)
        references = self.references_of(batch, features)
        if not references and len(features) != len(batch):  # a picture that was drawn twice is there once
            features = features.select(batch.query_index.tolist())
        return self.losses(features, references, Targets(batch.masks, batch.instances))

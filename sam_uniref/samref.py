"""SamRef: a frozen SAM that segments what a reference points at (UniRef++ section 5).

The image encoder and the prompt encoder stay frozen; UniFusion injects the references into the image
embedding; the pooled reference enters the prompt encoder's output as one extra sparse token; a copy of SAM's
mask decoder is trained. SAM's own decoder is kept untouched for prompts without a reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from sam_uniref.adapters import (
    FrameReference,
    FrameReferences,
    MaskEncoder,
    ReferenceFeatures,
    TextEncoder,
    add_lora,
    build_fusion,
    has_lora,
    lora_disabled,
    merge_lora,
)
from sam_uniref.annotated import annotated_images
from sam_uniref.config import SamRefConfig, SentenceConfig, TextEncoderConfig
from sam_uniref.hosts import Host
from sam_uniref.images import ImageLike
from sam_uniref.interfaces import ImageFeatures, MaskPrediction, Prompts, Targets, TrainablePart
from sam_uniref.lora_files import lora_encoders
from sam_uniref.losses import mask_losses
from sam_uniref.plugged import PluggedSam
from sam_uniref.reference_parts import reference_parts
from sam_uniref.segmentation import Segmentation, innermost_point

DECODERS = ("auto", "trained", "sam")


class SamRef(PluggedSam):
    """Segment a sentence's, an example's or a first frame's object with a frozen SAM.

    Build one with `from_sam` (a plain SAM with fresh adapters, which leave its features as they are until they are
    trained) or `from_pretrained` (trained adapters).

    Args:
        host: The frozen SAM, or another promptable segmenter (`sam_uniref.hosts`).
        text_encoder: For sentences, or None.
        config: What everything is built from.
    """

    config_class = SamRefConfig
    trained_names: ClassVar[tuple[str, ...]] = ("mask_decoder.", "fusion.", "mask_encoder.", "text_encoder.resizer.")
    config: SamRefConfig
    text_encoder: TextEncoder | None

    def __init__(self, host: Host, text_encoder: TextEncoder | None, config: SamRefConfig) -> None:
        super().__init__(host, text_encoder, config)
        self.mask_encoder = MaskEncoder(
            host.channels,
            strides=host.strides,
            width=config.mask_encoder.width,
            norm=config.mask_encoder.norm,
        )
        self.fusion = build_fusion(host.channels, len(host.strides), **asdict(config.fusion))
        self._add_lora()
        self._merged: tuple[str, ...] = ()
        self.eval()

    @classmethod
    def wrap_text_model(cls, model: nn.Module, tokenizer: Any, channels: int, config: SentenceConfig) -> TextEncoder:
        """A language model and its tokenizer with a resizer to the width of the image features."""
        own = cast(TextEncoderConfig, config)
        return TextEncoder(model, tokenizer, channels, max_length=own.max_length, dropout=own.dropout)

    # ---- Encoding: once an image, once a reference ----

    def encode_text(self, sentences: Sequence[str]) -> ReferenceFeatures:
        """Encode N sentences.

        Raises:
            ValueError: If a sentence is empty, or the model was built without a text encoder.
        """
        if self.text_encoder is None:
            raise ValueError("this SamRef has no text encoder; build it with from_sam(..., text_encoder=...)")
        return self.text_encoder(sentences)

    def encode_mask(self, features: ImageFeatures, masks: Tensor, source_index: Tensor) -> ReferenceFeatures:
        """Encode N annotated images (eq. 1-2): keys are the image's features, values the mask encoder's.

        Args:
            features: The reference images, encoded.
            masks: ``(N, S, S)`` in [0, 1], in the input square.
            source_index: ``(N,)`` int64, which reference image each mask belongs to.

        Returns:
            N rows, about images 0 to N-1 until `ReferenceFeatures.about` says otherwise. A row whose mask is
            empty is not present.
        """
        values = self.mask_encoder(features.pixels, masks[:, None], features.levels, source_index)
        return annotated_images(
            features, masks, source_index, values, strides=self.sam.strides, pooling=self.config.pooling
        )

    def encode_frame(self, features: ImageFeatures, masks: Tensor) -> list[FrameReference]:
        """One encoded picture and ``(N, S, S)`` masks of it: N references that share the picture."""
        encoded = self.encode_mask(features, masks, torch.zeros(len(masks), dtype=torch.int64, device=masks.device))
        return self.fusion.frame_references(encoded)

    def frame_reference(self, annotated: ReferenceFeatures) -> FrameReference:
        """One row of annotated images from elsewhere as a reference to look back at in every frame."""
        return self.fusion.frame_references(annotated)[0]

    # ---- Answering ----

    def predict(
        self,
        features: ImageFeatures,
        references: Sequence[ReferenceFeatures | FrameReferences],
        prompts: Prompts | None = None,
        *,
        multimask: bool = False,
        decoder: str = "auto",
    ) -> MaskPrediction:
        """Answer N rows in one decoder call (two where some rows have a reference and some have none).

        Args:
            features: B images.
            references: Kinds of reference in order of precedence: the first one present in a row gives its
                prompt token (published: the sentence before the masks). Each has N rows.
            prompts: Points, boxes and mask logits of the same N rows, or None.
            multimask: Three candidates a row instead of one.
            decoder: ``"auto"``: rows with a reference use the trained decoder, the others SAM's own. ``"trained"``
                or ``"sam"``: that one for all.

        Raises:
            ValueError: If there are neither references nor prompts, they differ in their number of rows, or the
                decoder is unknown.
        """
        if decoder not in DECODERS:
            raise ValueError(f"decoder must be one of {DECODERS}, got {decoder!r}")
        rows = [len(given) for given in (*references, prompts) if given is not None]
        if len(set(rows)) > 1:
            raise ValueError(f"references and prompts must have the same number of rows, got {rows}")
        if references:
            index = references[0].image_index
            present = torch.stack([reference.present for reference in references]).any(0)
            if bool(present.all()):
                return self._decode_referred(features, references, prompts, multimask, decoder)
        elif prompts is not None:
            index = prompts.image_index
            present = torch.zeros(len(index), dtype=torch.bool, device=index.device)
        else:
            raise ValueError("give at least one reference or prompt")
        plain = self._decode_plain(features, prompts, index, multimask, decoder)
        if not bool(present.any()):
            return plain
        some = prompts.select(present) if prompts is not None else None
        referred = self._decode_referred(features, [r.select(present) for r in references], some, multimask, decoder)
        logits, scores = plain.logits.clone(), plain.scores.clone()
        logits[present], scores[present] = referred.logits, referred.scores
        return MaskPrediction(logits, scores, index)

    def _decode_referred(
        self,
        features: ImageFeatures,
        references: Sequence[ReferenceFeatures | FrameReferences],
        prompts: Prompts | None,
        multimask: bool,
        decoder: str,
    ) -> MaskPrediction:
        """Rows that all have a reference: fuse, add the prompt token, decode."""
        (fused,) = self.fusion(features.levels, references)
        tokens = prompt_token(references)[:, None]
        chosen = self.sam.mask_decoder if decoder == "sam" else self.mask_decoder
        index = references[0].image_index
        logits, scores = self.sam.decode(
            fused, prompts, tokens, chosen, skips=[skip[index] for skip in features.skips], multimask=multimask
        )
        return MaskPrediction(logits, scores, index)

    def _decode_plain(
        self, features: ImageFeatures, prompts: Prompts | None, index: Tensor, multimask: bool, decoder: str
    ) -> MaskPrediction:
        """Rows without a reference: SAM as it was."""
        chosen = self.mask_decoder if decoder == "trained" else self.sam.mask_decoder
        level, skips = features.levels[0][index], [skip[index] for skip in features.skips]
        logits, scores = self.sam.decode(level, prompts, None, chosen, skips=skips, multimask=multimask)
        return MaskPrediction(logits, scores, index)

    def refine(self, image: ImageLike | ImageFeatures, answer: Segmentation) -> Segmentation:
        """Ask SAM's own untouched decoder for the object of an answer, by its mask, box and innermost point.

        Trained for a short while, the mask decoder finds an object sooner than it draws it as SAM does.

        Args:
            image: The picture that was segmented, or its features from `encode_image`.
            answer: From `segment`, by whatever reference. An empty one is given back as it is.

        Returns:
            The same object, with SAM's predicted IoU as its score.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If the answer is of another size than the picture.
        """
        if not answer.mask.any():
            return answer
        with self.without_lora():  # SAM's decoder knows SAM's own features
            features = image if isinstance(image, ImageFeatures) else self.encode_image(image)
        if answer.mask.shape != features.original_sizes[0]:
            raise ValueError(
                f"the answer is of a picture of {answer.mask.shape} (height, width), this one is "
                f"{features.original_sizes[0]}; give the picture that was segmented"
            )
        return self.segment(
            features,
            points=[innermost_point(answer.mask)],
            box=answer.box,
            mask_logits=answer.low_res_logits,
            decoder="sam",
        )

    def losses(
        self, features: ImageFeatures, references: Sequence[ReferenceFeatures], targets: Targets
    ) -> dict[str, Tensor]:
        """BCE and Dice of the mask at the input's size, and the squared error of the predicted IoU."""
        prediction = self._decode_referred(features, references, None, False, "trained")
        valid = features.valid_pixels()[prediction.image_index]
        return mask_losses(prediction.logits[:, 0], prediction.scores[:, 0], targets.masks, valid)

    # ---- What is trained, and what a checkpoint holds ----

    def parts(self) -> list[TrainablePart]:
        """All parts, each parameter in exactly one."""
        return [
            *self.frozen_parts(),
            TrainablePart("mask decoder", self.mask_decoder),
            *reference_parts(self.fusion, self.mask_encoder, self.text_encoder),
        ]

    def recomputed(self) -> list[nn.Module]:
        """UniFusion, the mask encoder and most of the mask decoder."""
        return [self.fusion, *self.mask_encoder.stages(), *self.sam.recomputed(self.mask_decoder)]

    def merge_lora(self) -> None:
        """Make LoRA part of the encoders that it is in, for inference: the same answers in less time.

        SAM's own features are gone then, and with LoRA on the image encoder also what needs them: prompts without a
        reference, and `refine`. Such a model can't be saved; merge a loaded one.

        Raises:
            ValueError: If there is no LoRA, or its encoder is held in half precision: hold it in that afterwards.
        """
        encoders = {name: encoder for name, (encoder, _) in lora_encoders(self).items() if has_lora(encoder)}
        if not encoders:
            raise ValueError("this SamRef has no LoRA to merge; it is trained with model.options.lora")
        for encoder in encoders.values():
            merge_lora(encoder)
        self._merged = tuple(encoders)

    def _save_pretrained(self, save_directory: Path, card: Mapping[str, Any] | None = None) -> None:
        """Write what was trained and the configuration, LoRA as ``peft`` does: see `sam_uniref.checkpoint`.

        Raises:
            ValueError: If LoRA is merged.
            FileExistsError: If there is something else than a saved model, which would be replaced.
        """
        if self._merged:
            raise ValueError("LoRA is merged into the encoders, which are not saved; save the model before merge_lora")
        super()._save_pretrained(save_directory, card)

    def without_lora(self) -> AbstractContextManager[None]:
        """Run the image encoder as the frozen SAM's.

        Raises:
            ValueError: If it is that no more.
        """
        if "image" in self._merged:
            raise ValueError(
                "LoRA is merged into the image encoder, and SAM's own features are gone: prompts without a reference "
                "and refine need them; load the model anew, and leave merge_lora out"
            )
        return lora_disabled(self.sam.image_encoder) if has_lora(self.sam.image_encoder) else nullcontext()

    def _add_lora(self) -> None:
        """LoRA where the configuration names targets."""
        lora = self.config.lora
        options: dict[str, Any] = {"rank": lora.rank, "alpha": lora.alpha, "dropout": lora.dropout}
        if lora.image_targets:
            add_lora(self.sam.image_encoder, lora.image_targets, **options)
        if lora.text_targets and self.text_encoder is not None:
            add_lora(self.text_encoder.model, lora.text_targets, **options)


def prompt_token(references: Sequence[ReferenceFeatures | FrameReferences]) -> Tensor:
    """The pooled vector ``(N, C)`` of the first reference present in each row."""
    token = references[-1].pooled[-1]
    for reference in reversed(references[:-1]):
        token = torch.where(reference.present[:, None], reference.pooled[-1], token)
    return token

"""RefSAM: a SAM prompted by words, with adapters in its encoder and a token that is handed from frame to frame.

Image features have unit length over their channels, for the decoder too. A sentence's words, through the cross-modal
MLP, are SAM's sparse prompts, and what each cell reads from them its dense prompt. The mask token of one frame, through
a module of its own, is one more prompt token of the next.

Chosen by us, since the published code lacks it: the track token enters the decoder after the words, as it is; each
object has its own and looks at no other's, so that an answer does not depend on what else is asked. Different from the
published code on purpose: padding of shorter sentences is masked (`RefSamConfig.mask_padding`), where the published one
reads it as words; any text encoder serves, where the published results have T5-3b; frames come at SAM's own size, where
the published ones are first brought to a short side of 360 pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.adapters import FrameReferences, ReferenceFeatures, SentenceEncoder
from sam_uniref.adapters.text_encoder import sentence_features
from sam_uniref.config import SentenceConfig
from sam_uniref.hosts import Host
from sam_uniref.interfaces import ImageFeatures, MaskPrediction, Prompts, Targets, TrainablePart
from sam_uniref.losses import dice_focal_losses
from sam_uniref.plugged import PluggedSam
from sam_uniref.refsam.config import RefSamConfig
from sam_uniref.refsam.encoder_adapters import EncoderAdapters
from sam_uniref.refsam.prompts import CrossModalMlp, DenseAttention
from sam_uniref.refsam.refusal import refuse
from sam_uniref.refsam.track_token import TrackToken
from sam_uniref.sam import SAM_SIZES, SamHost

if TYPE_CHECKING:
    from sam_uniref.data.batch import ReferenceBatch
    from sam_uniref.images import MaskLike
    from sam_uniref.reference import MaskReference
    from sam_uniref.tracking import FrameResult
    from sam_uniref.video import FrameReader, FrameSource


@dataclass(frozen=True)
class FrameAnswer:
    """What is answered about one frame, and what the next one is asked with.

    Attributes:
        prediction: N rows. The scores come from SAM's own IoU head, which is not trained.
        track: The next frame's track tokens, a token a row.
    """

    prediction: MaskPrediction
    track: ReferenceFeatures


class RefSam(PluggedSam):
    """Segment what a sentence names, in pictures and videos. Other references are a ValueError.

    Build one with `from_sam` (fresh parts) or `from_pretrained` (trained ones).

    Args:
        host: The frozen SAM.
        text_encoder: For the sentences.
        config: What everything is built from.

    Raises:
        ValueError: If there is no text encoder.
    """

    config_class = RefSamConfig
    trained_names: ClassVar[tuple[str, ...]] = (
        "mask_decoder.",
        "mlp.",
        "dense_attention.",
        "encoder_adapters.",
        "track_token.",
    )
    sam: SamHost
    config: RefSamConfig
    text_encoder: SentenceEncoder

    def __init__(self, host: Host, text_encoder: SentenceEncoder | None, config: RefSamConfig) -> None:
        if text_encoder is None:
            raise ValueError("a RefSam is asked in words: give a text_encoder, a hub id or a folder")
        if not isinstance(host, SamHost):
            raise ValueError(
                f"a RefSam sits between the blocks of SAM's own image encoder; give one of {SAM_SIZES}, not "
                f"{config.sam.size!r}"
            )
        super().__init__(host, text_encoder, config)
        # No loss looks at the predicted IoU.
        self.mask_decoder.iou_prediction_head.requires_grad_(False)
        channels, mlp, adapters, track = host.channels, config.mlp, config.adapters, config.track_token
        self.mlp = CrossModalMlp(text_encoder.text_channels, channels, width=mlp.width, hidden_layers=mlp.hidden_layers)
        self.dense_attention = DenseAttention(channels) if config.dense == "attention" else None
        self.encoder_adapters = None
        if adapters.enabled:
            self.encoder_adapters = EncoderAdapters(
                host.image_encoder,
                reduction=adapters.reduction,
                scale=adapters.scale,
                zero_start=adapters.zero_start,
            )
        self.track_token = TrackToken(channels, heads=track.heads, width=track.width)
        self.eval()

    @classmethod
    def wrap_text_model(
        cls, model: nn.Module, tokenizer: Any, channels: int, config: SentenceConfig
    ) -> SentenceEncoder:
        """A language model and its tokenizer; the cross-modal MLP sees to the width."""
        return SentenceEncoder(model, tokenizer, max_length=config.max_length)

    # ---- Encoding ----

    def encode_maps(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """``(B, 3, S, S)`` to one level ``(B, C, h, w)``, by SAM's encoder or through the adapters in it."""
        if self.encoder_adapters is None:
            return super().encode_maps(pixels)
        return (self.encoder_adapters(self.sam.image_encoder, pixels),), ()

    def adapted(self, levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Levels of unit length over their channels."""
        return tuple(F.normalize(level, dim=1) for level in levels)

    def frozen_backbone(self) -> Host:
        """SAM, if there are no adapters in its encoder."""
        if self.encoder_adapters is not None:
            raise ValueError(
                "the adapters in the image encoder are trained, so that there is nothing to cache; leave the cache "
                "out, or set adapters.enabled to false"
            )
        return super().frozen_backbone()

    def encode_text(self, sentences: Sequence[str]) -> ReferenceFeatures:
        """Encode N sentences: words as keys and values, the sentence as pooled vector.

        Raises:
            ValueError: If a sentence is empty.
        """
        return self.mlp(*self.text_encoder.hidden_states(sentences, mask_padding=self.config.mask_padding))

    def encode_mask(self, features: ImageFeatures, masks: Tensor, source_index: Tensor) -> NoReturn:
        """Refused."""
        refuse("an annotated image")

    def encode_frame(self, features: ImageFeatures, masks: Tensor) -> NoReturn:
        """Refused."""
        refuse("a mask")

    def frame_reference(self, annotated: ReferenceFeatures) -> NoReturn:
        """Refused."""
        refuse("an annotated image")

    # ---- Answering ----

    def answer(
        self,
        features: ImageFeatures,
        sentences: ReferenceFeatures,
        track: ReferenceFeatures | None = None,
        *,
        multimask: bool = False,
    ) -> FrameAnswer:
        """Answer N rows about one frame each.

        Args:
            features: B images.
            sentences: N rows; they tell which image each is about.
            track: The same rows' track tokens, from the frame before; None in the first frame.
            multimask: Three candidates a row instead of one.
        """
        index = sentences.image_index
        rows = features.levels[0][index]
        tokens, padding = sentences.keys[0], sentences.padding[0]
        if track is not None:
            tokens = torch.cat([tokens, track.keys[0].to(tokens.dtype)], dim=1)
            padding = torch.cat([padding, track.padding[0]], dim=1)
        logits, scores, states = self.sam.run_decoder(
            rows, tokens, self.dense_prompt(rows, sentences), self.mask_decoder, padding
        )
        wanted = slice(1, None) if multimask else slice(0, 1)
        prediction = MaskPrediction(logits[:, wanted], scores[:, wanted], index)
        return FrameAnswer(prediction, self._next_track(states[:, 0], track).about(index))

    def dense_prompt(self, features: Tensor, sentences: ReferenceFeatures) -> Tensor:
        """What is added to each row's image features ``(N, C, h, w)`` in the decoder."""
        if self.dense_attention is not None:
            return self.dense_attention(features, sentences)
        return features + sentences.pooled[0][:, :, None, None]

    def _next_track(self, mask_token: Tensor, track: ReferenceFeatures | None) -> ReferenceFeatures:
        """Track tokens from the main mask tokens ``(N, C)`` and the track tokens before them."""
        previous = None if track is None else track.pooled[0][None]
        token = self.track_token(mask_token[None], previous)[0]
        return sentence_features(
            token[:, None], torch.zeros(len(token), 1, dtype=torch.bool, device=token.device), token
        )

    def follow(
        self, features: ImageFeatures, sentences: ReferenceFeatures, frames: Iterable[Tensor]
    ) -> Iterator[FrameAnswer]:
        """Answer N rows frame by frame, with the track tokens handed on.

        Args:
            features: B images.
            sentences: N rows.
            frames: For each frame ``(N,)`` int64, which image each row's frame is.
        """
        track = None
        for index in frames:
            answer = self.answer(features, sentences.about(index), track)
            yield answer
            track = answer.track

    def predict(
        self,
        features: ImageFeatures,
        references: Sequence[ReferenceFeatures | FrameReferences],
        prompts: Prompts | None = None,
        *,
        multimask: bool = False,
        decoder: str = "auto",
    ) -> MaskPrediction:
        """Answer N rows.

        Args:
            features: B images.
            references: Sentences, and after them, if there was a frame before, its track tokens.
            prompts: None; others are refused.
            multimask: Three candidates a row instead of one.
            decoder: ``"auto"`` or ``"trained"``, which are the same.

        Raises:
            ValueError: If anything else is asked.
        """
        if prompts is not None:
            refuse("points, a box or a mask")
        if decoder not in ("auto", "trained"):
            raise ValueError(f"a RefSam has the one decoder, 'trained' (or 'auto'), got {decoder!r}")
        given = [reference for reference in references if isinstance(reference, ReferenceFeatures)]
        if len(given) < len(references):
            refuse("a frame's mask")
        if len(given) not in (1, 2):
            raise ValueError(f"a RefSam is asked with a sentence, and in later frames a track token, got {len(given)}")
        return self.answer(features, *given, multimask=multimask).prediction

    # ---- Training ----

    def references_of(self, batch: ReferenceBatch, features: ImageFeatures) -> list[ReferenceFeatures]:
        """The batch's sentences, and the track tokens that its earlier frames hand on, whatever their masks."""
        sentences = self._sentences_of(batch)
        answers = list(self.follow(features, sentences, batch.reference_index))
        return [kind.about(batch.query_index) for kind in (sentences, *(answer.track for answer in answers[-1:]))]

    def losses(
        self, features: ImageFeatures, references: Sequence[ReferenceFeatures], targets: Targets
    ) -> dict[str, Tensor]:
        """Dice and focal loss of the mask at the input's size, as PerSAM-F's."""
        return self._losses(features, self.predict(features, references), targets.masks)

    def forward(self, batch: ReferenceBatch) -> dict[str, Tensor]:
        """Losses of a training batch: the mean over its frames, the earlier ones and the one that is asked about."""
        features = self.features_of(batch)
        frames = [*batch.reference_index, batch.query_index]
        masks = [*batch.reference_masks, batch.masks]
        answers = self.follow(features, self._sentences_of(batch), frames)
        losses = [self._losses(features, a.prediction, mask) for a, mask in zip(answers, masks, strict=True)]
        return {name: torch.stack([loss[name] for loss in losses]).mean() for name in losses[0]}

    def _losses(self, features: ImageFeatures, prediction: MaskPrediction, masks: Tensor) -> dict[str, Tensor]:
        """Losses of one frame's rows against ``(N, S, S)``."""
        valid = features.valid_pixels()[prediction.image_index]
        return dice_focal_losses(prediction.logits[:, 0], masks, valid)

    def _sentences_of(self, batch: ReferenceBatch) -> ReferenceFeatures:
        """The batch's sentences."""
        if batch.sentences is None:
            refuse(f"a batch of {batch.task}")
        return self.encode_text(batch.sentences).about(batch.query_index)

    def parts(self) -> list[TrainablePart]:
        """All parts, each parameter in exactly one."""
        parts = [
            *self.frozen_parts(),
            TrainablePart("mask decoder", self.mask_decoder, "decoder"),
            TrainablePart("cross-modal MLP", self.mlp, "mlp"),
        ]
        if self.dense_attention is not None:
            parts.append(TrainablePart("dense attention", self.dense_attention, "dense"))
        if self.encoder_adapters is not None:
            parts.append(TrainablePart("encoder adapters", self.encoder_adapters))
        parts.append(TrainablePart("tracking module", self.track_token, tasks=("rvos",)))
        return [*parts, TrainablePart("text encoder", self.text_encoder.model, "text")]

    # ---- Videos ----

    def track(
        self,
        frames: FrameSource | FrameReader,
        *,
        masks: Mapping[int, MaskLike] | MaskLike | None = None,
        texts: Mapping[int, str] | None = None,
        examples: Mapping[int, Sequence[MaskReference]] | None = None,
        new_masks: Mapping[int, Mapping[int, MaskLike] | MaskLike] | None = None,
        score_threshold: float | None = None,
        frame_references: str = "both",
    ) -> Iterator[FrameResult]:
        """Follow what sentences name through a video, a frame at a time.

        Args:
            frames: As in `Predictor.track`.
            masks: None; a RefSam has no use for masks, and refuses them.
            texts: ``{object id: sentence}``. The objects compete for pixels; see `RefSamTracker`.
            examples: None.
            new_masks: None.
            score_threshold: None; a RefSam's scores are not trained.
            frame_references: ``"both"``, the default: with the track token; or ``"none"``: each frame by itself.

        Yields:
            A `FrameResult` a frame.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If anything else is given, nothing is asked, a frame changes size, or there is none.
        """
        from sam_uniref.refsam.tracker import RefSamTracker
        from sam_uniref.track_video import track_video

        if score_threshold is not None:
            raise ValueError("a RefSam's scores are not trained, so that score_threshold= means nothing; leave it out")
        if frame_references not in ("both", "none"):
            raise ValueError(
                "a RefSam looks back by its track token alone; frame_references must be 'both', with it, or 'none', "
                f"without, got {frame_references!r}"
            )
        tracker = RefSamTracker(self, hand_on=frame_references == "both")
        return track_video(tracker, frames, masks=masks, texts=texts, examples=examples, new_masks=new_masks)

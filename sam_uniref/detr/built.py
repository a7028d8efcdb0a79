"""What a UniRef is made of: building it, saving it, loading it, and what of it is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, Unpack, cast

import torch
from torch import Tensor, nn

from sam_uniref.adapters import MaskEncoder, TextEncoder, build_fusion
from sam_uniref.config import ModelConfig, build_dataclass
from sam_uniref.detr import checkpoint as checkpoint_files
from sam_uniref.detr.backbone import Backbone, build_backbone
from sam_uniref.detr.canvases import CANVAS_MULTIPLE
from sam_uniref.detr.config import UniRefConfig
from sam_uniref.detr.deformable_attention import DeformableAttention
from sam_uniref.detr.levels import LEVEL_STRIDES, InputProjection
from sam_uniref.detr.loss_options import LossOptions
from sam_uniref.detr.mask_head import MaskHead
from sam_uniref.detr.transformer import DetectionTransformer
from sam_uniref.hub.repositories import HubOptions
from sam_uniref.interfaces import TrainablePart
from sam_uniref.reference_parts import reference_parts
from sam_uniref.state import without_aliases
from sam_uniref.trainable import TrainableModel
from sam_uniref.transforms import ShortSideTransform

logger = logging.getLogger(__name__)

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class BuiltUniRef(TrainableModel):
    """All parts of a UniRef; what they do together is `sam_uniref.detr.uniref.UniRef`'s.

    Args:
        backbone: Of the images.
        text_encoder: For sentences, or None.
        config: What everything is built from.

    Attributes:
        loss_options: Which losses `losses` gives; the trainer's to set, and not saved.
    """

    config_class = UniRefConfig
    counted_on_shapes = False  # matching needs numbers
    config: UniRefConfig
    text_encoder: TextEncoder | None

    def __init__(self, backbone: Backbone, text_encoder: TextEncoder | None, config: UniRefConfig) -> None:
        super().__init__()
        self.config = config
        self.loss_options = LossOptions()
        width = config.transformer.width
        self.transform = ShortSideTransform(
            config.image.short, PIXEL_MEAN, PIXEL_STD, config.image.longest, multiple=CANVAS_MULTIPLE
        )
        self.backbone = backbone
        self.input_projection = InputProjection(backbone.channels[1:], width)
        self.text_encoder = text_encoder
        if text_encoder is not None:
            text_encoder.model.requires_grad_(False)
        self.mask_encoder = MaskEncoder(
            width, strides=LEVEL_STRIDES, width=config.mask_encoder.width, norm=config.mask_encoder.norm
        )
        self.fusion = build_fusion(width, len(LEVEL_STRIDES), **asdict(config.fusion))
        self.transformer = DetectionTransformer(
            config.transformer, levels=len(LEVEL_STRIDES), classes=config.classes, iou_head=config.iou_head
        )
        self.mask_head = MaskHead(width, backbone.channels[0], config.mask_head)
        self.eval()

    # ---- What is trained, and what a checkpoint holds ----

    def parts(self) -> list[TrainablePart]:
        """All parts, each parameter in exactly one."""
        return [
            TrainablePart("image backbone", self.backbone, lr_group="backbone"),
            TrainablePart("input projection", self.input_projection),
            TrainablePart("transformer", self.transformer),
            TrainablePart("mask head", self.mask_head),
            *reference_parts(self.fusion, self.mask_encoder, self.text_encoder),
        ]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """By learning rate: ``"base"``, ``"backbone"``, ``"text"``, and ``"offsets"``, where the attention looks."""
        groups = super().parameter_groups()
        attentions = [module for module in self.modules() if isinstance(module, DeformableAttention)]
        offsets = {id(p) for attention in attentions for p in attention.sampling_offsets.parameters()}
        base = groups["base"]
        groups["base"] = [p for p in base if id(p) not in offsets]
        groups["offsets"] = [p for p in base if id(p) in offsets]
        return groups

    def recomputed(self) -> list[nn.Module]:
        """UniFusion, the mask encoder, and the layers of the transformer's encoder and decoder."""
        transformer = self.transformer
        layers = [*transformer.encoder.layers, *transformer.decoder.layers]
        return [self.fusion, *self.mask_encoder.stages(), *layers]

    def trained_state_dict(self) -> dict[str, Tensor]:
        """Everything; of the text encoder the language model only if it was ever trained."""
        state = self.state_dict()
        if not self.config.text_encoder.trained:
            state = {name: t for name, t in state.items() if not name.startswith("text_encoder.model.")}
        return without_aliases(state)

    def choose_losses(self, options: Mapping[str, Any]) -> None:
        """Set `LossOptions` by their names.

        Raises:
            ValueError: If there is no such option, or it can't have the value.
        """
        self.loss_options = build_dataclass(LossOptions, options, "loss.options.")

    def refit(self, options: Mapping[str, Any]) -> None:
        """Another number of ``classes``: pretraining has 365, the stages after it one.

        Raises:
            ValueError: If another option is to change, or the number is not positive.
        """
        super().refit({name: value for name, value in options.items() if name != "classes"})
        classes = options.get("classes", self.config.classes)
        if not isinstance(classes, int) or classes < 1:
            raise ValueError(f"classes must be a whole number of at least 1, got {classes!r}")
        if classes != self.config.classes:
            logger.info("the class heads start anew: of %d classes before, of %d now", self.config.classes, classes)
            self.renew_class_heads(classes)

    def add_text_encoder(self, text_encoder: str | Path) -> None:
        """Give a model without sentences a text encoder, whose resizer is fresh.

        Raises:
            FileNotFoundError: If it is not there.
        """
        self.config.text_encoder.name = str(text_encoder)
        self.text_encoder = checkpoint_files.fresh_text_encoder(self.config)
        self.text_encoder.model.requires_grad_(False)
        logger.info("the text encoder %s is new, and so is its resizer", text_encoder)

    def renew_class_heads(self, classes: int) -> None:
        """Start the class heads anew for another number of classes, as stages do that differ in it."""
        self.config.classes = classes
        self.transformer.heads.renew_classes(classes)

    # ---- Building, saving, loading ----

    @classmethod
    def fresh(
        cls,
        size: str,
        checkpoint: str | Path | None = None,
        text_encoder: str | Path | None = None,
        *,
        image_size: int | None = None,
        config: ModelConfig | None = None,
    ) -> Self:
        """A model to be trained. See `TrainableModel.fresh` and `sam_uniref.detr.checkpoint.fresh_parts`."""
        own = cast(UniRefConfig | None, config)
        return cls(*checkpoint_files.fresh_parts(size, checkpoint, text_encoder, image_size=image_size, config=own))

    @classmethod
    def skeleton(
        cls,
        size: str,
        text_model: tuple[nn.Module, Any] | None = None,
        *,
        image_size: int | None = None,
        config: ModelConfig | None = None,
        device: torch.device | str = "meta",
    ) -> Self:
        """See `TrainableModel.skeleton`."""
        own = checkpoint_files.sized_config(size, image_size, cast(UniRefConfig | None, config))
        with torch.device(device):
            text = None if text_model is None else checkpoint_files.wrap_text_model(*text_model, own)
            return cls(build_backbone(own.backbone), text, own)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        folder: str | Path,
        checkpoint: str | Path | None = None,
        *,
        image_size: int | None = None,
        **hub: Unpack[HubOptions],
    ) -> Self:
        """Load what `save_pretrained` wrote, by folder or hub id; see `sam_uniref.detr.checkpoint.load_pretrained`."""
        return checkpoint_files.load_pretrained(cls, folder, checkpoint, image_size=image_size, **hub)

    def _save_pretrained(self, save_directory: Path, card: Mapping[str, Any] | None = None) -> None:
        """Write all weights and the configuration; see `sam_uniref.detr.checkpoint.save_pretrained`."""
        checkpoint_files.save_pretrained(self, save_directory, card)

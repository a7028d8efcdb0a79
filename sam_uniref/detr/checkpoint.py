"""Building, saving and loading a UniRef: all its weights and its configuration in one folder."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from torch import nn

from sam_uniref.adapters import TextEncoder, load_text_model
from sam_uniref.checkpoint import model_folder, read_config, read_text_model
from sam_uniref.detr.backbone import Backbone, build_backbone
from sam_uniref.detr.config import ImageSizeConfig, UniRefConfig
from sam_uniref.hub.repositories import HubOptions
from sam_uniref.hub.repositories import model_folder as find_model_folder
from sam_uniref.hub.text_encoders import text_encoder as find_text_encoder
from sam_uniref.state import read_tensors

if TYPE_CHECKING:
    from sam_uniref.detr.built import BuiltUniRef

Model = TypeVar("Model", bound="BuiltUniRef")

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "model.safetensors"


def fresh_parts(
    size: str,
    checkpoint: str | Path | None = None,
    text_encoder: str | Path | None = None,
    *,
    image_size: int | None = None,
    config: UniRefConfig | None = None,
) -> tuple[Backbone, TextEncoder | None, UniRefConfig]:
    """What a `UniRef` that was not trained yet is made of.

    Args:
        size: ``"r50"``, ``"swinl"`` or ``"tiny"``.
        checkpoint: Hub id or folder of a Hugging Face ResNet or Swin trained on ImageNet, for the backbone. Without
            one its weights are random, with a warning.
        text_encoder: Hub id or folder of a Hugging Face text encoder, or ``"tiny"`` for the packaged one; None for a
            model without sentences.
        image_size: What pictures' short sides become, in pixels; by default the configuration's.
        config: Widths and options; the size's own by default.

    Raises:
        ValueError: If the size is unknown, the image size is not positive or above the configuration's longest side,
            or the checkpoint is of another network.
        FileNotFoundError: If the checkpoint or the text encoder is not there.
    """
    config = sized_config(size, image_size, config)
    config.text_encoder.name = None if text_encoder is None else str(text_encoder)
    if checkpoint is None:
        logger.warning("the image backbone %s has random weights: no checkpoint was given", config.backbone.name)
    backbone = build_backbone(config.backbone, checkpoint)
    return backbone, None if text_encoder is None else fresh_text_encoder(config), config


def fresh_text_encoder(config: UniRefConfig) -> TextEncoder:
    """The language model that a configuration names, with a fresh resizer.

    Raises:
        FileNotFoundError: If it is not there.
    """
    return wrap_text_model(*load_text_model(find_text_encoder(str(config.text_encoder.name))), config)


def sized_config(size: str, image_size: int | None, config: UniRefConfig | None) -> UniRefConfig:
    """A configuration of one's own, with these sizes.

    Raises:
        ValueError: If one of the sizes can't be.
    """
    config = copy.deepcopy(config) if config else UniRefConfig.for_size(size)
    config.size = size
    return with_image_size(config, image_size)


def with_image_size(config: UniRefConfig, image_size: int | None) -> UniRefConfig:
    """The configuration itself, with another short side of pictures unless that is None.

    Raises:
        ValueError: If the short side is not positive, or above the longest side.
    """
    if image_size is not None:
        config.image = ImageSizeConfig(short=image_size, longest=config.image.longest)
    return config


def wrap_text_model(model: nn.Module, tokenizer: Any, config: UniRefConfig) -> TextEncoder:
    """A language model and its tokenizer with a resizer to the network's width."""
    own = config.text_encoder
    return TextEncoder(model, tokenizer, config.transformer.width, max_length=own.max_length, dropout=own.dropout)


def save_pretrained(model: BuiltUniRef, folder: str | Path, card: Mapping[str, Any] | None = None) -> None:
    """Write a folder that `load_pretrained` reads; it is whole or not there.

    It holds ``README.md`` (its card), ``config.json``, ``model.safetensors`` (a language model's weights only if they
    were trained) and ``text_encoder/`` (tokenizer and configuration).

    Args:
        model: The model.
        folder: Its name; an older model there is replaced.
        card: What the model's card says beside what the model knows, as `sam_uniref.hub.card.CardOptions`.

    Raises:
        FileExistsError: If there is something else than a saved model, which would be replaced.
    """
    with model_folder(model, folder, WEIGHTS_FILE, card):
        pass  # that is all


def load_pretrained(
    model_class: type[Model],
    folder: str | Path,
    checkpoint: str | Path | None = None,
    *,
    image_size: int | None = None,
    **hub: Unpack[HubOptions],
) -> Model:
    """Load a folder that `save_pretrained` wrote.

    Args:
        model_class: Of the model that is in it.
        folder: That folder, or a hub id, ``"user/name"``.
        checkpoint: None: the folder holds everything.
        image_size: What pictures' short sides become, in pixels; by default that of the saved model.
        hub: How the hub is asked.

    Raises:
        FileNotFoundError: If the folder or its text encoder is neither there nor to be had.
        ValueError: If a file is broken or does not fit, the model is of another kind, the image size is not positive or
            above the longest side, or there is a checkpoint.
    """
    if checkpoint is not None:
        raise ValueError(f"a UniRef's folder holds all its weights; leave out the checkpoint {checkpoint}")
    folder = find_model_folder(folder, **hub)
    config = with_image_size(read_config(folder, model_class.config_class, model_class.__name__), image_size)
    loaded = read_text_model(folder, config.text_encoder, local_files_only=hub.get("local_files_only", False))
    text = None if loaded is None else wrap_text_model(*loaded, config)
    model = model_class(build_backbone(config.backbone), text, config)
    model.load_trained_state_dict(read_tensors(folder / WEIGHTS_FILE))
    return model

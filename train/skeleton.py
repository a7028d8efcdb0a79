"""The model of a run that is only planned: its shapes, without its weights."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from sam_uniref import packaged
from sam_uniref.adapters import load_text_model
from sam_uniref.checkpoint import TEXT_FOLDER, read_config
from sam_uniref.config import build_dataclass
from sam_uniref.hub.repositories import model_folder
from sam_uniref.models import CONFIG_FILE, class_name, model_class
from sam_uniref.train.build import check_sentences, fit_to_stage, model_config
from sam_uniref.train.settings import ModelSettings, RunSettings
from sam_uniref.trainable import TrainableModel


def skeleton(settings: RunSettings, origin: ModelSettings, device: torch.device | str = "meta") -> TrainableModel:
    """The run's model without its weights, with the stage's parts unfrozen.

    Of a saved model that it starts from the configuration is read; if that is not here yet, it is taken to be what the
    settings say.

    Args:
        settings: Of the stage.
        origin: The model as it was first made: that of the run's first stage.
        device: By default ``"meta"``, where there are shapes and no memory; elsewhere weights are random.

    Raises:
        FileNotFoundError: If the text encoder is neither here nor to be had.
        ValueError: If the image size is no multiple of the patch size, the saved model is of another kind, or there are
            sentences to train on and surely no text encoder.
    """
    folder, kind = start_folder(origin), model_class(origin.kind)
    if folder is None:
        config = model_config(replace(origin, options={**origin.options, **settings.model.options}))
        config.text_encoder.name = origin.text_encoder
    else:
        saved = read_config(folder, kind.config_class, class_name(origin.kind))
        config = build_dataclass(kind.config_class, {**asdict(saved), **settings.model.options}, "model.options.")
    text_model = None
    with torch.device(device):
        if folder is not None and config.text_encoder.name is not None:
            text_model = load_text_model(folder / TEXT_FOLDER, random_weights=True)
        elif config.text_encoder.name or settings.model.text_encoder:
            config.text_encoder.name = config.text_encoder.name or settings.model.text_encoder
            text_model = _text_skeleton(str(config.text_encoder.name))
    size = origin.size if folder is None else config.size
    model = kind.skeleton(size, text_model, image_size=settings.model.image_size, config=config, device=device)
    if not starts_from_nowhere(origin):
        check_sentences(settings, model)
    fit_to_stage(settings, model)
    return model


def start_folder(origin: ModelSettings) -> Path | None:
    """The saved model that a run starts from; None if it starts from none, or from one that is not here yet."""
    if origin.start_from is None:
        return None
    try:
        folder = model_folder(origin.start_from, local_files_only=True)
    except FileNotFoundError:  # a hub's
        return None
    return folder if (folder / CONFIG_FILE).is_file() else None


def starts_from_nowhere(origin: ModelSettings) -> bool:
    """Whether a run starts from a saved model that is not here yet, as a stage's that was not run."""
    return origin.start_from is not None and start_folder(origin) is None


def _text_skeleton(name: str) -> tuple[torch.nn.Module, Any]:
    """The text encoder's shapes; those of BERT's and RoBERTa's base are known without the hub."""
    import transformers

    if name == "bert-base-uncased":
        return transformers.BertModel(transformers.BertConfig(), add_pooling_layer=False), None
    if name in ("roberta-base", "FacebookAI/roberta-base"):
        roberta = transformers.RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
        return transformers.RobertaModel(roberta, add_pooling_layer=False), None
    return load_text_model(packaged.text_encoder(name), random_weights=True)

"""From settings to the things a run needs: model, data sets, optimiser, learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from sam_uniref.cache import FeatureCache, open_cache
from sam_uniref.config import ModelConfig, build_dataclass, unknown_key
from sam_uniref.data import SampleSource, open_source
from sam_uniref.data.shown import check_listed
from sam_uniref.interfaces import ReferenceSegmenter
from sam_uniref.models import model_class
from sam_uniref.train.learning_settings import OptimiserSettings
from sam_uniref.train.settings import DataSettings, ModelSettings, RunSettings
from sam_uniref.trainable import TrainableModel


def build_model(settings: RunSettings) -> TrainableModel:
    """The model of a run, with the stage's parts unfrozen.

    Raises:
        FileNotFoundError: If a checkpoint, a saved model, the text encoder or the mask encoder's start is not there.
        ValueError: If one of them is broken or does not fit, an option is unknown, the image encoder can't be held in
            the precision or compiled, or there are sentences to train on and no text encoder.
    """
    model_settings, kind = settings.model, model_class(settings.model.kind)
    # Fresh adapters are part of the run: the same seed starts it the same way.
    torch.manual_seed(settings.seed)
    if model_settings.start_from is not None:
        model = kind.from_pretrained(
            model_settings.start_from, model_settings.checkpoint, image_size=model_settings.image_size
        )
        model.refit(model_settings.options)
    else:
        model = kind.fresh(
            model_settings.size,
            model_settings.checkpoint,
            model_settings.text_encoder,
            image_size=model_settings.image_size,
            config=model_config(model_settings),
        )
        if model_settings.mask_encoder is not None:
            model.start_mask_encoder(model_settings.mask_encoder)
    model.speed_up_encoder(model_settings.encoder_precision, model_settings.compile)
    added = model_settings.text_encoder if model_settings.start_from else None
    if added and model.text_encoder is None and settings.spoken:
        model.add_text_encoder(added)
    check_sentences(settings, model)
    fit_to_stage(settings, model)
    model.choose_losses(settings.loss_options)
    return model


def check_sentences(settings: RunSettings, model: TrainableModel) -> None:
    """Refuse sentences for a model that can't read them.

    Raises:
        ValueError: Naming a data set that has some.
    """
    if model.text_encoder is None and settings.spoken:
        name = settings.spoken[0]
        raise ValueError(
            f"data.{name} needs sentences, but the model has no text encoder; set model.text_encoder to a hub id "
            f"or a folder, or leave the data set out with data.{name}.weight=0"
        )


def fit_to_stage(settings: RunSettings, model: TrainableModel) -> None:
    """Leave as trained what the stage trains, and have it keep what it is to keep for gradients."""
    model.train_text_encoder(settings.train_text_encoder)
    model.freeze_unused(settings.tasks)
    if settings.checkpoint_activations:
        model.checkpoint_activations()


def check_classes(model: TrainableModel, datasets: Sequence[SampleSource]) -> None:
    """Refuse detection of more classes than the model tells apart.

    Raises:
        ValueError: Naming the data set.
    """
    known = model.config.to_dict().get("classes", 1)
    for dataset in datasets:
        if dataset.classes > known:
            raise ValueError(
                f"data.{dataset.name} has {dataset.classes} classes, and the model {known}; set "
                f"model.options.classes={dataset.classes}, or data.{dataset.name}.one_class=true"
            )


def model_config(settings: ModelSettings) -> ModelConfig:
    """The size's configuration with the run's options over it.

    Raises:
        ValueError: If an option is unknown (the nearest known one is named), or is a setting of its own.
    """
    config_class = model_class(settings.kind).config_class
    values = asdict(config_class.for_size(settings.size))
    for key, value in settings.options.items():
        if key == "sam":
            raise ValueError("model.options.sam does nothing; give model.size, model.checkpoint and model.image_size")
        if key not in values:
            raise unknown_key(f"model.options.{key}", values)
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    return build_dataclass(config_class, values, "model.options.")


def build_dataset(name: str, settings: DataSettings) -> SampleSource:
    """A data set of a run.

    Raises:
        FileNotFoundError: If its folder is not there.
        ValueError: If it has nothing for its task, or a setting is out of range.
    """
    return open_source(settings.reader, name, settings.task, settings)  # type: ignore[arg-type]


def build_datasets(settings: RunSettings) -> list[SampleSource]:
    """All data sets of a run; those of weight 0 are left out, and need not be there.

    Raises:
        ValueError: If there is none.
    """
    drawn = {name: entry for name, entry in settings.data.items() if entry.weight}
    if not drawn:
        raise ValueError("the configuration names no data with a weight; add data.<name>.root and data.<name>.task")
    return [build_dataset(name, entry) for name, entry in drawn.items()]


def open_features(
    settings: RunSettings, model: ReferenceSegmenter, datasets: Sequence[SampleSource]
) -> FeatureCache | None:
    """The cache of the frozen encoder's features, if the run has one.

    Raises:
        FileNotFoundError: If there is none in its folder.
        ValueError: If it is of another encoder or input size or broken, the model trains its encoder, or a data set's
            pictures never look the same twice.
    """
    if settings.cache is None:
        return None
    backbone = model.frozen_backbone()
    check_listed(datasets)
    return open_cache(settings.cache, backbone)


def build_optimizer(model: ReferenceSegmenter, settings: OptimiserSettings) -> torch.optim.AdamW:
    """AdamW with one group a learning rate; weight decay on everything that is trained, as published.

    Fused: one pass over a parameter and its moments. With a language model to train, the passes of an update that is
    written out took a third of a step on a CPU.
    """
    rates = settings.rates()
    groups: list[dict[str, Any]] = [
        {"params": parameters, "lr": rates[name], "initial_lr": rates[name], "name": name}
        for name, parameters in model.parameter_groups().items()
        if parameters
    ]
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)


def learning_rate_factor(step: int, settings: OptimiserSettings) -> float:
    """By what to multiply the learning rates at a step: linear warm-up, then a fall at each milestone."""
    factor = settings.gamma ** sum(step >= milestone for milestone in settings.milestones)
    if step < settings.warmup_steps:
        factor *= settings.warmup_factor + (1 - settings.warmup_factor) * step / settings.warmup_steps
    return factor

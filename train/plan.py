"""What a configuration would do, without weights and without data."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from rich.console import Group
from rich.table import Table

from sam_uniref import packaged
from sam_uniref.adapters import load_text_model
from sam_uniref.models import model_class
from sam_uniref.train.build import learning_rate_factor, model_config
from sam_uniref.train.costs import cost_table
from sam_uniref.train.settings import ModelSettings, RunSettings
from sam_uniref.train.summary import parameter_table
from sam_uniref.trainable import TrainableModel

logger = logging.getLogger(__name__)

LOSS_NAMES = {
    "bce": "BCE",
    "dice": "Dice",
    "iou": "IoU",
    "giou": "GIoU",
    "mask_iou": "mask IoU",
    "iou_head": "IoU head",
}
RATE_NAMES = {
    "text": "text encoder",
    "mlp": "MLP",
    "dense": "dense attention",
    "decoder": "mask decoder",
    "backbone": "backbone",
    "offsets": "sampling offsets",
}


def skeleton(settings: RunSettings, origin: ModelSettings, device: torch.device | str = "meta") -> TrainableModel:
    """The run's model without any of its files, with the stage's parts unfrozen.

    Args:
        settings: Of the stage.
        origin: The model as it was first made: that of the run's first stage.
        device: By default ``"meta"``, where there are shapes and no memory; elsewhere weights are random.

    Raises:
        ValueError: If the image size is no multiple of the patch size.
    """
    config = model_config(replace(origin, options={**origin.options, **settings.model.options}))
    config.text_encoder.name = origin.text_encoder
    text_model = None
    if origin.text_encoder is not None:
        with torch.device(device):
            text_model = _text_skeleton(origin.text_encoder)
    image_size = settings.model.image_size
    kind = model_class(origin.kind)
    model = kind.skeleton(origin.size, text_model, image_size=image_size, config=config, device=device)
    model.train_text_encoder(settings.train_text_encoder)
    if settings.checkpoint_activations:
        model.checkpoint_activations()
    return model


def _text_skeleton(name: str) -> tuple[torch.nn.Module, Any]:
    """The text encoder's shapes; those of BERT's and RoBERTa's base are known without the hub."""
    import transformers

    if name == "bert-base-uncased":
        return transformers.BertModel(transformers.BertConfig(), add_pooling_layer=False), None
    if name in ("roberta-base", "FacebookAI/roberta-base"):
        roberta = transformers.RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
        return transformers.RobertaModel(roberta, add_pooling_layer=False), None
    return load_text_model(packaged.text_encoder(name), random_weights=True)


def plan(settings: RunSettings, processes: int, origin: ModelSettings) -> Group:
    """Tables of the run: batches, data sets, learning rates, parameters, memory, disk and time.

    Args:
        settings: Of the stage.
        processes: That share it.
        origin: The model as it was first made: that of the run's first stage.
    """
    model = skeleton(settings, origin)
    run = Table(title=f"stage {settings.stage} on {processes} process(es)", show_header=False)
    batch = processes * settings.batch_size * settings.accumulate
    trained = "trained" if settings.train_text_encoder else "frozen"
    rows = {
        "model": f"{settings.model.kind} on {settings.model.size}, from {_origin(settings.model)}",
        "image size": _image_size(settings.model, model),
        "text encoder": _spoken(settings.model, origin, trained),
        "batch": f"{processes} x {settings.batch_size} x {settings.accumulate} = {batch} samples a step",
        "steps": f"{settings.steps:,} ({settings.steps * batch:,} samples), precision {settings.precision}",
        "learning rates": _learning_rates(settings),
        "schedule": _schedule(settings),
        "losses": _losses(settings, model),
        "output": settings.output,
    }
    for name, value in rows.items():
        run.add_row(name, value)
    data = Table("data set", "task", "reader", "root", "weight", "% of steps", title="data")
    total = sum(entry.weight for entry in settings.data.values()) or 1.0
    for name, entry in settings.data.items():
        share = f"{100 * entry.weight / total:.1f}"
        data.add_row(name, entry.task, entry.reader, entry.root, f"{entry.weight:g}", share)
    return Group(run, data, parameter_table(model), cost_table(settings, processes, model))


def _origin(model: ModelSettings) -> str:
    """Where the weights come from."""
    if model.start_from is not None:
        return model.start_from
    return model.checkpoint or "random weights"


def _losses(settings: RunSettings, model: TrainableModel) -> str:
    """Weights and names, but for that of a head that the model is built without."""
    built = model.config.to_dict()
    weights = {name: weight for name, weight in settings.loss.weights().items() if built.get(name, True)}
    return " + ".join(f"{weight:g} {LOSS_NAMES.get(name, name)}" for name, weight in weights.items())


def _learning_rates(settings: RunSettings) -> str:
    """Those of all groups of parameters; the first is that of whatever has none of its own."""
    return ", ".join(
        f"{RATE_NAMES[group]} {rate:g}" if group in RATE_NAMES else f"{rate:g}"
        for group, rate in settings.optimiser.rates().items()
    )


def _image_size(settings: ModelSettings, model: TrainableModel) -> str:
    """The input square's side, or the short side; what a saved model has is not known before it is loaded."""
    if settings.start_from is not None and settings.image_size is None:
        return "that of the model it starts from"
    return f"{model.transform.size} px"


def _spoken(model: ModelSettings, origin: ModelSettings, trained: str) -> str:
    """The text encoder; what a saved model has is not known before it is loaded."""
    if origin.text_encoder is not None:
        return f"{origin.text_encoder}, {trained}"
    return "none" if model.start_from is None else "that of the model it starts from, if any; not counted below"


def _schedule(settings: RunSettings) -> str:
    """Learning-rate factors where they change."""
    at = sorted({0, settings.optimiser.warmup_steps, *settings.optimiser.milestones})
    factors = [
        f"x{learning_rate_factor(step, settings.optimiser):g} from {step:,}" for step in at if step < settings.steps
    ]
    return ", ".join(factors)

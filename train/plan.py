"""What a configuration would do, without weights and without data."""

from __future__ import annotations

import logging

from rich.console import Group
from rich.table import Table

from sam_uniref.train.build import learning_rate_factor
from sam_uniref.train.costs import cost_table
from sam_uniref.train.settings import ModelSettings, RunSettings
from sam_uniref.train.skeleton import skeleton, starts_from_nowhere
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
    unknown = starts_from_nowhere(origin)
    supposed = "; that model is not here yet, and taken to be what these settings say" if unknown else ""
    rows = {
        "model": f"{settings.model.kind} on {model.config.size}, from {_origin(settings.model)}{supposed}",
        "image size": _image_size(settings.model, model, unknown),
        "text encoder": _text_encoder(model, unknown),
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


def _image_size(settings: ModelSettings, model: TrainableModel, unknown: bool) -> str:
    """The input square's side, or the short side."""
    if unknown and settings.image_size is None:
        return "that of the model it starts from"
    return f"{model.transform.size} px"


def _text_encoder(model: TrainableModel, unknown: bool) -> str:
    """Its name, and whether it is trained."""
    if model.text_encoder is None:
        return "that of the model it starts from, if any; not counted below" if unknown else "none"
    trained = any(parameter.requires_grad for parameter in model.text_encoder.model.parameters())
    return f"{model.config.text_encoder.name}, {'trained' if trained else 'frozen'}"


def _schedule(settings: RunSettings) -> str:
    """Learning-rate factors where they change."""
    at = sorted({0, settings.optimiser.warmup_steps, *settings.optimiser.milestones})
    factors = [
        f"x{learning_rate_factor(step, settings.optimiser):g} from {step:,}" for step in at if step < settings.steps
    ]
    return ", ".join(factors)

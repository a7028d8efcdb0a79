"""Train the tiny SAM from nothing on RefShapes, by clicks, boxes and masks, as SAM was trained.

    accelerate launch train/pretrain.py sam-tiny --config configs/pretrain_sam_tiny.yaml
    accelerate launch train/pretrain.py sam-tiny --config configs/pretrain_sam_tiny.yaml --resume

Writes ``<output>/sam_tiny.safetensors`` in half precision: a checkpoint for ``SamRef.from_sam("tiny", ...)``.
Any setting can be given as key=value after the options.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from safetensors.torch import save_file
from torch import Tensor, nn

from sam_uniref.sam import SamHost, build_sam, load_sam_checkpoint
from sam_uniref.state import load_checked, whole_file, write_json
from sam_uniref.train.checkpoints import CheckpointFolder, reported_disk, tensor_bytes
from sam_uniref.train.exit_codes import of_signal, run_command
from sam_uniref.train.learning_settings import LossSettings
from sam_uniref.train.loader import BatchLoader
from sam_uniref.train.loop import StepPlan, StepResult, run_steps
from sam_uniref.train.promptable import PromptableTraining, SceneBatch, SceneBatches, click_iou
from sam_uniref.train.settings import read_settings
from sam_uniref.train.trackers import start_trackers

logger = logging.getLogger("sam_uniref.train")


@dataclass
class PretrainSettings:
    """Everything a pretraining run is made of."""

    output: str = field(default="runs/sam_tiny", metadata={"help": "folder of logs, checkpoints and the result"})
    start_from: str | None = field(
        default=None, metadata={"help": "an earlier run's sam_tiny.safetensors; else random"}
    )
    steps: int = field(default=3000, metadata={"help": "optimiser steps"})
    batch_size: int = field(default=16, metadata={"help": "scenes a process"})
    objects: int = field(default=3, metadata={"help": "most objects asked for in a scene"})
    rounds: int = field(default=2, metadata={"help": "prompts an object gets"})
    lr: float = field(default=6e-4, metadata={"help": "at its highest"})
    weight_decay: float = field(default=0.02, metadata={"help": "on everything"})
    clip: float = field(default=1.0, metadata={"help": "largest norm of the whole gradient"})
    warmup_steps: int = field(default=100, metadata={"help": "linear from 0"})
    power: float = field(default=0.9, metadata={"help": "of the polynomial decay to 0"})
    precision: str = field(default="no", metadata={"help": "no, fp16 or bf16"})
    seed: int = field(default=0, metadata={"help": "of everything that is drawn"})
    workers: int = field(default=1, metadata={"help": "loader processes"})
    loader_timeout: int = field(
        default=300, metadata={"help": "seconds to wait for a loader process, which is then replaced; 0: for ever"}
    )
    process_timeout: int = field(
        default=900, metadata={"help": "seconds that processes wait for one another before the run ends"}
    )
    log_every: int = field(default=20, metadata={"help": "steps"})
    save_every: int = field(default=250, metadata={"help": "steps"})
    keep: int = field(default=2, metadata={"help": "newest checkpoints kept"})
    validate_every: int = field(default=500, metadata={"help": "steps; 0: only at the end"})
    tracker: str = field(default="tensorboard", metadata={"help": "any of Accelerate's, or none"})
    loss: LossSettings = field(default_factory=lambda: LossSettings(bce=5.0, dice=1.0, iou=1.0))
    surroundings: float = field(
        default=0.5, metadata={"help": "weight of reading the picture around from the features"}
    )
    attributes: float = field(default=0.5, metadata={"help": "weight of reading shape, colour and texture from them"})


class TrainableHost(PromptableTraining):
    """A SAM under training whose whole state goes into checkpoints."""

    def trained_state_dict(self) -> dict[str, Tensor]:
        """All of SAM, and what reads its features."""
        return self.state_dict()

    def load_trained_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Load what `trained_state_dict` gave."""
        load_checked(self, state_dict, "the checkpoint")


def learning_rate(step: int, settings: PretrainSettings) -> float:
    """Linear warm-up, then polynomial decay to zero."""
    warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return settings.lr * warmup * (1 - step / settings.steps) ** settings.power


def train(settings: PretrainSettings, accelerator: Accelerator, resume: bool) -> int:
    """The run: build, resume, loop, measure, save.

    Returns:
        0 when all its steps are done, else the number of the signal that stopped it.

    Raises:
        CheckpointNotSavedError: If the disk was too full for the last checkpoint or for the weights.
    """
    torch.manual_seed(settings.seed)
    sam = build_sam("tiny")
    if settings.start_from is not None:
        load_sam_checkpoint(sam, settings.start_from, "tiny")
    bare = TrainableHost(SamHost(sam), settings.rounds)
    optimizer: Any = torch.optim.AdamW(bare.parameters(), settings.lr, weight_decay=settings.weight_decay)
    model, optimizer = accelerator.prepare(bare, optimizer)
    folder = CheckpointFolder(Path(settings.output) / "checkpoints", settings.keep)
    folder.refuse_overwriting(resume)
    state = folder.restore(bare, optimizer.optimizer) if resume else None
    first = int(state["step"]) if state else 0
    transform = bare.host.transform
    batches = SceneBatches(
        transform,
        settings.steps,
        settings.batch_size,
        settings.objects,
        settings.seed,
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    loader = BatchLoader(batches, first, settings.workers, settings.loader_timeout)
    validation = SceneBatches(transform, 8, 16, settings.objects, settings.seed, split=1)

    def take_step(step: int) -> StepResult:
        return StepResult("prompts", step_once(accelerator, model, optimizer, next(loader), settings, step))

    def validate(step: int) -> dict[str, float]:
        bare.eval()
        values = {"validation/click_iou": click_iou(bare.host, validation)}
        bare.train()
        return values

    start_trackers(accelerator, settings)
    model.train()
    output = Path(settings.output)
    plan = StepPlan(output, settings.steps, settings.save_every, settings.log_every, settings.validate_every)

    def save(step: int) -> None:
        if accelerator.is_main_process:
            folder.save(step, bare, optimizer.optimizer, {})

    try:
        end = run_steps(accelerator, plan, first, take_step, save, validate)
        if end.step == settings.steps and accelerator.is_main_process:
            values = validate(end.step)
            with reported_disk("the SAM", output, tensor_bytes(bare.host.state_dict()) // 2):
                save_host(bare.host, output / "sam_tiny.safetensors")
            write_json(output / "validation.json", values)
            logger.info("%s; the weights are in %s", values, output / "sam_tiny.safetensors")
    finally:
        loader.close()
        for tracker in accelerator.trackers:
            tracker.finish()
    return end.checked(settings.steps)


def step_once(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Any,
    batch: SceneBatch,
    settings: PretrainSettings,
    step: int,
) -> dict[str, float]:
    """One optimiser step; returns the mean losses over processes.

    Raises:
        FloatingPointError: If the loss is not finite on any process.
    """
    torch.manual_seed(hash((settings.seed, step, accelerator.process_index)) % 2**63)
    losses = model(batch.to(accelerator.device))
    weights = {**settings.loss.weights(), "surroundings": settings.surroundings, "attributes": settings.attributes}
    total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
    values = {"loss": total.detach(), **{name: loss.detach() for name, loss in losses.items()}}
    reduced = accelerator.reduce(torch.stack(list(values.values())), reduction="mean")
    if not bool(torch.isfinite(reduced).all()):
        raise FloatingPointError(f"the loss is not finite at step {step}")
    accelerator.backward(total)
    accelerator.clip_grad_norm_(model.parameters(), settings.clip)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, settings)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return dict(zip(values, reduced.tolist(), strict=True))


def save_host(host: SamHost, path: Path) -> None:
    """Write a SAM in half precision, by SAM's own names."""
    tensors = {name: tensor.detach().cpu().half().contiguous() for name, tensor in host.state_dict().items()}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, {"format": "pt"})


def run(arguments: argparse.Namespace) -> int:
    """The run that the command line asks for; the exit code."""
    settings = read_settings(PretrainSettings, arguments.config, arguments.overrides)
    accelerator = Accelerator(
        cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        mixed_precision=settings.precision,
        log_with=None if settings.tracker == "none" else settings.tracker,
        project_dir=settings.output,
        kwargs_handlers=[
            # A click leaves the embeddings of boxes without gradients, and a box those of clicks.
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=timedelta(seconds=settings.process_timeout)),
        ],
    )
    stopped = train(settings, accelerator, arguments.resume)
    accelerator.wait_for_everyone()
    accelerator.state.destroy_process_group()
    return of_signal(stopped)


def main() -> int:
    """Run the command; the exit code, see `sam_uniref.train.exit_codes`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["sam-tiny"], help="what to train")
    parser.add_argument("--config", required=True, help="YAML file of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the newest whole checkpoint")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over those of the file")
    arguments = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())

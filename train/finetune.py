"""Finetune a SamRef: frozen SAM, trained adapters and mask decoder (UniRef++ section 5). Or a RefSam, to compare with.

    # your own folder, on whatever this machine has; data sets of weight 0 are left out
    accelerate launch train/finetune.py --config configs/folder.yaml data.fss.root=my_pictures \
        data.vos.weight=0 data.ris.weight=0
    # 1 GPU
    accelerate launch --config_file configs/accelerate/1gpu.yaml train/finetune.py --config configs/sam_vit_h_image.yaml
    # 8 GPUs: the published setting
    accelerate launch --config_file configs/accelerate/8gpu.yaml train/finetune.py --config configs/sam_vit_h_image.yaml
    # 2 nodes of 8 GPUs: on each node, with its own rank
    accelerate launch --config_file configs/accelerate/2nodes.yaml --machine_rank 0 --main_process_ip HOST \
        train/finetune.py --config configs/sam_vit_h_image.yaml
    # RefSAM, by the settings of the same name
    accelerate launch train/finetune.py --config configs/refsam_vit_h.yaml
    # what a configuration would do, without weights or data
    accelerate launch train/finetune.py --config configs/sam_vit_h_video.yaml --plan
    # go on from the newest whole checkpoint: the same command, with --resume
    accelerate launch train/finetune.py --config configs/folder.yaml --resume data.fss.root=my_pictures \
        data.vos.weight=0 data.ris.weight=0

Any setting can be given as key=value after the options. Ctrl-C and SIGTERM save and exit; --resume goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from rich.console import Console
from torch.utils.data import DataLoader

from sam_uniref.data import ReferenceBatch, TrainingBatches
from sam_uniref.models import CONFIG_FILE
from sam_uniref.state import write_json
from sam_uniref.train.build import (
    build_datasets,
    build_model,
    build_optimizer,
    check_classes,
    learning_rate_factor,
)
from sam_uniref.train.checkpoints import CheckpointFolder
from sam_uniref.train.interruption import leave_signals_to_the_run
from sam_uniref.train.loop import StepPlan, StepResult, run_steps
from sam_uniref.train.plan import plan
from sam_uniref.train.settings import RunSettings, changed_settings, load_settings, write_settings
from sam_uniref.train.summary import parameter_table
from sam_uniref.train.validation import validate
from sam_uniref.trainable import TrainableModel

logger = logging.getLogger("sam_uniref.train")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the newest whole checkpoint of the output")
    parser.add_argument("--plan", action="store_true", help="print what the run would do, and stop")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over those of the file")
    return parser.parse_intermixed_args()


def make_accelerator(settings: RunSettings) -> Accelerator:
    """Accelerate with the run's precision, accumulation and tracker."""
    accelerator = Accelerator(
        # Said outright, processes on a machine without accelerators find each other through gloo.
        cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulate,
        log_with=None if settings.tracker == "none" else settings.tracker,
        project_dir=settings.output,
        # A batch of one task leaves the other tasks' parameters without gradients, on all processes alike.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if settings.tracker != "none" and not accelerator.log_with:
        raise ValueError(f"the tracker {settings.tracker!r} is not installed; install it, or give tracker=none")
    return accelerator


def make_loader(settings: RunSettings, batches: TrainingBatches, first_step: int) -> DataLoader[ReferenceBatch]:
    """This process's batches in order, from a step on."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(first_step * settings.accumulate, len(batches)),
        num_workers=settings.workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_signals_to_the_run,
    )


def take_step(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: Any,
    batches: list[ReferenceBatch],
    settings: RunSettings,
    step: int,
) -> dict[str, float]:
    """One optimiser step over its micro-batches; returns the mean losses over processes.

    Raises:
        FloatingPointError: If a loss or the gradient is not finite on any process; nothing is changed then.
    """
    # Dropout's draws belong to the step and the process, so a resumed run repeats them.
    torch.manual_seed(hash((settings.seed, step, accelerator.process_index)) % 2**63)
    weights = settings.loss.weights(step)
    summed: dict[str, torch.Tensor] = {}
    for batch in batches:
        with accelerator.accumulate(model):
            losses = model(batch.to(accelerator.device))
            total = sum(weights[name] * loss for name, loss in losses.items())
            for name, loss in {"loss": total, **losses}.items():
                summed[name] = summed.get(name, 0) + loss.detach() / len(batches)
            check_finite(accelerator, total, batch)
            accelerator.backward(total)
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(model.parameters(), settings.optimiser.clip)
                # fp16's scaler passes over such a step and lowers its scale; without one the run is lost.
                if accelerator.scaler is None and not torch.isfinite(norm):
                    names = "; ".join(name for batch in batches for name in batch.names)
                    raise FloatingPointError(f"the gradient is not finite for the samples {names}")
                factor = learning_rate_factor(step, settings.optimiser)
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    reduced = accelerator.reduce(torch.stack(list(summed.values())), reduction="mean")
    return dict(zip(summed, reduced.tolist(), strict=True))


def check_finite(accelerator: Accelerator, loss: torch.Tensor, batch: ReferenceBatch) -> None:
    """Stop all processes if the loss of one is not finite, naming its samples."""
    finite = accelerator.reduce(torch.isfinite(loss.detach()).float(), reduction="mean")
    if finite.item() < 1:
        mine = f"here it is {loss.item()} for the samples {'; '.join(batch.names)}"
        other = "on another process; its message names the samples"
        raise FloatingPointError(f"the loss is not finite: {other if torch.isfinite(loss) else mine}")


def check_same_step(accelerator: Accelerator, step: int) -> None:
    """Refuse to go on from different steps, which would leave the processes waiting for one another."""
    steps = accelerator.gather(torch.tensor([step], device=accelerator.device)).tolist()
    if len(set(steps)) > 1:
        raise ValueError(
            f"processes would go on after the steps {steps}; output= must be a folder that all nodes share"
        )


def train(settings: RunSettings, accelerator: Accelerator, resume: bool) -> bool:
    """One stage: build, resume, loop, validate, save.

    Returns:
        Whether all its steps are done; not so after a signal.
    """
    datasets = build_datasets(settings)
    bare = build_model(settings)
    check_classes(bare, datasets)
    if accelerator.is_main_process:
        Console(width=110).print(parameter_table(bare))
    optimizer: Any = build_optimizer(bare, settings.optimiser)
    model, optimizer = accelerator.prepare(bare, optimizer)
    folder = CheckpointFolder(Path(settings.output) / "checkpoints", settings.keep)
    folder.refuse_overwriting(resume)
    state = folder.restore(bare, optimizer.optimizer) if resume else None
    first = state["step"] if state else 0
    check_same_step(accelerator, first)
    recorded = Path(settings.output) / "settings.yaml"
    if state:
        report_changes(settings, recorded, first)
    if first >= settings.steps and is_finished(settings):
        logger.info("stage %s is done already; its model is in %s", settings.stage, Path(settings.output) / "model")
        return True
    if accelerator.scaler is not None and state and state.get("scaler"):
        accelerator.scaler.load_state_dict(state["scaler"])
    batches = TrainingBatches(
        datasets,
        bare.transform,
        settings.steps,
        settings.batch_size,
        settings.accumulate,
        settings.seed,
        accelerator.process_index,
        accelerator.num_processes,
        settings.one_orientation,
    )
    accelerator.init_trackers("tracker", config={"settings": json.dumps(settings, default=vars)})
    if accelerator.is_main_process:
        write_settings(settings, recorded)
    accelerator.wait_for_everyone()
    loader = iter(make_loader(settings, batches, first))

    def step_once(step: int) -> StepResult:
        micro = [next(loader) for _ in range(settings.accumulate)]
        return StepResult(micro[0].task, take_step(accelerator, model, optimizer, micro, settings, step))

    def save(step: int) -> None:
        scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
        folder.save(step, bare, optimizer.optimizer, {"scaler": scaler})

    def measure() -> dict[str, float]:
        return validate(bare, datasets, accelerator, settings.batch_size, settings.validate_most)

    model.train()
    length = StepPlan(
        Path(settings.output), settings.steps, settings.save_every, settings.log_every, settings.validate_every
    )
    done = run_steps(accelerator, length, first, step_once, save, measure)
    if done < settings.steps:
        logger.warning("stopped after step %d of %d; go on with --resume", done, settings.steps)
        return False
    finish(settings, accelerator, bare, measure() if settings.validate_at_end else None)
    return True


def report_changes(settings: RunSettings, recorded: Path, step: int) -> None:
    """Say what is not as it was when a resumed stage began."""
    for change in changed_settings(settings, recorded):
        logger.warning("stage %s went on to step %d with another setting: %s", settings.stage, step, change)


def is_finished(settings: RunSettings) -> bool:
    """Whether a stage has left all it was to leave."""
    output = Path(settings.output)
    validated = not settings.validate_at_end or (output / "validation.json").is_file()
    return validated and (output / "model" / CONFIG_FILE).is_file()


def finish(
    settings: RunSettings, accelerator: Accelerator, bare: TrainableModel, results: dict[str, float] | None
) -> None:
    """Write the model and its validation."""
    if accelerator.is_main_process:
        output = Path(settings.output)
        bare.save_pretrained(output / "model")
        if results is not None:
            write_json(output / "validation.json", results)
        for name, value in (results or {}).items():
            logger.info("%s %.4f", name, value)
        logger.info("the model is in %s", output / "model")
    accelerator.log(results or {}, step=settings.steps)
    accelerator.wait_for_everyone()  # the stage that follows reads the model


def main() -> int:
    """Run the command; the exit code."""
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        stages = load_settings(arguments.config, arguments.overrides).stages()
        for settings in stages:
            accelerator = make_accelerator(settings)
            if not accelerator.is_main_process:
                logging.getLogger().setLevel(logging.ERROR)
            if arguments.plan:
                if accelerator.is_main_process:
                    Console(width=120).print(plan(settings, accelerator.num_processes, stages[0].model))
                continue
            finished = train(settings, accelerator, arguments.resume)
            for tracker in accelerator.trackers:
                tracker.finish()
            if not finished:
                break
        accelerator.wait_for_everyone()  # one that leaves early breaks the others' connections
        accelerator.state.destroy_process_group()
    except (ValueError, FileNotFoundError, FileExistsError, FloatingPointError) as error:
        logger.error("error: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

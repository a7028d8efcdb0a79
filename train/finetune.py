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
    # what a configuration would do, without weights or data; and how long it would take this machine
    accelerate launch train/finetune.py --config configs/sam_vit_h_video.yaml --plan
    accelerate launch train/finetune.py --config configs/sam_vit_h_video.yaml --plan --measure 3
    # go on from the newest whole checkpoint: the same command, with --resume
    accelerate launch train/finetune.py --config configs/folder.yaml --resume data.fss.root=my_pictures \
        data.vos.weight=0 data.ris.weight=0

Any setting can be given as key=value after the options. Ctrl-C and SIGTERM save and exit; --resume goes on. The exit
code is 0 when all is done, 2 if the same command would fail again, 75 if the machine failed, 130 or 143 after a signal;
launchers make 1 of all but 0. docs/faults.md has more.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from rich.console import Console

from sam_uniref.train.exit_codes import of_signal, run_command
from sam_uniref.train.loop import StepPlan, run_steps
from sam_uniref.train.measuring import measured_plan
from sam_uniref.train.plan import plan
from sam_uniref.train.settings import RunSettings, load_settings
from sam_uniref.train.stage import Stage

logger = logging.getLogger("sam_uniref.train")


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the newest whole checkpoint of the output")
    parser.add_argument("--plan", action="store_true", help="print what the run would do, and stop")
    parser.add_argument(
        "--measure", type=int, metavar="N", help="with --plan: N steps of each data set on this machine, in one process"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over those of the file")
    arguments = parser.parse_intermixed_args(given)
    if arguments.measure is not None and (arguments.measure < 1 or not arguments.plan):
        parser.error("--measure is a number of steps from 1 on, and goes with --plan")
    return arguments


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
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=timedelta(seconds=settings.process_timeout)),
        ],
    )
    if settings.tracker != "none" and not accelerator.log_with:
        raise ValueError(f"the tracker {settings.tracker!r} is not installed; install it, or give tracker=none")
    return accelerator


def train(settings: RunSettings, accelerator: Accelerator, resume: bool) -> int:
    """One stage: build, resume, loop, validate, save.

    Returns:
        0 when all its steps are done, else the number of the signal that stopped it.

    Raises:
        CheckpointNotSavedError: If the disk was too full for the last checkpoint or for the model.
    """
    stage = Stage(settings, accelerator)
    first = stage.restore(resume)
    if first >= settings.steps and stage.finished:
        logger.info("stage %s is done already; its model is in %s", stage.name, stage.output / "model")
        return 0
    length = StepPlan(stage.output, settings.steps, settings.save_every, settings.log_every, settings.validate_every)
    try:
        stage.begin(first)
        end = run_steps(accelerator, length, first, stage.take_step, stage.save, stage.measure)
        if end.step == settings.steps:
            stage.finish()
    finally:
        stage.close()
    return end.checked(settings.steps)


def run(arguments: argparse.Namespace) -> int:
    """All stages; the exit code."""
    stages, stopped = load_settings(arguments.config, arguments.overrides).stages(), 0
    for settings in stages:
        accelerator = make_accelerator(settings)
        if not accelerator.is_main_process:
            logging.getLogger().setLevel(logging.ERROR)
        if arguments.plan:
            if accelerator.is_main_process:
                Console(width=120).print(plan(settings, accelerator.num_processes, stages[0].model))
            if arguments.measure:
                Console(width=120).print(measured_plan(settings, accelerator, stages[0].model, arguments.measure))
            continue
        stopped = train(settings, accelerator, arguments.resume)
        if stopped:
            break
    accelerator.wait_for_everyone()  # one that leaves early breaks the others' connections
    accelerator.state.destroy_process_group()
    return of_signal(stopped)


def main(given: Sequence[str] | None = None) -> int:
    """Run the command; the exit code, see `sam_uniref.train.exit_codes`."""
    arguments = parse_arguments(given)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())

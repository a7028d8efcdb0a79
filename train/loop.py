"""The steps of a run: progress, log, checkpoints, and a clean end on Ctrl-C and SIGTERM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from sam_uniref.train.interruption import Interruption
from sam_uniref.train.journal import Journal


@dataclass(frozen=True)
class StepResult:
    """What one optimiser step gave.

    Attributes:
        task: What the step was about.
        values: Mean losses over processes, the weighted sum as ``loss``.
    """

    task: str
    values: dict[str, float]


@dataclass(frozen=True)
class StepPlan:
    """How long a run is and how often it writes.

    Attributes:
        output: Folder of the run; its ``log.jsonl`` has every step.
        steps: Optimiser steps in all.
        save_every: Steps between checkpoints.
        log_every: Steps between entries of the tracker.
        validate_every: Steps between validations; 0 for none.
    """

    output: Path
    steps: int
    save_every: int
    log_every: int
    validate_every: int = 0


def run_steps(
    accelerator: Accelerator,
    plan: StepPlan,
    first: int,
    take_step: Callable[[int], StepResult],
    save: Callable[[int], object],
    validate: Callable[[], dict[str, float]],
) -> int:
    """Take the steps from ``first`` on.

    Args:
        accelerator: For its processes and tracker.
        plan: Length and intervals.
        first: Steps that are done.
        take_step: Takes the step of a number; called on every process.
        save: Writes a checkpoint after so many steps; called on every process.
        validate: Gives the values to log; called on every process.

    Returns:
        How many steps are done; fewer than all after a signal, which was answered with a checkpoint.
    """
    main = accelerator.is_main_process
    journal = Journal(plan.output / "log.jsonl", first) if main else None
    progress = tqdm(total=plan.steps, initial=first, disable=not main, unit="step", mininterval=1.0)
    step = first
    with Interruption() as interruption:
        while step < plan.steps:
            result = take_step(step)
            step += 1
            if journal is not None:
                journal.write(step, {"task": result.task, **result.values})
            progress.update()
            progress.set_postfix(loss=f"{result.values['loss']:.3f}", task=result.task, refresh=False)
            if step % plan.log_every == 0:
                accelerator.log({f"train/{result.task}/{k}": v for k, v in result.values.items()}, step=step)
            if plan.validate_every and step % plan.validate_every == 0 and step < plan.steps:
                values = validate()
                accelerator.log(values, step=step)
                if main:
                    progress.write(f"step {step}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()))
            stop = any_process(accelerator, interruption.requested)
            if stop or step % plan.save_every == 0 or step == plan.steps:
                save(step)
            if stop:
                break
    progress.close()
    if journal is not None:
        journal.close()
    accelerator.wait_for_everyone()
    return step


def any_process(accelerator: Accelerator, here: bool) -> bool:
    """Whether something holds on at least one process; all of them get the same answer."""
    flag = torch.tensor(float(here), device=accelerator.device)
    return accelerator.reduce(flag, reduction="sum").item() > 0

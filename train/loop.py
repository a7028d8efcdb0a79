"""The steps of a run: progress, log, checkpoints, and a clean end on Ctrl-C and SIGTERM."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from sam_uniref.train.checkpoints import CheckpointNotSavedError
from sam_uniref.train.interruption import Interruption
from sam_uniref.train.journal import Journal

logger = logging.getLogger(__name__)


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

    def validates(self, step: int) -> bool:
        """Whether there is a validation after so many steps, during the run."""
        return bool(self.validate_every) and 0 < step < self.steps and step % self.validate_every == 0


@dataclass(frozen=True)
class RunEnd:
    """How a run ended; the same on all processes.

    Attributes:
        step: Steps that are done.
        signal: Number of the signal that stopped it before it had taken all; 0: none.
        saved: Whether there is a checkpoint of its last step.
    """

    step: int
    signal: int = 0
    saved: bool = True

    def checked(self, steps: int) -> int:
        """Say what is left to do of so many steps; the signal.

        Raises:
            CheckpointNotSavedError: If there is no checkpoint of the last step.
        """
        if not self.saved:
            raise CheckpointNotSavedError(
                f"there is no checkpoint of the last step, {self.step}; make room, then --resume goes on from the one "
                "before"
            )
        if self.signal:
            logger.warning("stopped after step %d of %d; go on with --resume", self.step, steps)
        return self.signal


def run_steps(
    accelerator: Accelerator,
    plan: StepPlan,
    first: int,
    take_step: Callable[[int], StepResult],
    save: Callable[[int], object],
    validate: Callable[[int], dict[str, float]],
) -> RunEnd:
    """Take the steps from ``first`` on.

    Args:
        accelerator: For its processes and tracker.
        plan: Length and intervals.
        first: Steps that are done.
        take_step: Takes the step of a number; called on every process.
        save: Writes a checkpoint after so many steps; called on every process. If the disk is full, training goes
            on and the next one is tried.
        validate: Gives the values to log after so many steps; called on every process. One that was due at ``first``
            and is not in the log, as the run ended during it, is made up for.

    Returns:
        How it ended; after a signal with fewer steps than all.
    """
    main = accelerator.is_main_process
    journal = Journal(plan.output / "log.jsonl", first) if main else None
    progress = tqdm(total=plan.steps, initial=first, disable=not main, unit="step", mininterval=1.0)
    step, stop, saved = first, 0, True

    def measure() -> None:
        values = validate(step)
        accelerator.log(values, step=step)
        if journal is not None:
            journal.write(step, {"validation": values})
            progress.write(f"step {step}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()))

    with Interruption() as interruption:
        if plan.validates(first) and not highest(accelerator, int(journal is not None and journal.validated(first))):
            measure()
        while step < plan.steps:
            result = take_step(step)
            step += 1
            if journal is not None:
                journal.write(step, {"task": result.task, **result.values})
            progress.update()
            progress.set_postfix(loss=f"{result.values['loss']:.3f}", task=result.task, refresh=False)
            if step % plan.log_every == 0:
                accelerator.log({f"train/{result.task}/{k}": v for k, v in result.values.items()}, step=step)
            stop = highest(accelerator, interruption.number)
            if stop or step % plan.save_every == 0 or step == plan.steps:
                saved = is_saved(save, step)
            if stop:
                break
            if plan.validates(step):  # after the checkpoint: it may be long, and what ends it must cost no steps
                measure()
    progress.close()
    if journal is not None:
        journal.close()
    accelerator.wait_for_everyone()
    return RunEnd(step, stop if step < plan.steps else 0, not highest(accelerator, int(not saved)))


def is_saved(save: Callable[[int], object], step: int) -> bool:
    """Try to write a checkpoint; whether that was done. What is wrong with the disk is said."""
    try:
        save(step)
    except CheckpointNotSavedError as error:
        logger.error("%s; the one before stays, and the next is tried when it is due", error)
        return False
    return True


def highest(accelerator: Accelerator, here: int) -> int:
    """The highest of all processes' numbers; all of them get the same answer."""
    return int(accelerator.gather(torch.tensor([here], device=accelerator.device)).max())

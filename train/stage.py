"""One stage of a run: what it is made of, and what is done with it from its first step to the model that it leaves."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console

from sam_uniref.data import ReferenceBatch, TrainingBatches
from sam_uniref.models import CONFIG_FILE
from sam_uniref.state import write_json
from sam_uniref.train.best import BestModel
from sam_uniref.train.build import build_datasets, build_model, build_optimizer, check_classes, open_features
from sam_uniref.train.checkpoints import CheckpointFolder, reported_disk, tensor_bytes
from sam_uniref.train.loader import BatchLoader
from sam_uniref.train.loop import StepResult
from sam_uniref.train.resuming import recorded_batch, same_samples
from sam_uniref.train.settings import RunSettings, changed_settings, write_settings
from sam_uniref.train.sharding import (
    Gathered,
    WholeModel,
    WholeOptimizer,
    share_out,
    usable_parameters,
    whole_parameters,
)
from sam_uniref.train.step import take_step
from sam_uniref.train.summary import parameter_table
from sam_uniref.train.trackers import start_trackers
from sam_uniref.train.validation import validate

logger = logging.getLogger("sam_uniref.train")


class Stage:
    """A stage that is built and can be trained.

    Args:
        settings: Of the stage.
        accelerator: For its processes, device and precision.

    Attributes:
        output: Folder of the stage.
        datasets: To draw from and to validate on.
        features: Of their pictures, where the frozen encoder is not to run.
        bare: The model.
        model: The same as its processes share it.
        optimizer: As the accelerator prepared it.
        checkpoints: Of the stage.

    Raises:
        FileNotFoundError: If a file of the settings is not there.
        ValueError: If model, data and settings do not fit each other.
    """

    def __init__(self, settings: RunSettings, accelerator: Accelerator) -> None:
        self.settings, self.accelerator = settings, accelerator
        self._given = settings
        self.output = Path(settings.output)
        self.datasets = build_datasets(settings)
        self.bare = build_model(settings)
        check_classes(self.bare, self.datasets)
        self.features = open_features(settings, self.bare, self.datasets)
        if accelerator.is_main_process:
            Console(width=110).print(parameter_table(self.bare))
        optimizer: Any = build_optimizer(self.bare, settings.optimiser)
        share_out(accelerator, self.bare)
        self.model, self.optimizer = accelerator.prepare(self.bare, optimizer)
        self.checkpoints = CheckpointFolder(self.output / "checkpoints", settings.keep)
        self._batches: BatchLoader[ReferenceBatch] = BatchLoader((), 0, workers=0, timeout=0)
        self._best: BestModel | None = None

    # ---- Before the first step ----

    def restore(self, resume: bool) -> int:
        """Go on from the newest whole checkpoint, if the run is to; the steps that are done.

        Raises:
            FileExistsError: If there are checkpoints and the run does not go on from them.
            ValueError: If none of them fits, or the processes do not see the same ones.
        """
        self.checkpoints.refuse_overwriting(resume)
        whole = WholeModel(self.bare), WholeOptimizer(self.optimizer.optimizer)
        state = self.checkpoints.restore(*whole) if resume else None
        done = state["step"] if state else 0
        check_same_step(self.accelerator, done)
        if state:
            for change in changed_settings(self.settings, self._recorded):
                logger.warning("stage %s went on to step %d with another setting: %s", self.name, done, change)
            if self.accelerator.scaler is not None and state.get("scaler"):
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self._keep_samples(state.get("batch"))
        return done

    def _keep_samples(self, recorded: dict[str, int] | None) -> None:
        """Share a step's samples out anew if there were more processes, or fewer."""
        self.settings = same_samples(self._given, recorded, self.accelerator.num_processes)
        self.accelerator.gradient_accumulation_steps = self.settings.accumulate
        if self.settings != self._given:
            logger.warning(
                "%d processes share a step's %d samples in batches of %d, accumulate=%d",
                self.accelerator.num_processes,
                recorded["samples"] if recorded else 0,
                self.settings.batch_size,
                self.settings.accumulate,
            )

    @property
    def finished(self) -> bool:
        """Whether the stage has left all it was to leave."""
        validated = not self.settings.validate_at_end or (self.output / "validation.json").is_file()
        return validated and (self.output / "model" / CONFIG_FILE).is_file()

    def begin(self, step: int) -> None:
        """Record the settings and open the data, so that steps can be taken from here on."""
        settings = self.settings
        batches = TrainingBatches(
            self.datasets,
            self.bare.transform,
            settings.steps,
            settings.batch_size,
            settings.accumulate,
            settings.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            settings.one_orientation,
            self.features,
        )
        start_trackers(self.accelerator, settings)
        if self.accelerator.is_main_process:
            write_settings(settings, self._recorded)
        if settings.best is not None:
            self._best = BestModel(self.output / "best", settings.best, self.accelerator, resumed=step > 0)
        self.accelerator.wait_for_everyone()
        self._batches = BatchLoader(batches, step * settings.accumulate, settings.workers, settings.loader_timeout)
        self.model.train()

    # ---- What `run_steps` asks for ----

    def take_step(self, step: int) -> StepResult:
        """Take the step of a number; on every process."""
        micro = [next(self._batches) for _ in range(self.settings.accumulate)]
        values = take_step(self.accelerator, self.model, self.optimizer, micro, self.settings, step)
        return StepResult(micro[0].task, values)

    def save(self, step: int) -> None:
        """Write a checkpoint, the main process for all; on every process."""
        bare, optimizer = WholeModel(self.bare), WholeOptimizer(self.optimizer.optimizer)
        held = Gathered(bare.trained_state_dict(), optimizer.state_dict())
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None
            batch = recorded_batch(self.settings, self._given, self.accelerator.num_processes)
            self.checkpoints.save(step, held, held, {"scaler": scaler, "batch": batch})

    def measure(self, step: int) -> dict[str, float]:
        """Validate after so many steps, and keep the model if it is the best; on every process."""
        settings = self.settings
        with usable_parameters(self.bare):
            values = validate(
                self.bare,
                self.datasets,
                self.accelerator,
                settings.batch_size,
                settings.validate_most,
                self.features,
                settings.workers,
                settings.loader_timeout,
            )
        if self._best is not None:
            with whole_parameters(self.bare):
                self._best.offer(step, values, self.bare.save_pretrained, self._model_bytes)
        return values

    # ---- After the last step ----

    def finish(self) -> None:
        """Validate if that is asked for, and write the model; on every process."""
        results = self.measure(self.settings.steps) if self.settings.validate_at_end else {}
        with whole_parameters(self.bare):
            if self.accelerator.is_main_process:
                with reported_disk("the model", self.output, self._model_bytes):
                    self.bare.save_pretrained(self.output / "model", model_card_kwargs=self._card(results))
        if self.accelerator.is_main_process:
            if self.settings.validate_at_end:
                write_json(self.output / "validation.json", results)
            for name, value in results.items():
                logger.info("%s %.4f", name, value)
            logger.info("the model is in %s", self.output / "model")
        self.accelerator.log(results, step=self.settings.steps)
        self.accelerator.wait_for_everyone()  # the stage that follows reads the model

    def _card(self, results: dict[str, float]) -> dict[str, Any]:
        """What the model's card says of the run."""
        drawn = [name for name, data in self.settings.data.items() if data.weight]
        return {"data": drawn, "training": asdict(self.settings), "metrics": {"validation": results}}

    def close(self) -> None:
        """End the loader's processes and the trackers."""
        self._batches.close()
        for tracker in self.accelerator.trackers:
            tracker.finish()

    @property
    def name(self) -> str:
        """As the settings have it."""
        return self.settings.stage

    @property
    def _model_bytes(self) -> int:
        """What was trained, on disk; a model that holds its frozen weights too takes more."""
        return tensor_bytes(self.bare.trained_state_dict())

    @property
    def _recorded(self) -> Path:
        """Where the stage writes what it was made of."""
        return self.output / "settings.yaml"


def check_same_step(accelerator: Accelerator, step: int) -> None:
    """Refuse to go on from different steps, which would leave the processes waiting for one another.

    Raises:
        ValueError: Naming them.
    """
    steps = accelerator.gather(torch.tensor([step], device=accelerator.device)).tolist()
    if len(set(steps)) > 1:
        raise ValueError(
            f"processes would go on after the steps {steps}; output= must be a folder that all nodes share"
        )

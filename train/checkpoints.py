"""Training checkpoints: written under a temporary name and renamed, so that each one is whole or not there."""

from __future__ import annotations

import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from sam_uniref.state import read_tensors, whole_folder

logger = logging.getLogger(__name__)

_NAME = re.compile(r"^step_(\d{7})$")
_WEIGHTS, _OPTIMIZER, _TRAINER = "trained.safetensors", "optimizer.pt", "trainer.json"


class HasTrained(Protocol):
    """What says what training changes of a model."""

    def trained_state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint must hold, by name."""


class Checkpointed(HasTrained, Protocol):
    """A model that says what training changes of it, and takes it back."""

    def load_trained_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Load what `trained_state_dict` gave."""


class HasState(Protocol):
    """As much of an optimiser as is saved."""

    def state_dict(self) -> dict[str, Any]:
        """Its moments and options."""


class Restorable(HasState, Protocol):
    """As much of an optimiser as is restored."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Its options, by group of parameters."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of a run.

    Attributes:
        folder: ``<output>/checkpoints``.
        keep: How many of the newest to keep.
    """

    folder: Path
    keep: int

    def newest_first(self) -> list[tuple[int, Path]]:
        """Steps and folders of the whole checkpoints."""
        if not self.folder.is_dir():
            return []
        named = [(_NAME.match(path.name), path) for path in self.folder.iterdir()]
        return sorted(((int(match.group(1)), path) for match, path in named if match), reverse=True)

    def refuse_overwriting(self, resume: bool) -> None:
        """A fresh run must not write over another one's checkpoints.

        Raises:
            FileExistsError: If there are checkpoints and the run does not go on from them.
        """
        if self.newest_first() and not resume:
            raise FileExistsError(
                f"{self.folder.parent} holds the checkpoints of a run; go on with --resume, or give another output="
            )

    def save(self, step: int, model: HasTrained, optimizer: HasState, state: dict[str, Any]) -> Path:
        """Write the state after ``step`` steps, then drop the oldest."""
        path = self.folder / f"step_{step:07d}"
        for unfinished in self.folder.glob(".step_*"):  # by a run that was killed while it wrote
            shutil.rmtree(unfinished, ignore_errors=True)
        with whole_folder(path) as temporary:
            trained = {name: tensor.detach().cpu().contiguous() for name, tensor in model.trained_state_dict().items()}
            save_file(trained, temporary / _WEIGHTS)
            torch.save(optimizer.state_dict(), temporary / _OPTIMIZER)
            (temporary / _TRAINER).write_text(json.dumps({"step": step, **state}, indent=2))
        for _, old in self.newest_first()[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def restore(self, model: Checkpointed, optimizer: Restorable) -> dict[str, Any] | None:
        """Load the newest checkpoint that can be read; one that is broken is passed over with a warning.

        Rates and weight decay stay as the optimiser has them, so that a resumed run follows its settings.

        Returns:
            What was saved as state, with ``step``; None if there is no checkpoint.

        Raises:
            ValueError: If there are checkpoints but none fits, such as after a change of the model's settings.
        """
        found = self.newest_first()
        options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        for step, path in found:
            try:
                trained = read_tensors(path / _WEIGHTS)
                saved = torch.load(path / _OPTIMIZER, map_location="cpu", weights_only=True)
                state = json.loads((path / _TRAINER).read_text())
                model.load_trained_state_dict(trained)
                optimizer.load_state_dict(saved)
                for group, given in zip(optimizer.param_groups, options, strict=True):
                    group.update(given)
            except Exception as error:  # a half-written disk block can surface as almost any error
                logger.warning("checkpoint %s can't be used (%s); trying the one before", path, error)
                continue
            logger.info("resumed after step %d from %s", step, path)
            return state
        if found:
            raise ValueError(
                f"none of the {len(found)} checkpoints in {self.folder} can be used; see the warnings above"
            )
        return None

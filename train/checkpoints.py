"""Training checkpoints: whole or not there, with checksums, so that what is read is what was written."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sam_uniref.state import file_sha256, read_tensors, whole_folder

logger = logging.getLogger(__name__)

_NAME = re.compile(r"^step_(\d{7})$")
_WEIGHTS, _OPTIMIZER, _TRAINER = "trained.safetensors", "optimizer.pt", "trainer.json"
_CHECKSUMS = "checksums.json"


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


class CheckpointNotSavedError(OSError):
    """A checkpoint could not be written, for want of room or of a disk that works; those before it are as they were."""


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
        """Steps and folders of the checkpoints, the broken ones too."""
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
        """Write the state after ``step`` steps, then drop the oldest.

        Raises:
            CheckpointNotSavedError: If the disk is full or fails; the other checkpoints are as they were then.
        """
        trained = {name: tensor.detach().cpu().contiguous() for name, tensor in model.trained_state_dict().items()}
        moments = optimizer.state_dict()
        path = self.folder / f"step_{step:07d}"
        with reported_disk(f"the checkpoint after step {step}", self.folder, tensor_bytes(trained, moments)):
            for unfinished in self.folder.glob(".step_*"):  # by a run that was killed while it wrote or dropped one
                shutil.rmtree(unfinished, ignore_errors=True)
            with whole_folder(path) as temporary:
                save_file(trained, temporary / _WEIGHTS)
                torch.save(moments, temporary / _OPTIMIZER)
                (temporary / _TRAINER).write_text(json.dumps({"step": step, **state}, indent=2))
                sums = {name: file_sha256(temporary / name) for name in (_WEIGHTS, _OPTIMIZER, _TRAINER)}
                (temporary / _CHECKSUMS).write_text(json.dumps(sums, indent=2))
        self._drop_others(step)
        return path

    def _drop_others(self, step: int) -> None:
        """Drop the oldest; and those after this one, which the run could not go on from and has gone back behind."""
        found = self.newest_first()
        later = [path for number, path in found if number > step]
        for path in later:
            logger.info("dropped %s, which could not be used", path)
        earlier = [path for number, path in found if number <= step]
        for path in [*later, *earlier[self.keep :]]:
            _drop(path)

    def restore(self, model: Checkpointed, optimizer: Restorable) -> dict[str, Any] | None:
        """Load the newest checkpoint that is as it was written; one that is broken is passed over with a warning.

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
                _check_sums(path)
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


def _check_sums(path: Path) -> None:
    """Refuse a checkpoint whose files are not as they were written; those of earlier versions have no checksums.

    Raises:
        ValueError: Naming the file.
        FileNotFoundError: If one is missing.
    """
    if not (path / _CHECKSUMS).is_file():
        return
    for name, written in json.loads((path / _CHECKSUMS).read_text()).items():
        if file_sha256(path / name) != written:
            raise ValueError(f"{name} is not as it was written: its SHA-256 differs from that in {_CHECKSUMS}")


def _drop(path: Path) -> None:
    """Remove a folder, which is whole under its name or not there; one that can't be removed is in nobody's way."""
    leaving = path.with_name(f".{path.name}-old")
    try:
        path.rename(leaving)
        shutil.rmtree(leaving)
    except OSError as error:
        logger.warning("%s can't be removed (%s)", path, error)


@contextmanager
def reported_disk(what: str, folder: Path, needed: int) -> Iterator[None]:
    """Say of whatever keeps a block from writing what was to be written, and what room there is for it.

    Args:
        what: Is written.
        folder: Where; it is made if it is not there.
        needed: Bytes that it takes. If fewer are free the block is not begun, and the disk not filled to the brim.

    Raises:
        CheckpointNotSavedError: Instead of the error.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    # On a full disk safetensors raises an error of its own, and torch one of its archive's.
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointNotSavedError(
            f"{what} can't be written: it takes {needed / 1e6:,.1f} MB in {folder}, where {_free(folder)} MB are free "
            f"({error})"
        ) from error


def tensor_bytes(*state: object) -> int:
    """Of all tensors in nested dictionaries and lists."""
    count = 0
    for value in state:
        if isinstance(value, Tensor):
            count += value.nbytes
        elif isinstance(value, Mapping):
            count += tensor_bytes(*value.values())
        elif isinstance(value, list | tuple):
            count += tensor_bytes(*value)
    return count


def _free(folder: Path) -> str:
    """Megabytes of room on a folder's disk, which may be gone."""
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:,.1f}"
    except OSError:
        return "an unknown number of"

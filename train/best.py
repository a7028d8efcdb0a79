"""The best model of a run so far, kept beside its checkpoints."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from accelerate import Accelerator

from sam_uniref.state import whole_folder, write_json
from sam_uniref.train.checkpoints import CheckpointNotSavedError, reported_disk
from sam_uniref.train.loop import highest

logger = logging.getLogger(__name__)

_RECORD = "best.json"
MEAN = "mean"


class BestModel:
    """``<output>/best``: a saved model, and ``best.json`` of how it was validated. The folder is whole at all times.

    Args:
        folder: Its place.
        which: Name of the data set that counts, or `MEAN` of all.
        accelerator: For its processes, which all make one and the same choice.
        resumed: Whether the run goes on, and what is in the folder is its own.
    """

    def __init__(self, folder: Path, which: str, accelerator: Accelerator, *, resumed: bool) -> None:
        self._folder, self._which, self._accelerator = folder, which, accelerator
        self._value = _recorded(folder / _RECORD, which) if resumed else -math.inf
        if accelerator.is_main_process:
            for unfinished in folder.parent.glob(f".{folder.name}-*"):  # by a run that was killed while it wrote
                shutil.rmtree(unfinished, ignore_errors=True)

    def offer(self, step: int, values: Mapping[str, float], save: Callable[[Path], object], needed: int) -> None:
        """Keep the model if none before was better; on every process.

        Args:
            step: Steps that are done.
            values: As `sam_uniref.train.validation.validate` gives them.
            save: Writes the model into a folder; called on the main process.
            needed: Bytes that it takes, for messages. If there is no room, the best one before stays.
        """
        value = validated(values, self._which)
        if not value > self._value:  # nor if it is no number
            return
        failed = self._accelerator.is_main_process and not self._write(step, value, values, save, needed)
        if not highest(self._accelerator, int(failed)):
            self._value = value

    def _write(
        self, step: int, value: float, values: Mapping[str, float], save: Callable[[Path], object], needed: int
    ) -> bool:
        """Put the model in the place of the one before; whether there was room."""
        record = {"step": step, "measure": self._which, "value": value, "validation": dict(values)}
        try:
            with (
                reported_disk(f"the best model, after step {step},", self._folder.parent, needed),
                whole_folder(self._folder) as temporary,
            ):
                save(temporary)
                write_json(temporary / _RECORD, record)
        except CheckpointNotSavedError as error:
            logger.error("%s; the best one before stays", error)
            return False
        logger.info("step %d is the best so far: %s %.4f; its model is in %s", step, self._which, value, self._folder)
        return True


def validated(values: Mapping[str, float], which: str) -> float:
    """The value of a data set, or the mean over all; those with swapped references do not count."""
    right = {name: value for name, value in values.items() if not name.endswith("_swapped")}
    counted = [value for name, value in right.items() if which in (MEAN, name.rpartition("/")[0])]
    return sum(counted) / len(counted)


def _recorded(path: Path, which: str) -> float:
    """The value of the model that is kept; of none, or of one by another measure, lower than all."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return float(record["value"]) if record["measure"] == which else -math.inf
    except (OSError, ValueError, KeyError, TypeError):
        return -math.inf

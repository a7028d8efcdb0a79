"""Trackers that a run does not depend on: one that fails is warned of once, and training goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

logger = logging.getLogger(__name__)


class GuardedTracker(GeneralTracker):
    """Another tracker, whose errors are warnings. It is tried again each time: a connection may come back.

    Args:
        guarded: That tracker, after it has been started.
    """

    def __init__(self, guarded: GeneralTracker) -> None:
        self.name = guarded.name
        self.requires_logging_directory = guarded.requires_logging_directory
        self.main_process_only = guarded.main_process_only
        self._guarded, self._lost = guarded, False
        super().__init__(_blank=True)

    @property
    def tracker(self) -> Any:
        """What the tracker writes with."""
        return self._guarded.tracker

    def log(self, values: dict[str, Any], step: int | None = None, **options: Any) -> None:
        """Pass values on."""
        self._attempt(lambda: self._guarded.log(values, step=step, **options))

    def finish(self) -> None:
        """Close the connection."""
        self._attempt(self._guarded.finish)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # what a tracker can raise is its own affair
            if not self._lost:
                logger.warning("tracker %s fails (%s); training goes on, log.jsonl has all values", self.name, error)
            self._lost = True


def start_trackers(accelerator: Accelerator, settings: object) -> None:
    """Start the accelerator's trackers with a run's settings, and put them under guard.

    Args:
        accelerator: Its processes call this together.
        settings: A dataclass, told to the trackers as JSON.

    Raises:
        ValueError: If one can't be started; better known now than after the run.
    """
    try:
        accelerator.init_trackers("tracker", config={"settings": json.dumps(settings, default=vars)})
    except Exception as error:
        accelerator.trackers = []  # one that is not started can't be closed
        names = ", ".join(str(name) for name in accelerator.log_with)
        raise ValueError(f"the tracker {names} can't be started ({error}); mend that, or give tracker=none") from error
    accelerator.trackers = [GuardedTracker(tracker) for tracker in accelerator.trackers]

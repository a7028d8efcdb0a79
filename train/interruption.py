"""Ctrl-C and SIGTERM end a run after the step in hand, with a checkpoint."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


def leave_signals_to_the_run(worker: int) -> None:
    """A loader's worker lives on when all processes of a run get a signal; the run itself ends it in good order."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class Interruption:
    """While in use, remembers a signal instead of dying of it; a second one kills as usual.

    Attributes:
        number: Of the signal that came; 0 before.
    """

    def __init__(self) -> None:
        self.number = 0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        """Install the handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Put the old handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        signal.signal(number, self._previous[number])  # type: ignore[arg-type]

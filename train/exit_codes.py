"""How training commands end: the exit code, and one clear line instead of a traceback where the cause is known.

| code | meaning |
|---|---|
| 0 | all done |
| 2 | what was given can't be trained, or the loss is not finite: the same command would fail again |
| 75 | the machine failed (a full disk, a lost process, a loader that hangs): the same command with --resume goes on |
| 130, 143 | stopped by Ctrl-C, by SIGTERM, after a checkpoint: the same command with --resume goes on |
| 1 | anything else, with a traceback |
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

import torch

from sam_uniref.train.loader import LoaderError

logger = logging.getLogger("sam_uniref.train")

DONE, REFUSED, TRY_AGAIN = 0, 2, 75  # sysexits.h: EX_TEMPFAIL
_OF_SIGNALS = 128


def of_signal(number: int) -> int:
    """The code of a run that a signal stopped, as shells have it; 0 for none."""
    return _OF_SIGNALS + number if number else DONE


def run_command(command: Callable[[], int]) -> int:
    """Call a training command and turn what may end it into a line and an exit code.

    Args:
        command: Returns a code itself.
    """
    try:
        return command()
    except (ValueError, FileNotFoundError, FileExistsError, PermissionError, FloatingPointError) as error:
        logger.error("error: %s", error)
        return REFUSED
    except (OSError, LoaderError) as error:
        logger.error("error: %s", error)
        return TRY_AGAIN
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        logger.error(
            "error: another process of this run ended or hangs (%s); its own output may say why. Go on with --resume",
            str(error).splitlines()[0],
        )
        return TRY_AGAIN
    except KeyboardInterrupt:
        logger.error("stopped before or after training; go on with --resume")
        return of_signal(signal.SIGINT)


def is_lost_process(error: RuntimeError) -> bool:
    """Whether processes lost each other: NCCL has a type for that, gloo names its own files."""
    return isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)

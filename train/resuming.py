"""Going on with another number of processes: a step keeps its samples."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from sam_uniref.train.settings import RunSettings


def recorded_batch(settings: RunSettings, given: RunSettings, processes: int) -> dict[str, int]:
    """What a checkpoint notes of a run's batches.

    Args:
        settings: As the run went.
        given: As they were asked for.
        processes: That shared it.
    """
    return {
        "samples": processes * settings.batch_size * settings.accumulate,
        "batch_size": given.batch_size,
        "accumulate": given.accumulate,
    }


def same_samples(settings: RunSettings, recorded: dict[str, Any] | None, processes: int) -> RunSettings:
    """Settings with which a step has as many samples as before, whatever the number of processes was.

    Args:
        settings: As they are asked for. Those that ask for another batch than before get what they ask for.
        recorded: From `recorded_batch`; None where a checkpoint does not say.
        processes: That share the run now.

    Raises:
        ValueError: If no batch of at most the size that is asked for makes as many samples.
    """
    if recorded is None or any(getattr(settings, n) != recorded[n] for n in ("batch_size", "accumulate")):
        return settings
    samples = recorded["samples"]
    each, left = divmod(samples, processes)
    together = math.lcm(*(data.together for data in settings.data.values() if data.weight))
    fitting = [n for n in range(settings.batch_size, 0, -1) if each % n == 0 and n % together == 0]
    if left or not fitting:
        raise ValueError(
            f"a step had {samples} samples, which {processes} processes can't share in batches of at most "
            f"{settings.batch_size}; use another number of processes, or set batch_size and accumulate anew"
        )
    return replace(settings, batch_size=fitting[0], accumulate=each // fitting[0])

"""Methods that ours is compared with, behind `sam_uniref.eval.methods.Method`, on any SAM we load.

PerSAM changes SAM's own mask decoder, and runs on no other.

| name | asked | learns |
|---|---|---|
| ``persam`` | FSS, VOS | nothing |
| ``persam_f`` | FSS, VOS | two numbers an object, when it is asked |
| ``plain_sam`` | VOS | nothing |
| ``points`` | VOS | nothing |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sam_uniref.data.batch import Task
from sam_uniref.eval.baselines.persam import Persam
from sam_uniref.eval.baselines.persam_f import PersamF
from sam_uniref.eval.baselines.point_tracks import PointTracks
from sam_uniref.eval.baselines.propagation import PlainSam
from sam_uniref.eval.methods import Method

__all__ = ["BASELINES", "Baseline", "Persam", "PersamF", "PlainSam", "PointTracks"]


@dataclass(frozen=True)
class Baseline:
    """A method by its name.

    Attributes:
        build: From a `sam_uniref.hosts.Host`, which stays frozen, and the method's own options by keyword.
        tasks: What it can be asked; anything else is a ValueError.
        trained_parameters: How many numbers training finds: PerSAM-F's are found anew for each object.
    """

    build: Callable[..., Method]
    tasks: tuple[Task, ...]
    trained_parameters: int


BASELINES: dict[str, Baseline] = {
    "persam": Baseline(Persam, Persam.tasks, 0),
    "persam_f": Baseline(PersamF, PersamF.tasks, 2),
    "plain_sam": Baseline(PlainSam, PlainSam.tasks, 0),
    "points": Baseline(PointTracks, PointTracks.tasks, 0),
}

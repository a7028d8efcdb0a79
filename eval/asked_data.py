"""The protocols that an evaluation's command line asks for, over RefShapes or a prepared split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sam_uniref.data.batch import TASKS, Task
from sam_uniref.data.prepared import read_info
from sam_uniref.eval.cases import NothingToAskError, Source
from sam_uniref.eval.compared_methods import METHODS
from sam_uniref.eval.prepared_cases import PreparedClips, PreparedQueries, PreparedScenes
from sam_uniref.eval.protocols import FewShot, MergedSentences, Referring, TaskProtocol, VideoObjects, VideoSentences
from sam_uniref.eval.protocols.few_shot import SHOTS
from sam_uniref.eval.protocols.tracks import FrameRule
from sam_uniref.eval.refshapes_protocol import SOURCES

REFSHAPES = "refshapes"
REFSHAPES_EPISODES = 200

Protocols = dict[Task, TaskProtocol[Any, Any]]


def asked_tasks(arguments: argparse.Namespace) -> tuple[Task, ...]:
    """What ``--task`` stands for, each once, in the order of :data:`TASKS`; ``all`` is what the method can be asked."""
    every = METHODS[arguments.method] if "all" in arguments.task else ()
    return tuple(task for task in TASKS if task in arguments.task or task in every)


def open_protocols(arguments: argparse.Namespace) -> Protocols:
    """A protocol a task. ``all`` are those of the four that the data set can be asked.

    Raises:
        FileNotFoundError: If there is no such data set.
        ValueError: If the data set can't be asked one of the tasks, or none.
    """
    protocols: Protocols = {}
    refusals: list[NothingToAskError] = []
    for task in asked_tasks(arguments):
        try:
            protocols[task] = _protocol(task, arguments)
        except NothingToAskError as error:
            if "all" not in arguments.task:
                raise
            refusals.append(error)
    if not protocols:
        raise refusals[0]
    return protocols


def _protocol(task: Task, arguments: argparse.Namespace) -> TaskProtocol[Any, Any]:
    """One task on its source."""
    source = _refshapes(task, arguments) if arguments.data == REFSHAPES else _prepared(task, arguments)
    if task == "ris":
        return Referring(source)
    if task == "fss":
        return FewShot(source, arguments.shots or SHOTS, hsnet_size=bool(arguments.hsnet_size))
    if task == "vos":
        # Each set by its own rule: DAVIS's evaluation leaves the first and the last frame out.
        usual: FrameRule = "davis" if str(source.made_of["data"]).startswith("davis2017") else "after-first"
        return VideoObjects(source, arguments.frames or usual)
    return MergedSentences(source, arguments.match or "best") if arguments.merge else VideoSentences(source)


def _refshapes(task: Task, arguments: argparse.Namespace) -> Source[Any]:
    """Episodes that are drawn."""
    shots = max(arguments.shots or SHOTS)
    episodes = arguments.episodes or REFSHAPES_EPISODES
    return SOURCES[task](task, episodes, arguments.style or "textured", shots=shots)


def _prepared(task: Task, arguments: argparse.Namespace) -> Source[Any]:
    """Cases of a prepared split."""
    folder = Path(arguments.data)
    splits = sorted(read_info(folder).splits)
    if arguments.split is None:
        raise ValueError(f"say with --split which split of {folder} is evaluated: one of {splits}")
    place, limit = (folder, arguments.split, arguments.download), arguments.episodes
    if task == "ris":
        return PreparedScenes(*place, episodes=limit)
    if task == "fss":
        shots = max(arguments.shots or SHOTS)
        return PreparedQueries(*place, shots=shots, supports=arguments.supports or "fixed", episodes=limit)
    if task == "vos":
        return PreparedClips(folder, arguments.split, "vos", arguments.download, episodes=limit)
    by_id = bool(arguments.merge)
    return PreparedClips(folder, arguments.split, "rvos", arguments.download, by_id=by_id, episodes=limit)

"""Asking a method about all cases of a protocol, and scoring what it answered: each by any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from sam_uniref.eval.cases import Case, Case_contra
from sam_uniref.eval.methods import Method
from sam_uniref.eval.predictions import Prediction, PredictionStore
from sam_uniref.eval.protocols import TaskProtocol
from sam_uniref.eval.result_folder import write_masks

Score = TypeVar("Score")


class Predictions(Protocol[Case_contra]):
    """Where a case's prediction is read from."""

    @property
    def folder(self) -> Path:
        """Where they are."""

    def read(self, case: Case_contra) -> Prediction:
        """The prediction of a case."""


class StoredPredictions:
    """Those of a store.

    Args:
        store: Of the task.
    """

    def __init__(self, store: PredictionStore) -> None:
        self._store = store

    @property
    def folder(self) -> Path:
        """The store's."""
        return self._store.folder

    def read(self, case: Any) -> Prediction:
        """The prediction of a case."""
        return self._store.read(case.name)


def predict(method: Method, protocol: TaskProtocol[Case, Any], store: PredictionStore, state: PartialState) -> None:
    """Ask about every case that the store does not have; the processes share them.

    Args:
        method: On this process's device.
        protocol: Of the task.
        store: Takes the answers, each when it is there.
        state: The processes.

    Raises:
        ValueError: If the method can't be asked so; with the case's name.
        OSError: If a picture can't be read, or an answer can't be written.
    """
    done = store.cases
    missing = [index for index, name in enumerate(protocol.source.names) if name not in done]
    state.wait_for_everyone()  # no one writes before all have looked
    for index in _progress(missing[state.process_index :: state.num_processes], f"{protocol.task} asked", state):
        case = protocol.source[index]
        try:
            prediction = protocol.ask(method, case)
        except ValueError as error:
            raise ValueError(f"{protocol.task} case {case.name}: {error}") from error
        store.append(state.process_index, case.name, prediction)
    state.wait_for_everyone()
    store.refresh()


def check_countable(protocol: TaskProtocol[Case, Any]) -> None:
    """See that a score will come of it, before anything long begins.

    Raises:
        ValueError: If the true masks are known, but not one would count.
    """
    source = protocol.source
    if source.scored and not any(protocol.counts(source[index]) for index in range(len(source))):
        raise ValueError(
            f"{source.title}: no case has a true mask where {protocol.task} is scored; nothing would count"
        )


def check_predictions(protocol: TaskProtocol[Case, Any], predictions: Predictions[Case], state: PartialState) -> None:
    """Read all predictions once, before anything long begins. All processes end alike.

    Raises:
        ValueError: With what is wrong with the first prediction that can't be scored.
    """
    wrong: list[tuple[int, str]] = []
    mine = range(state.process_index, len(protocol.source), state.num_processes)
    for index in _progress(mine, f"{protocol.task} checked", state):
        case = protocol.source[index]
        try:
            predictions.read(case).check(case.name, case.size, protocol.answers(case))
        except (ValueError, OSError) as error:
            wrong.append((index, str(error)))
            break
    found = gather_object(wrong)
    if found:
        raise ValueError(min(found)[1])


def check_stored(protocol: TaskProtocol[Case, Any], store: PredictionStore) -> None:
    """See that every case is answered.

    Raises:
        ValueError: With the number of those that are not, and the first.
    """
    done = store.cases
    missing = [name for name in protocol.source.names if name not in done]
    if missing:
        raise ValueError(
            f"{store.folder} lacks {len(missing)} of {len(protocol.source)} predictions, the first is of {missing[0]}; "
            "run without --metrics-only to ask for them"
        )


def judge(protocol: TaskProtocol[Case, Score], predictions: Predictions[Case], state: PartialState) -> list[Score]:
    """Scores of all predictions. Each process takes its share of the cases; all of them return the same.

    Raises:
        ValueError: If a prediction is damaged, or not of its case; with the case's name and the folder.
    """

    def judged(case: Case) -> list[Score]:
        try:
            return protocol.judge(case, predictions.read(case))
        except ValueError as error:
            raise ValueError(f"{protocol.task} case {case.name} in {predictions.folder}: {error}") from error

    return _shared(protocol, judged, "scored", state)


def measure(method: Method, protocol: TaskProtocol[Case, Any], state: PartialState) -> dict[str, float]:
    """Metrics of one task without anything stored; the processes share the cases, and return the same.

    Args:
        method: On this process's device.
        protocol: Of the task.
        state: The processes.
    """
    scores = _shared(protocol, lambda case: protocol.judge(case, protocol.ask(method, case)), "scored", state)
    return protocol.summarise(scores)


def write_all_masks(
    folder: Path, protocol: TaskProtocol[Case, Any], predictions: Predictions[Case], state: PartialState
) -> None:
    """All predictions as PNGs; the processes share them."""
    mine = range(state.process_index, len(protocol.source), state.num_processes)
    for index in _progress(mine, f"{protocol.task} written", state):
        case = protocol.source[index]
        write_masks(folder, protocol, case, predictions.read(case))


def _shared(
    protocol: TaskProtocol[Case, Score], scores_of: Callable[[Case], list[Score]], done: str, state: PartialState
) -> list[Score]:
    """Scores of all cases, in the cases' order, so that sums do not depend on the number of processes."""
    mine = range(state.process_index, len(protocol.source), state.num_processes)
    scored = [(index, scores_of(protocol.source[index])) for index in _progress(mine, f"{protocol.task} {done}", state)]
    everything = sorted(gather_object(scored), key=lambda pair: pair[0])
    return [score for _, scores in everything for score in scores]


def _progress(indices: Sequence[int], title: str, state: PartialState) -> Iterable[int]:
    """The indices, with a bar in one of the processes."""
    shown: Iterable[int] = tqdm(indices, desc=title, unit="episode", disable=not state.is_main_process, mininterval=1.0)
    return shown

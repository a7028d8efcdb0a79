"""What all protocols have: asking and scoring are two halves, with a `Prediction` between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from sam_uniref.data.batch import Task
from sam_uniref.eval.cases import Case, Source
from sam_uniref.eval.measures import Metric
from sam_uniref.eval.methods import Method
from sam_uniref.eval.predictions import Prediction

Score = TypeVar("Score")

Row = dict[str, Any]


@dataclass(frozen=True)
class MaskFile:
    """A file that a folder of results by anyone has for a case.

    Attributes:
        path: Below the folder, with forward slashes.
        frame: Number of the frame that it is of; 0 for a picture.
        answers: What each id in it answers.
        binary: Whether it has one mask, of any value; its id is then 1.
        needed: Whether it is scored, and so must be there.
    """

    path: str
    frame: int
    answers: Mapping[int, str]
    binary: bool
    needed: bool = True


class TaskProtocol(ABC, Generic[Case, Score]):
    """A task on the cases of a source.

    Attributes:
        task: Which.
        options: What beside the cases an answer depends on; in JSON's types.

    Args:
        source: Of the cases.
    """

    task: ClassVar[Task]

    def __init__(self, source: Source[Case]) -> None:
        self.source = source
        self.options: dict[str, Any] = {}

    @property
    @abstractmethod
    def conventions(self) -> list[str]:
        """What the metrics mean, in sentences."""

    @abstractmethod
    def ask(self, method: Method, case: Case) -> Prediction:
        """Ask a method about a case. The same for the same method and case, whatever was asked before.

        Raises:
            ValueError: If the method can't be asked so.
        """

    @abstractmethod
    def answers(self, case: Case) -> dict[str, int]:
        """What a prediction of the case has: answers by name, and how many masks each."""

    @abstractmethod
    def files(self, case: Case) -> list[MaskFile]:
        """The files that a folder of results has for the case.

        Raises:
            ValueError: If such a folder can't hold what is asked.
        """

    @abstractmethod
    def counts(self, case: Case) -> bool:
        """Whether anything of a case is scored."""

    @abstractmethod
    def judge(self, case: Case, prediction: Prediction) -> list[Score]:
        """Scores of one case's answers; what has no true mask is left out.

        Raises:
            ValueError: If the prediction is not of this case.
        """

    @abstractmethod
    def measure(self, scores: Sequence[Score]) -> dict[str, Metric]:
        """Metrics by name, of all cases' scores in order.

        Raises:
            ValueError: If there is no score.
        """

    @abstractmethod
    def tables(self, scores: Sequence[Score]) -> dict[str, list[Row]]:
        """What is written for each sample, or object and video: rows by the file's name."""

    @abstractmethod
    def distributions(self, scores: Sequence[Score]) -> dict[str, list[float]]:
        """By what is shown above a histogram: a value a sample, in 0-1; the first is what samples are ranked by."""

    def score(self, method: Method, index: int) -> list[Score]:
        """Ask a method about the case of this number, and score its answers."""
        case = self.source[index]
        return self.judge(case, self.ask(method, case))

    def summarise(self, scores: Sequence[Score]) -> dict[str, float]:
        """The metrics' values alone."""
        return {name: metric.value for name, metric in self.measure(scores).items()}


def at_least_one(scores: Sequence[Any], task: str) -> None:
    """Refuse a mean over nothing."""
    if not scores:
        raise ValueError(f"{task}: there is nothing to score, no case has a true mask where it would count")


def mean(values: Iterable[float]) -> float:
    """The mean of at least one value."""
    listed = list(values)
    return sum(listed) / len(listed)

"""What is wrong with a download: counted by reason, with examples, and never passed over in silence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

# broken: it should not be so, and was left out. by rule: left out as the data set's users do. mended: taken, changed.
Severity = Literal["broken", "by rule", "mended"]

EXAMPLES = 5


@dataclass(frozen=True)
class Problem:
    """One reason.

    Attributes:
        severity: ``broken``, ``by rule`` or ``mended``.
        reason: In a few words.
        count: How often.
        examples: The first few, by name.
    """

    severity: Severity
    reason: str
    count: int
    examples: tuple[str, ...]


class Problems:
    """Counts reasons; small whatever the number of rows, and joined over processes."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[Severity, str]] = Counter()
        self._examples: dict[tuple[Severity, str], list[str]] = defaultdict(list)

    def broken(self, reason: str, example: object) -> None:
        """Something that should be whole was left out."""
        self._add("broken", reason, str(example))

    def by_rule(self, reason: str, example: object) -> None:
        """Something was left out that nobody trains or evaluates on, such as a crowd."""
        self._add("by rule", reason, str(example))

    def mended(self, reason: str, example: object) -> None:
        """Something was taken, but not as it stands."""
        self._add("mended", reason, str(example))

    def _add(self, severity: Severity, reason: str, example: str) -> None:
        key = (severity, reason)
        self._counts[key] += 1
        if len(self._examples[key]) < EXAMPLES:
            self._examples[key].append(example)

    def join(self, other: Problems) -> None:
        """Count another's as well."""
        for key, count in other._counts.items():
            self._counts[key] += count
            self._examples[key] = (self._examples[key] + other._examples[key])[:EXAMPLES]

    def __iter__(self) -> Iterator[Problem]:
        """The worst first, then the most frequent."""
        order: dict[Severity, int] = {"broken": 0, "mended": 1, "by rule": 2}
        for (severity, reason), count in sorted(self._counts.items(), key=lambda kv: (order[kv[0][0]], -kv[1], kv[0])):
            yield Problem(severity, reason, count, tuple(self._examples[severity, reason]))

    @property
    def any_broken(self) -> bool:
        """Whether something was left out that should be whole."""
        return any(severity == "broken" for severity, _ in self._counts)

    def as_json(self) -> list[dict[str, Any]]:
        """Plain containers."""
        return [{**vars(problem), "examples": list(problem.examples)} for problem in self]

    @classmethod
    def from_json(cls, entries: list[Mapping[str, Any]]) -> Problems:
        """What `as_json` gave."""
        problems = cls()
        for entry in entries:
            key = (entry["severity"], entry["reason"])
            problems._counts[key] += entry["count"]
            problems._examples[key] = list(entry["examples"])
        return problems

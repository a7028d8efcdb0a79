"""Episodes of the four tasks from annotated objects, whatever data set they come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.augment import Augmentation
from sam_uniref.data.batch import TASKS, AnnotatedImage, Sample, Task
from sam_uniref.data.objects import (
    STILL,
    AnnotatedObject,
    Members,
    Numbers,
    ObjectList,
    ObjectTable,
    distinct_pictures,
)
from sam_uniref.data.sentences import mirror_sentence, names_position
from sam_uniref.data.shown import FilePicture
from sam_uniref.data.sizes import ShortSides

T = TypeVar("T")

Supports = Literal["fixed", "drawn"]
# Objects that are looked at for one that a sentence does not mean.
_MOST_TRIES = 200


@dataclass
class EpisodeDataset:
    """Draws samples of one task. A sample is a pure function of (index, rng).

    Attributes:
        name: For messages and logs.
        task: ``ris``, ``fss``, ``vos`` or ``rvos``.
        objects: All of them; those held out serve validation.
        shots: Support images of an FSS episode.
        supports: Which those are in evaluation. ``fixed``: the first of the class's other pictures by the order of
            their names as text, so 10 before 2 (UniRef's convention). ``drawn``: any of the others, by the episode's
            number, the same one perhaps twice (HSNet's).
        frame_range: Farthest apart that a VOS pair's frames may be; an object without such a pair makes a
            pseudo-clip, two augmentations of its one frame (paper, appendix B).
        augmentation: In training.
        short_sides: That training looks at pictures with, or None for the model's own.
        boxes: Whether samples say of their targets no more than the box (RIS).
        absent: Share of training samples whose reference is of something else, with an empty target. Teaches to
            follow the reference where pictures hold one object each. Only for data in which one group's object is
            not in another's pictures.
        language_only: In RVOS, share of steps that see the sentence alone (published: 0.4).
        weight: Share of the steps, against those of other data sets.
    """

    name: str
    task: Task
    objects: ObjectTable | Sequence[AnnotatedObject]
    shots: int = 1
    supports: Supports = "fixed"
    frame_range: int = 10
    augmentation: Augmentation = field(default_factory=Augmentation)
    short_sides: ShortSides | None = None
    boxes: bool = False
    absent: float = 0.0
    language_only: float = 0.4
    weight: float = 1.0

    def __post_init__(self) -> None:
        self._check_options()
        self._table: ObjectTable = ObjectList(self.objects) if isinstance(self.objects, Sequence) else self.objects
        columns = self._columns = self._table.columns
        usable = np.flatnonzero(columns.sentences > 0) if self._spoken else np.arange(len(self._table))
        if self.task == "fss":
            usable = usable[distinct_pictures(columns, usable) > self.shots]
        if not len(usable):
            needs = {
                "fss": f"a class with more than {self.shots} annotated pictures",
                "vos": "an annotated object",
                "ris": "an object with a sentence",
                "rvos": "a clip's object with a sentence",
            }
            raise ValueError(f"{self.name}: nothing to train {self.task} on; it needs {needs[self.task]}")
        trained = usable[~columns.held_out[usable]]
        if self.task == "fss":  # nothing that is held out may serve as support
            trained = trained[distinct_pictures(columns, trained) > self.shots]
        held_out = usable[columns.held_out[usable]]
        if not len(trained):
            raise ValueError(f"{self.name}: too much is held out for validation; leave something to train on")
        self._trained = trained
        self._subjects = Members(columns.subject, trained)
        self._groups, self._scenes = Members(columns.group, usable), Members(columns.scene, usable)
        # Every sample is augmented by itself, so no two share a picture.
        self.together, self.classes = 1, 1
        self.validation_split = "validation" if len(held_out) else "training"
        self._set_episodes(held_out if len(held_out) else trained)
        if self.absent and len(self._groups) < 2:
            raise ValueError(f"{self.name}: absent references need at least two classes or objects")

    def _check_options(self) -> None:
        """Refuse what is out of range."""
        if self.task not in TASKS:
            raise ValueError(f"{self.name}: task must be one of {TASKS}, got {self.task!r}")
        if self.shots < 1 or self.weight < 0 or not 0 <= self.absent < 1 or not 0 <= self.language_only <= 1:
            raise ValueError(
                f"{self.name}: shots must be at least 1, weight at least 0, absent in [0, 1) and language_only "
                f"in [0, 1], got {self.shots}, {self.weight}, {self.absent}, {self.language_only}"
            )
        if self.supports not in get_args(Supports):
            raise ValueError(f"{self.name}: supports must be one of {get_args(Supports)}, got {self.supports!r}")
        if self.boxes and self.task != "ris":
            raise ValueError(f"{self.name}: boxes alone serve ris and detection, got {self.task!r}; leave boxes out")

    def __len__(self) -> int:
        """Number of objects to train on; an object of a prepared clip counts once, whichever its frame."""
        return len(self._subjects)

    @cached_property
    def landscape(self) -> NDArray[np.bool_]:
        """``(len(self),)``: which samples' pictures are wider than high."""
        return self._table.landscape[self._subjects.firsts]

    @property
    def _spoken(self) -> bool:
        """Whether the task has sentences."""
        return self.task in ("ris", "rvos")

    # ---- Training ----

    def sample(self, index: int, rng: np.random.Generator, *, language_only: bool = False) -> Sample:
        """A training sample.

        Args:
            index: Which object, 0 to ``len(self) - 1``.
            rng: Its only source of chance.
            language_only: RVOS without the reference frame.
        """
        number = int(self._choose(self._subjects.at(index), rng))
        query = self._table[number]
        pointed = query
        if self.absent and rng.random() < self.absent:
            number, pointed = self._unrelated(number, query, rng)
        absent = pointed is not query
        # The frames of a clip flip together; a support image has nothing to do with its query.
        flip = bool(rng.random() < self.augmentation.flip) if self.task in ("vos", "rvos") else None
        if self.task == "ris" or (self.task == "rvos" and language_only):
            return self._language_sample(query, pointed, (), absent, rng, flip)
        if self.task == "fss":
            supports = self._supports(number, query, rng)
        elif absent:
            supports = [pointed]
        else:
            reference, query = self._frame_pair(number, query, rng)
            supports = [reference]
        references = tuple(AnnotatedImage(*self.augmentation(*s.load(), rng, flip=flip)[:2]) for s in supports)
        if self.task == "rvos":
            return self._language_sample(query, pointed, references, absent, rng, flip)
        image, mask, _ = self.augmentation(*query.load(), rng, flip=flip)
        return Sample(self._title(query, absent), self.task, image, mask & (not absent), None, references)

    def label(self, index: int) -> str:
        """The object of a training sample, by one of its pictures."""
        members = self._subjects.at(index)
        others = f" or another of its {len(members)} frames" if len(members) > 1 else ""
        return f"{self._title(self._table[int(members[0])], absent=False)}{others}"

    def _language_sample(
        self,
        query: AnnotatedObject,
        pointed: AnnotatedObject,
        references: tuple[AnnotatedImage, ...],
        absent: bool,
        rng: np.random.Generator,
        flip: bool | None,
    ) -> Sample:
        """A sample with one of the pointed object's sentences, mirrored with the picture."""
        sentence = str(self._choose(pointed.sentences, rng))
        may_crop = not names_position(sentence)
        image, mask, flipped = self.augmentation(*query.load(), rng, may_crop=may_crop, flip=flip)
        sentence = mirror_sentence(sentence) if flipped else sentence
        sample = Sample(self._title(query, absent), self.task, image, mask & (not absent), sentence, references)
        return sample.with_boxes_alone() if self.boxes else sample

    def _frame_pair(
        self, number: int, query: AnnotatedObject, rng: np.random.Generator
    ) -> tuple[AnnotatedObject, AnnotatedObject]:
        """Two frames of an object within range, the earlier as reference; twice the same frame if there is none."""
        near = self._near(number)
        near = near[~self._columns.held_out[near]]
        if not len(near):
            return query, query
        chosen = int(self._choose(near, rng))
        partner = self._table[chosen]
        earlier = self._columns.frame[chosen] < self._columns.frame[number]
        return (partner, query) if earlier else (query, partner)

    def _near(self, number: int) -> Numbers:
        """The object in other frames within range."""
        frame = self._columns.frame[number]
        others = self._groups.of(self._columns.group[number])
        apart = np.abs(self._columns.frame[others] - frame)
        near = (apart > 0) & (apart <= self.frame_range) & (self._columns.frame[others] != STILL)
        return others[near & (frame != STILL)]

    def _supports(self, pointed: int, query: AnnotatedObject, rng: np.random.Generator) -> list[AnnotatedObject]:
        """Annotated pictures of the pointed object's class, other than the query."""
        members = self._groups.of(self._columns.group[pointed])
        items = [self._table[int(i)] for i in members[~self._columns.held_out[members]]]
        others = [item for item in items if item.image != query.image]
        return [others[i] for i in rng.choice(len(others), self.shots, replace=False)]

    def _unrelated(self, number: int, query: AnnotatedObject, rng: np.random.Generator) -> tuple[int, AnnotatedObject]:
        """An object of another group, not of the query's surroundings, and called something else; else the query."""
        columns = self._columns
        said = self._said(self._scenes.of(columns.scene[number]))
        for _ in range(_MOST_TRIES):
            other = int(self._choose(self._trained, rng))
            elsewhere = columns.group[other] != columns.group[number] and columns.scene[other] != columns.scene[number]
            if elsewhere and said.isdisjoint((item := self._table[other]).spoken):
                return other, item
        return number, query

    def _said(self, members: Numbers) -> set[str]:
        """All sentences of some objects."""
        if not self._spoken:
            return set()
        return set().union(*(self._table[int(number)].spoken for number in members))

    def pictures(self) -> Iterator[FilePicture]:
        """The files that training and validation look at, and what they see of each.

        Raises:
            ValueError: If training sees something else each time.
        """
        if self.augmentation.most_views is None:
            raise ValueError(
                f"data.{self.name}: its pictures never look the same twice, so their features can't be kept; set "
                f"data.{self.name}.views to the number of crops a picture is to have (or crop to 0), scale to [1, 1] "
                "and color to 0"
            )
        # Of what is held out all is shown as it is, but for the reference of a pseudo-clip.
        crop = 1.0 if self.task in ("vos", "rvos") and self.augmentation.views else 0.0
        shown = [(self._trained, self.augmentation)]
        if self.validation_split == "validation" or crop > self.augmentation.crop == 0:
            shown.append((self._validation, replace(self.augmentation, flip=0.0, crop=crop)))
        for numbers, augmentation in shown:
            first = np.unique(self._columns.picture[numbers], return_index=True)[1]
            for number in numbers[np.sort(first)].tolist():
                yield FilePicture(self._table[number].image, augmentation)

    @staticmethod
    def _choose(items: Sequence[T] | Numbers, rng: np.random.Generator) -> T:
        """One of the items."""
        return items[int(rng.integers(len(items)))]

    def _title(self, query: AnnotatedObject, absent: bool) -> str:
        """The sample's name in messages."""
        return f"{self.name}: {query.name}{' (absent reference)' if absent else ''}"

    # ---- Evaluation ----

    def _set_episodes(self, validated: Numbers) -> None:
        """In evaluation each sentence is an episode of its own."""
        counts = self._columns.sentences[validated] if self._spoken else np.ones(len(validated), np.int64)
        self._validation = np.repeat(validated, counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        self._sentence = np.arange(len(self._validation)) - first

    @property
    def episodes(self) -> int:
        """Number of fixed evaluation episodes."""
        return len(self._validation)

    @property
    def can_swap(self) -> bool:
        """Whether there is another object whose reference an episode could take."""
        return len(np.unique(self._columns.group[self._validation])) > 1

    def episode(self, index: int, *, swapped: bool = False) -> Sample:
        """A fixed evaluation episode, without augmentation of the query.

        Args:
            index: 0 to ``episodes - 1``.
            swapped: Take the reference of another object (in the same picture, else the same scene, else
                anywhere). The target stays: a model that follows its reference must now miss it.
        """
        number, query = self.query(index)
        other, pointed = self._other(index) if swapped else (number, query)
        image, mask = query.load()
        sentence = pointed.sentences[0] if self._spoken else None
        references: tuple[AnnotatedImage, ...] = ()
        rng = np.random.default_rng([index, swapped])
        if self.task == "fss":
            references = tuple(AnnotatedImage(*s.load()) for s in self._evaluation_supports(other, query, rng))
        elif self.task in ("vos", "rvos"):
            near = self._near(number)
            earlier = near[self._columns.frame[near] < self._columns.frame[number]]
            frames = earlier if len(earlier) else near  # the first frame has only later ones
            chosen = pointed if swapped or not len(frames) else self._table[int(self._choose(frames, rng))]
            loaded = chosen.load()
            if chosen is query:  # a pseudo-clip must not show the model its own answer in place
                loaded = replace(self.augmentation, crop=1.0)(*loaded, rng, flip=False)[:2]
            references = (AnnotatedImage(*loaded),)
        sample = Sample(f"{self.name}: {query.name}", self.task, image, mask, sentence, references)
        return sample.with_boxes_alone() if self.boxes else sample

    @property
    def queries(self) -> Numbers:
        """``(episodes,)`` int64: of each evaluation episode, the number of its object in the table."""
        return self._validation

    def query(self, index: int) -> tuple[int, AnnotatedObject]:
        """The object of an evaluation episode, with its one sentence; its number in the table comes first."""
        number = int(self._validation[index])
        item = self._table[number]
        if self._spoken:
            item = replace(item, sentences=(item.sentences[int(self._sentence[index])],))
        return number, item

    def supports_of(self, index: int) -> list[AnnotatedObject]:
        """The annotated pictures of an FSS evaluation episode, not loaded; as many as there are shots."""
        return self._evaluation_supports(*self.query(index), np.random.default_rng([index, False]))

    def _evaluation_supports(
        self, pointed: int, query: AnnotatedObject, rng: np.random.Generator
    ) -> list[AnnotatedObject]:
        """Support pictures of an episode, by the convention that is asked for."""
        members = [self._table[int(i)] for i in self._groups.of(self._columns.group[pointed])]
        others = [item for item in members if item.image != query.image]
        if self.supports == "drawn":
            return [others[int(i)] for i in rng.integers(len(others), size=self.shots)]
        return sorted(others, key=lambda item: item.image.as_posix())[: self.shots]

    def _other(self, index: int) -> tuple[int, AnnotatedObject]:
        """The next object that is not the query's, as near to it as there is one."""
        group = self._columns.group[self._validation[index]]
        # A sentence that is said of the query's object as well would not be a swap.
        said = self._said(self._groups.of(group))
        nearest: int | None = None
        for tries, place in enumerate(self._by_nearness(index)):
            number, item = self.query(place)
            if said.isdisjoint(item.spoken):
                return number, item
            nearest = place if nearest is None else nearest
            if tries == _MOST_TRIES:
                break
        if nearest is None:
            raise ValueError(f"{self.name}: references can't be swapped, there is only one class or object")
        return self.query(nearest)

    def _by_nearness(self, index: int) -> Iterator[int]:
        """Episodes of other groups, from the next one on: of the same picture, then of the same scene, then all."""
        columns, query = self._columns, self._validation[index]
        around = np.roll(np.arange(self.episodes), -index - 1)[:-1]
        others = around[columns.group[self._validation[around]] != columns.group[query]]
        for column in (columns.picture, columns.scene):
            yield from others[column[self._validation[others]] == column[query]].tolist()
        yield from others.tolist()

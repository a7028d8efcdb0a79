"""Episodes of the four tasks from a list of annotated objects, whatever data set they come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from sam_uniref.data.augment import Augmentation
from sam_uniref.data.batch import TASKS, AnnotatedImage, Sample, Task
from sam_uniref.data.sentences import mirror_sentence, names_position
from sam_uniref.images import RGB, Mask, load_image, load_mask

T = TypeVar("T")


@dataclass(frozen=True)
class AnnotatedObject:
    """One object in one picture, on disk.

    Attributes:
        image: The picture's file.
        mask: The mask's file: a palette PNG's ids, or a binary picture.
        object_id: Which id of the mask.
        group: What may serve as its reference: its class (FSS) or its clip and object (VOS).
        scene: What shares its surroundings: its clip, or its own picture.
        frame: Number of the frame in its clip, or None for a still.
        sentences: What names it.
        held_out: Whether it is kept for validation.
    """

    image: Path
    mask: Path
    object_id: int
    group: str
    scene: str
    frame: int | None = None
    sentences: tuple[str, ...] = ()
    held_out: bool = False

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.image} object {self.object_id}"

    def load(self) -> tuple[RGB, Mask]:
        """Picture and mask.

        Raises:
            FileNotFoundError: If a file is not there.
            ValueError: If a file is broken, empty or of another size.
        """
        return _load_cached(self.image, self.mask, self.object_id)


@lru_cache(maxsize=32)
def _load_cached(image: Path, mask: Path, object_id: int) -> tuple[RGB, Mask]:
    """Decoded pictures: small sets fit whole, big ones cost 32 pictures of memory a worker."""
    picture = load_image(image)
    return picture, load_mask(mask, (picture.shape[0], picture.shape[1]), object_id=object_id)


@dataclass
class EpisodeDataset:
    """Draws samples of one task. A sample is a pure function of (index, rng).

    Attributes:
        name: For messages and logs.
        task: ``ris``, ``fss``, ``vos`` or ``rvos``.
        objects: All of them; those held out serve validation.
        shots: Support images of an FSS episode.
        frame_range: Farthest apart that a VOS pair's frames may be; an object without such a pair makes a
            pseudo-clip, two augmentations of its one frame (paper, appendix B).
        augmentation: In training.
        absent: Share of training samples whose reference is of something else, with an empty target. Teaches to
            follow the reference where pictures hold one object each. Only for data in which one group's object is
            not in another's pictures.
        language_only: In RVOS, share of steps that see the sentence alone (published: 0.4).
        weight: Share of the steps, against those of other data sets.
    """

    name: str
    task: Task
    objects: Sequence[AnnotatedObject]
    shots: int = 1
    frame_range: int = 10
    augmentation: Augmentation = field(default_factory=Augmentation)
    absent: float = 0.0
    language_only: float = 0.4
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"{self.name}: task must be one of {TASKS}, got {self.task!r}")
        if self.shots < 1 or self.weight < 0 or not 0 <= self.absent < 1 or not 0 <= self.language_only <= 1:
            raise ValueError(
                f"{self.name}: shots must be at least 1, weight at least 0, absent in [0, 1) and language_only "
                f"in [0, 1], got {self.shots}, {self.weight}, {self.absent}, {self.language_only}"
            )
        usable = [o for o in self.objects if o.sentences] if self.task in ("ris", "rvos") else list(self.objects)
        self._groups: dict[str, list[AnnotatedObject]] = defaultdict(list)
        for item in usable:
            self._groups[item.group].append(item)
        # What is said of a group's object, and of all that shares a scene: no sentence of theirs is another's.
        self._said_of: dict[str, set[str]] = defaultdict(set)
        self._said_in: dict[str, set[str]] = defaultdict(set)
        for item in usable:
            self._said_of[item.group] |= _spoken(item)
            self._said_in[item.scene] |= _spoken(item)
        if self.task == "fss":
            usable = [o for o in usable if len({p.image for p in self._groups[o.group]}) > self.shots]
        if not usable:
            needs = {
                "fss": f"a class with more than {self.shots} annotated pictures",
                "vos": "an annotated object",
                "ris": "an object with a sentence",
                "rvos": "a clip's object with a sentence",
            }
            raise ValueError(f"{self.name}: nothing to train {self.task} on; it needs {needs[self.task]}")
        self._train = [o for o in usable if not o.held_out]
        if self.task == "fss":  # nothing that is held out may serve as support
            self._train = [o for o in self._train if len(self._trained_pictures(o.group)) > self.shots]
        held_out = [o for o in usable if o.held_out]
        # Every sample is augmented by itself, so no two share a picture.
        self.together = 1
        self.validation_split = "validation" if held_out else "training"
        self._validation = self._with_each_sentence(held_out or self._train)
        if not self._train:
            raise ValueError(f"{self.name}: too much is held out for validation; leave something to train on")
        if self.absent and len({o.group for o in usable}) < 2:
            raise ValueError(f"{self.name}: absent references need at least two classes or objects")

    def __len__(self) -> int:
        """Number of objects to train on."""
        return len(self._train)

    def _trained_pictures(self, group: str) -> set[Path]:
        """A group's pictures that are not held out."""
        return {o.image for o in self._groups[group] if not o.held_out}

    def _with_each_sentence(self, objects: Sequence[AnnotatedObject]) -> list[AnnotatedObject]:
        """In evaluation each sentence is an episode of its own."""
        if self.task not in ("ris", "rvos"):
            return list(objects)
        return [replace(o, sentences=(sentence,)) for o in objects for sentence in o.sentences]

    # ---- Training ----

    def sample(self, index: int, rng: np.random.Generator, *, language_only: bool = False) -> Sample:
        """A training sample.

        Args:
            index: Which object, 0 to ``len(self) - 1``.
            rng: Its only source of chance.
            language_only: RVOS without the reference frame.
        """
        query = self._train[index]
        pointed = query
        if self.absent and rng.random() < self.absent:
            pointed = self._choose([o for o in self._train if self._unrelated(o, query)] or [query], rng)
        absent = pointed is not query
        # The frames of a clip flip together; a support image has nothing to do with its query.
        flip = bool(rng.random() < self.augmentation.flip) if self.task in ("vos", "rvos") else None
        if self.task == "ris" or (self.task == "rvos" and language_only):
            return self._language_sample(query, pointed, (), absent, rng, flip)
        if self.task == "fss":
            supports = self._supports(pointed, query, rng)
        elif absent:
            supports = [pointed]
        else:
            reference, query = self._frame_pair(query, rng)
            supports = [reference]
        references = tuple(AnnotatedImage(*self.augmentation(*s.load(), rng, flip=flip)[:2]) for s in supports)
        if self.task == "rvos":
            return self._language_sample(query, pointed, references, absent, rng, flip)
        image, mask, _ = self.augmentation(*query.load(), rng, flip=flip)
        return Sample(self._title(query, absent), self.task, image, mask & (not absent), None, references)

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
        return Sample(self._title(query, absent), self.task, image, mask & (not absent), sentence, references)

    def _frame_pair(self, query: AnnotatedObject, rng: np.random.Generator) -> tuple[AnnotatedObject, AnnotatedObject]:
        """Two frames of an object within range, the earlier as reference; twice the same frame if there is none."""
        near = [o for o in self._near(query) if not o.held_out]
        if not near:
            return query, query
        partner = self._choose(near, rng)
        return (partner, query) if _frame(partner) < _frame(query) else (query, partner)

    def _near(self, query: AnnotatedObject) -> list[AnnotatedObject]:
        """The object in other frames within range."""
        if query.frame is None:
            return []
        others = [o for o in self._groups[query.group] if o.frame is not None and o.frame != query.frame]
        return [o for o in others if abs(_frame(o) - query.frame) <= self.frame_range]

    def _supports(
        self, pointed: AnnotatedObject, query: AnnotatedObject, rng: np.random.Generator
    ) -> list[AnnotatedObject]:
        """Annotated pictures of the pointed object's class, other than the query."""
        others = [o for o in self._groups[pointed.group] if o.image != query.image and not o.held_out]
        return [others[i] for i in rng.choice(len(others), self.shots, replace=False)]

    def _unrelated(self, item: AnnotatedObject, query: AnnotatedObject) -> bool:
        """Whether an object is of another group, not of the query's surroundings, and called something else."""
        elsewhere = item.group != query.group and item.scene != query.scene
        return elsewhere and self._said_in[query.scene].isdisjoint(_spoken(item))

    @staticmethod
    def _choose(items: Sequence[T], rng: np.random.Generator) -> T:
        """One of the items."""
        return items[int(rng.integers(len(items)))]

    def _title(self, query: AnnotatedObject, absent: bool) -> str:
        """The sample's name in messages."""
        return f"{self.name}: {query.name}{' (absent reference)' if absent else ''}"

    # ---- Evaluation ----

    @property
    def episodes(self) -> int:
        """Number of fixed evaluation episodes."""
        return len(self._validation)

    @property
    def can_swap(self) -> bool:
        """Whether there is another object whose reference an episode could take."""
        return len({o.group for o in self._validation}) > 1

    def episode(self, index: int, *, swapped: bool = False) -> Sample:
        """A fixed evaluation episode, without augmentation of the query.

        Args:
            index: 0 to ``episodes - 1``.
            swapped: Take the reference of another object (in the same picture, else the same scene, else
                anywhere). The target stays: a model that follows its reference must now miss it.
        """
        query = self._validation[index]
        pointed = self._other(query) if swapped else query
        image, mask = query.load()
        sentence = pointed.sentences[0] if self.task in ("ris", "rvos") else None
        references: tuple[AnnotatedImage, ...] = ()
        rng = np.random.default_rng([index, swapped])
        if self.task == "fss":
            supports = [o for o in self._groups[pointed.group] if o.image != query.image][: self.shots]
            references = tuple(AnnotatedImage(*support.load()) for support in supports)
        elif self.task in ("vos", "rvos"):
            near = self._near(query)
            frames = [o for o in near if _frame(o) < _frame(query)] or near  # the first frame has only later ones
            reference = pointed if swapped or not frames else self._choose(frames, rng)
            loaded = reference.load()
            if reference is query:  # a pseudo-clip must not show the model its own answer in place
                loaded = replace(self.augmentation, crop=1.0)(*loaded, rng, flip=False)[:2]
            references = (AnnotatedImage(*loaded),)
        return Sample(f"{self.name}: {query.name}", self.task, image, mask, sentence, references)

    def _other(self, query: AnnotatedObject) -> AnnotatedObject:
        """The next object that is not the query's, as near to it as there is one."""
        start = self._validation.index(query)
        rest = self._validation[start + 1 :] + self._validation[:start]
        others = [o for o in rest if o.group != query.group]
        # A sentence that is said of the query's object as well would not be a swap.
        different = [o for o in others if self._said_of[query.group].isdisjoint(_spoken(o))] or others
        nearness = [
            [o for o in different if o.image == query.image],
            [o for o in different if o.scene == query.scene],
            different,
        ]
        chosen = next((near[0] for near in nearness if near), None)
        if chosen is None:
            raise ValueError(f"{self.name}: references can't be swapped, there is only one class or object")
        return chosen


def _frame(item: AnnotatedObject) -> int:
    """The number of an object's frame; a still is a clip of one."""
    return item.frame or 0


def _spoken(item: AnnotatedObject) -> set[str]:
    """An object's sentences, as they are compared."""
    return {" ".join(sentence.lower().split()) for sentence in item.sentences}

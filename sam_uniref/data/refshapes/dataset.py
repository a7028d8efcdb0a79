"""RefShapes: an embedded data set of the four tasks, drawn on the fly.

A sample is a pure function of (seed, split, index); the streams of training and validation never meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.batch import TASKS, AnnotatedImage, Sample, Task
from sam_uniref.data.detection import detection_sample
from sam_uniref.data.instances import PictureObjects
from sam_uniref.data.refshapes.clips import REFERENCE_VISIBLE, TARGET_VISIBLE, Clip, crowded_pairs, draw_clip, draw_name
from sam_uniref.data.refshapes.doodles import DOODLES, doodle
from sam_uniref.data.refshapes.drawn import SPLITS, DrawnPicture, Split, drawn_pictures
from sam_uniref.data.refshapes.draws import Draws
from sam_uniref.data.refshapes.fewshot import ClassScene, draw_class_scene, draw_shared_scene
from sam_uniref.data.refshapes.language import draw_description
from sam_uniref.data.refshapes.named import NamedClip, NamedScene
from sam_uniref.data.refshapes.palette import STYLES, Style
from sam_uniref.data.refshapes.scene import Scene, ShapeObject, checked_side, draw_scene, render
from sam_uniref.data.refshapes.shapes import SEEN_SHAPES, UNSEEN_SHAPES
from sam_uniref.data.refshapes.wording import word
from sam_uniref.data.sizes import ShortSides
from sam_uniref.images import RGB

T = TypeVar("T")

_Support = tuple[RGB, NDArray[np.uint8], dict[str, int]]
"""A support's picture, its map of numbers, and each shape's number in it."""

# Streams of chance: what is drawn for one purpose must not move with another.
_SCENE, _CLASSES, _CLIP, _TARGET, _SUPPORTS, _SAMPLE, _DOODLES = range(7)


@dataclass
class RefShapesDataset:
    """Samples of one task, with the interface of `EpisodeDataset`.

    Attributes:
        name: For messages and logs.
        task: ``ris``, ``fss``, ``vos``, ``rvos``, or ``detection`` of the scenes that sentences are about.
        seed: Of everything that is drawn.
        side: Of the pictures in pixels.
        shots: Support images of an FSS episode.
        frames: Of a clip.
        frame_range: Farthest apart that a VOS pair's frames may be.
        absent: Share of VOS and RVOS training samples whose object is not in the query: an empty target.
        language_only: In RVOS, share of steps that see the sentence alone.
        together: Training samples of one picture (FSS: query; VOS, RVOS: pair of frames), each about another object
            where there are enough of them: picture i is that of samples ``i * together`` and on. FSS: two by two they
            have the same supports.
        short_sides: That training looks at pictures with, or None for the model's own.
        boxes: Whether samples of ``ris`` and ``detection`` say of their objects no more than the boxes.
        one_class: Whether detection has one class; by default each of `SEEN_SHAPES` is one, in this order.
        weight: Share of the steps, against those of other data sets.
        style: ``textured``, or ``plain``: an independent way to draw and to word, kept out of training.
        length: Number of training samples.
        episodes: Number of fixed evaluation episodes.
    """

    name: str
    task: Task
    seed: int = 0
    side: int = 128
    shots: int = 1
    frames: int = 12
    frame_range: int = 10
    absent: float = 0.05
    language_only: float = 0.4
    together: int = 1
    short_sides: ShortSides | None = None
    boxes: bool = False
    one_class: bool = False
    weight: float = 1.0
    style: Style = "textured"
    length: int = 1_000_000
    episodes: int = 200

    def __post_init__(self) -> None:
        if self.task not in (*TASKS, "detection"):
            raise ValueError(f"{self.name}: task must be one of {(*TASKS, 'detection')}, got {self.task!r}")
        if self.boxes and self.task not in ("ris", "detection"):
            raise ValueError(f"{self.name}: boxes alone serve ris and detection, got {self.task!r}; leave boxes out")
        if self.style not in STYLES:
            raise ValueError(f"{self.name}: style must be one of {STYLES}, got {self.style!r}")
        lowest = {"shots": 1, "frames": 4, "frame_range": 1, "together": 1, "length": 1, "episodes": 1}
        lowest |= {"seed": 0, "weight": 0}
        for field, low in lowest.items():
            if getattr(self, field) < low:
                raise ValueError(f"{self.name}: {field} must be at least {low}, got {getattr(self, field)}")
        for field in ("absent", "language_only"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{self.name}: {field} must be in [0, 1], got {getattr(self, field)}")
        if self.together > self.length:
            raise ValueError(f"{self.name}: together must be at most length, {self.length}, got {self.together}")
        checked_side(self.side)
        self.validation_split = "validation"
        # The picture drawn last, which the next sample may be about too.
        self._last: tuple[object, Any] = (None, None)
        # Every scene has a second object, so that every episode has a reference to swap in.
        self.can_swap = self.task != "detection"
        self.classes = len(SEEN_SHAPES) if self.task == "detection" and not self.one_class else 1
        self.landscape = None  # all are square

    def __len__(self) -> int:
        """Number of training samples."""
        return self.length

    def _draws(self, split: Split, purpose: int, index: int, attempt: int = 0) -> Draws:
        """The stream of one purpose of one sample."""
        return Draws(self.seed, SPLITS.index(split), STYLES.index(self.style), purpose, index, attempt)

    # ---- Training and evaluation samples ----

    def sample(self, index: int, rng: np.random.Generator | None = None, *, language_only: bool = False) -> Sample:
        """A training sample.

        Args:
            index: 0 to ``len(self) - 1``.
            rng: Not used: a sample is a function of the seed and the index alone. Here for `EpisodeDataset`'s sake.
            language_only: RVOS without the reference frame.

        Raises:
            ValueError: If the style is the one that is kept out of training, or the index is out of range.
        """
        if self.style != "textured":
            raise ValueError(f"{self.name}: the {self.style} style is for evaluation; train on style='textured'")
        if not 0 <= index < self.length:
            raise ValueError(f"{self.name}: index must be in 0-{self.length - 1}, got {index}")
        return self._draw("train", index, swapped=False, language_only=language_only)

    def label(self, index: int) -> str:
        """A training sample's name."""
        return self._title("train", index)

    def episode(self, index: int, *, swapped: bool = False, language_only: bool = False) -> Sample:
        """A fixed evaluation episode.

        Args:
            index: 0 to ``episodes - 1``.
            swapped: Take the reference of another object of the same scene. The target stays: a model that follows
                its reference must now miss it.
            language_only: RVOS without the reference frame.

        Raises:
            ValueError: If the index is out of range.
        """
        self._check_episode(index)
        return self._draw("validation", index, swapped=swapped, language_only=language_only)

    def _check_episode(self, index: int) -> None:
        if not 0 <= index < self.episodes:
            raise ValueError(f"{self.name}: index must be in 0-{self.episodes - 1}, got {index}")

    def _draw(self, split: Split, index: int, *, swapped: bool, language_only: bool) -> Sample:
        """A sample of the task."""
        if self.task in ("ris", "detection"):
            detects = self.task == "detection"
            sample = self._detected(split, index) if detects else self._referring(split, index, swapped)
            return sample.with_boxes_alone() if self.boxes else sample
        if self.task == "fss":
            return self._few_shot(split, index, swapped)
        return self._video(split, index, swapped, language_only)

    def pictures(self) -> Iterator[DrawnPicture]:
        """What training and validation look at; each is drawn when its views are asked for."""
        return drawn_pictures(self)

    def _title(self, split: Split, index: int) -> str:
        """The sample's name in messages."""
        return f"{self.name}: refshapes {split} {index}"

    def _once(self, key: object, draw: Callable[[], T]) -> T:
        """What was drawn last if it is what is asked for, else drawn now."""
        if self._last[0] != key:
            self._last = (key, draw())
        drawn: T = self._last[1]
        return drawn

    def _picture(self, split: Split, index: int) -> tuple[int, int]:
        """A sample's picture and its place among the samples of that picture."""
        return divmod(index, self.together) if split == "train" else (index, 0)

    # ---- Sentences ----

    def scene(self, index: int, split: Split = "train") -> Scene:
        """The scene of a sample of referring segmentation; also what points, boxes and masks may be asked of."""
        return self._described(split, index)[0]

    def _described(self, split: Split, index: int, wanted: int = 2) -> tuple[Scene, list[tuple[int, str]]]:
        """A scene with so many sentences (at least 2), of as many objects as can be told apart, the target first."""
        for attempt in count():
            scene = draw_scene(self._draws(split, _SCENE, index, attempt), self.style)
            draws = self._draws(split, _TARGET, index, attempt)
            order = draws.shuffled(range(len(scene.objects)))
            said = self._sentences(draws, scene, order, wanted)
            while 2 <= len(said) < wanted:
                said += self._sentences(draws, scene, order, wanted - len(said))
            if len(said) >= 2:
                return scene, said
        raise AssertionError("unreachable: scenes are drawn until one can be spoken of")

    def _sentences(self, draws: Draws, scene: Scene, order: Sequence[int], most: int) -> list[tuple[int, str]]:
        """A sentence an object, for as many objects in order as can be told apart."""
        said: list[tuple[int, str]] = []
        for k in order:
            description = draw_description(draws, scene.objects, k, self.style)
            if description is not None:
                said.append((k, word(description, draws, self.style)))
            if len(said) == most:
                break
        return said

    def _referring(self, split: Split, index: int, swapped: bool) -> Sample:
        """A picture and a sentence."""
        picture, place = self._picture(split, index)

        def draw() -> tuple[list[tuple[int, str]], RGB, NDArray[np.uint8]]:
            scene, said = self._described(split, picture, max(2, self.together))
            return said, *render(scene, self.side)

        said, image, ids = self._once((split, picture), draw)
        return Sample(self._title(split, index), self.task, image, ids == said[place][0] + 1, said[place + swapped][1])

    def scene_sentences(self, index: int, split: Split = "validation") -> NamedScene:
        """A scene with up to three sentences an object; those of the episode of this index are among them.

        Args:
            index: 0 to ``episodes - 1`` in validation.
            split: Of the stream.

        Raises:
            ValueError: If the index is out of range.
        """
        if split == "validation":
            self._check_episode(index)
        scene, said = self._described(split, index)
        draws = self._draws(split, _SUPPORTS, index)
        for k in range(len(scene.objects)):
            for _ in range(2):
                description = draw_description(draws, scene.objects, k, self.style)
                if description is not None:
                    said.append((k, word(description, draws, self.style)))
        image, ids = render(scene, self.side)
        return NamedScene(image, ids, tuple(dict.fromkeys((k + 1, text) for k, text in sorted(said))))

    def _detected(self, split: Split, index: int) -> Sample:
        """A picture and all that is in it."""
        scene = self.scene(index, split)
        image, ids = render(scene, self.side)
        masks = np.stack([ids == k + 1 for k in range(len(scene.objects))])
        labels = np.array([SEEN_SHAPES.index(item.shape) for item in scene.objects])
        objects = PictureObjects.of_masks(masks, labels)
        return detection_sample(self._title(split, index), image, objects, one_class=self.one_class)

    # ---- Annotated examples ----

    def _few_shot(self, split: Split, index: int, swapped: bool) -> Sample:
        """A query and K supports of its class; swapped, of the class of another object in the query."""
        picture, place = self._picture(split, index)
        shapes = self._shapes(split, picture)
        draws = self._draws(split, _CLASSES, picture)
        shape = draws.choice(shapes)
        first = self._supports(split, index - place, shape, shapes)[0]
        model = first.scene.objects[first.target]
        if draws.chance(0.5):
            query = draw_class_scene(draws, self.style, shape, shapes, (1, 4), like=model)
        else:
            lure = model if draws.chance(0.6) else None
            query = draw_class_scene(draws, self.style, shape, shapes, (1, 4), lure=lure)
        targets = query.classes()
        target = targets[place % len(targets)]
        shape = query.scene.objects[target].shape
        pointed = next(o.shape for o in query.scene.objects if o.shape != shape) if swapped else shape
        image, ids = render(query.scene, self.side)
        if split == "train" and self.together > 1:
            pair = place - place % 2
            two = dict.fromkeys(query.scene.objects[targets[(pair + k) % len(targets)]].shape for k in range(2))
            like = model if pair == 0 else None
            supports = self._once((picture, pair), lambda: self._shared_supports(picture, pair, [*two], shapes, like))
        else:
            supports = [self._pictured(drawn.scene) for drawn in self._supports(split, index, pointed, shapes)]
        references = tuple(AnnotatedImage(seen, numbers == marked[pointed]) for seen, numbers, marked in supports)
        title = f"{self._title(split, index)} {shape}"
        return Sample(title, self.task, image, ids == target + 1, None, references)

    def _shapes(self, split: Split, picture: int) -> tuple[str, ...]:
        """Classes of an episode: in training the named shapes and as many doodles, in validation the unseen shapes."""
        if split == "validation":
            return UNSEEN_SHAPES
        draws = self._draws(split, _DOODLES, picture)
        return SEEN_SHAPES + tuple(doodle(draws.below(DOODLES)) for _ in SEEN_SHAPES)

    def _supports(self, split: Split, index: int, shape: str, shapes: Sequence[str]) -> list[ClassScene]:
        """K scenes with a shape, each with at most two objects of other shapes."""
        draws = self._draws(split, _SUPPORTS, index)
        return [draw_class_scene(draws, self.style, shape, shapes, (0, 2)) for _ in range(self.shots)]

    def _shared_supports(
        self, picture: int, pair: int, wanted: Sequence[str], shapes: Sequence[str], like: ShapeObject | None
    ) -> list[_Support]:
        """K scenes that two samples of a picture take, with the shapes of both, so that the mask alone tells which.

        Not all samples of it: an object that is asked for must be told also from those that no support shows.
        """
        draws = self._draws("train", _SUPPORTS, picture, pair)
        return [self._pictured(draw_shared_scene(draws, self.style, wanted, shapes, like)) for _ in range(self.shots)]

    def _pictured(self, scene: Scene) -> _Support:
        """A scene as a support."""
        image, ids = render(scene, self.side)
        return image, ids, {item.shape: number for number, item in enumerate(scene.objects, start=1)}

    # ---- Clips ----

    def _video(self, split: Split, index: int, swapped: bool, language_only: bool) -> Sample:
        """Two frames of a clip, the earlier as reference."""
        picture, place = self._picture(split, index)
        for attempt in count():
            clip = self._once((split, picture, attempt), partial(self._clip, split, picture, attempt))
            own = self._draws(split, _SAMPLE, index, attempt)
            absent = split == "train" and own.chance(self.absent)
            pairs = self._pairs(clip, absent)
            if not pairs:
                continue
            if split == "train" and not absent:
                pairs = crowded_pairs(pairs, self.together)
            # All samples of a picture take one pair of frames; an absent object may need another.
            first, early, late = (own if absent else self._draws(split, _TARGET, picture, attempt)).choice(pairs)
            seen = [first, *(k for k, *frames in pairs if frames == [early, late] and k != first)]
            k = seen[place % len(seen)]
            others = [o for o, share in enumerate(clip.shares[early]) if o != k and share >= REFERENCE_VISIBLE]
            if not others and split == "validation":
                continue
            pointed = own.choice(others) if swapped else k
            removed = k if absent and clip.shares[late][k] > 0 else None
            image, ids = clip.render(late, self.side, without=removed)
            references: tuple[AnnotatedImage, ...] = ()
            if self.task == "vos" or not language_only:
                before, marked = clip.render(early, self.side)
                references = (AnnotatedImage(before, marked == pointed + 1),)
            sentence = None
            if self.task == "rvos":
                sentence = word(draw_name(own, clip, pointed, self.style), own, self.style)
            title = f"{self._title(split, index)} frames {early} {late}{' (absent)' if absent else ''}"
            return Sample(title, self.task, image, ids == k + 1, sentence, references)
        raise AssertionError("unreachable: clips are drawn until one has a pair of frames")

    def _clip(self, split: Split, picture: int, attempt: int = 0) -> Clip:
        """A clip to take frames from."""
        return draw_clip(self._draws(split, _CLIP, picture, attempt), self.style, self.frames)

    def _pairs(self, clip: Clip, absent: bool) -> list[tuple[int, int, int]]:
        """Object, earlier and later frame within range; the object is seen in the later one, or is to be gone."""
        pairs = [
            (k, early, late)
            for k in range(len(clip.objects))
            for early in range(clip.frames)
            if clip.shares[early][k] >= REFERENCE_VISIBLE
            for late in range(early + 1, min(clip.frames, early + self.frame_range + 1))
        ]
        if not absent:
            return [(k, early, late) for k, early, late in pairs if clip.shares[late][k] >= TARGET_VISIBLE]
        # Better gone by itself; if nothing leaves this clip, any object may be taken out of the later frame.
        return [(k, early, late) for k, early, late in pairs if clip.shares[late][k] == 0] or pairs

    def clip(self, index: int, split: Split = "validation") -> NamedClip:
        """A whole clip with its objects' masks, first frames and sentences.

        Args:
            index: 0 to ``episodes - 1`` in validation.
            split: Of the stream.

        Raises:
            ValueError: If the index is out of range.
        """
        if split == "validation":
            self._check_episode(index)
        clip = self._clip(split, index)
        draws = self._draws(split, _SUPPORTS, index)
        order = sorted(range(len(clip.objects)), key=lambda k: clip.objects[k].first)
        frames, drawn = clip.film(self.side)
        numbers = np.zeros(len(order) + 1, np.uint8)
        numbers[np.array(order) + 1] = np.arange(1, len(order) + 1)
        sentences = {}
        for number, k in enumerate(order, start=1):
            said = [word(draw_name(draws, clip, k, self.style), draws, self.style) for _ in range(2)]
            sentences[number] = tuple(dict.fromkeys(said))
        first_frames = {number: clip.objects[k].first for number, k in enumerate(order, start=1)}
        return NamedClip(frames, numbers[drawn], first_frames, sentences)

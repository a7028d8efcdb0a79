"""The four tasks on RefShapes validation: its episodes as cases, and the protocols over them.

| task | case | asked | scored |
|---|---|---|---|
| ris | a scene | every sentence about it | each sentence |
| fss | a scene with a shape held out from training | with 1 and with 5 annotated scenes of it | the shape's mask |
| vos | a clip | its objects, each with its mask in the frame where it appears | later frames, to the last |
| rvos | a clip | every sentence about it, each by itself | every frame |

A case is named by its number in five digits, a sentence of a scene by that and its own number: ``00003_1``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic

from sam_uniref.data.batch import TASKS, Task
from sam_uniref.data.prepared import encode_mask
from sam_uniref.data.refshapes import UNSEEN_SHAPES, NamedClip, RefShapesDataset, Style
from sam_uniref.eval.cases import Case, Clip, ClipObject, Query, Sentence, SpokenImage
from sam_uniref.eval.protocols import FewShot, Referring, TaskProtocol, VideoObjects, VideoSentences
from sam_uniref.eval.protocols.few_shot import SHOTS
from sam_uniref.reference import MaskReference


class RefShapesCases(ABC, Generic[Case]):
    """The first validation episodes of RefShapes as cases.

    Attributes:
        data: Of the task.

    Args:
        task: That is asked.
        episodes: How many scenes or clips.
        style: ``textured`` as in training, or ``plain``, which no training has seen.
        shots: Annotated scenes of an FSS episode.
    """

    scored = True

    def __init__(self, task: Task, episodes: int, style: Style = "textured", *, shots: int = max(SHOTS)) -> None:
        self.data = RefShapesDataset("refshapes", task, shots=shots, style=style, episodes=episodes)
        self.names: Sequence[str] = [f"{index:05d}" for index in range(episodes)]
        self.title = f"RefShapes validation, {style}"
        self.made_of: Mapping[str, Any] = {"data": "refshapes", "split": "validation", "style": style}

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def __getitem__(self, index: int) -> Case:
        """One case."""

    def check_pictures(self) -> None:
        """Nothing is read: scenes are drawn."""


class Scenes(RefShapesCases[SpokenImage]):
    """RIS: scenes with all that is said of them."""

    def __getitem__(self, index: int) -> SpokenImage:
        name, scene = self.names[index], self.data.scene_sentences(index)
        sentences = tuple(
            Sentence(f"{name}_{number}", text, encode_mask(scene.ids == object_id))
            for number, (object_id, text) in enumerate(scene.sentences)
        )
        return SpokenImage(name, (self.data.side, self.data.side), lambda: scene.image, sentences)


class Queries(RefShapesCases[Query]):
    """FSS: scenes with a shape that no training has."""

    def __getitem__(self, index: int) -> Query:
        sample = self.data.episode(index)
        shape = sample.name.rsplit(maxsplit=1)[-1]
        if shape not in UNSEEN_SHAPES:
            raise ValueError(f"{sample.name}: not an episode of one of {UNSEEN_SHAPES}")
        supports = [MaskReference(support.image, support.mask) for support in sample.references]
        mask = encode_mask(sample.mask)
        return Query(self.names[index], mask.size, lambda: sample.image, shape, mask, lambda: supports)


class Clips(RefShapesCases[Clip]):
    """VOS and RVOS: clips."""

    def __getitem__(self, index: int) -> Clip:
        return clip_case(self.names[index], self.data.clip(index))


def clip_case(name: str, clip: NamedClip) -> Clip:
    """A drawn clip as a case of this name."""
    objects = []
    for object_id, first in clip.first_frames.items():
        masks = {frame: ids == object_id for frame, ids in enumerate(clip.ids)}
        said = {f"{object_id}_{number}": text for number, text in enumerate(clip.sentences[object_id])}
        seen = {frame: encode_mask(mask) for frame, mask in masks.items() if mask.any()}
        objects.append(ClipObject(object_id, first, seen, said))
    count, size = len(clip.frames), (clip.ids.shape[1], clip.ids.shape[2])
    stems = tuple(f"{frame:05d}" for frame in range(count))
    return Clip(name, size, stems, lambda frame: clip.frames[frame], tuple(range(count)), tuple(objects))


SOURCES: dict[Task, type[RefShapesCases[Any]]] = {"ris": Scenes, "fss": Queries, "vos": Clips, "rvos": Clips}


def _on_refshapes(task: Task, episodes: int, style: Style = "textured") -> TaskProtocol[Any, Any]:
    """A task on so many validation episodes, as its published numbers have it."""
    protocols: dict[Task, type[TaskProtocol[Any, Any]]] = {
        "ris": Referring,
        "fss": FewShot,
        "vos": VideoObjects,
        "rvos": VideoSentences,
    }
    return protocols[task](SOURCES[task](task, episodes, style))


PROTOCOLS: dict[Task, Callable[..., TaskProtocol[Any, Any]]] = {task: partial(_on_refshapes, task) for task in TASKS}
"""By task: what makes its protocol from a number of episodes, and a style."""

"""DAVIS 2017, semi-supervised and unsupervised, and the sentences of Ref-DAVIS17.

```
DAVIS/JPEGImages/480p/<sequence>/00000.jpg
DAVIS/Annotations/480p/<sequence>/00000.png                  davis2017
DAVIS/Annotations_unsupervised/480p/<sequence>/00000.png     davis2017_unsupervised, ref_davis17
DAVIS/ImageSets/2017/val.txt                                 a sequence a line; the unsupervised test sets in 2019
davis_text_annotations/Davis17_annot1.txt                    ref_davis17; inside DAVIS or beside it
```

The root is the folder ``DAVIS`` or the one that holds it. ``Full-Resolution`` is read where there is no ``480p``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from sam_uniref.data.formats.davis_sentences import TEXT_FOLDER, read_sentences
from sam_uniref.data.formats.files import in_units, missing_layout, read_lines
from sam_uniref.data.formats.video_listing import (
    VIDEOS_A_UNIT,
    ListedVideo,
    NamedObject,
    list_video,
    once_each,
)
from sam_uniref.data.formats.video_masks import MaskedVideos, ReadMasks
from sam_uniref.data.prepared.problems import Problems

_RESOLUTIONS = ("480p", "Full-Resolution")
_TRAIN_AND_VAL = {"train": "2017", "val": "2017"}


class Davis2017(MaskedVideos):
    """The semi-supervised task: a tracker is given the first mask.

    An object is every id up to the largest of the first mask, as the official reader counts; other ids are not.
    A sequence whose first frame or mask can't be used is left out.

    Attributes:
        lists: By split, the folder of its list below ``ImageSets``.
        masks: Folder of the masks.
    """

    name: ClassVar[str] = "davis2017"
    title: ClassVar[str] = "DAVIS 2017"
    homepage: ClassVar[str] = "https://davischallenge.org"
    licence: ClassVar[str] = "CC BY 4.0 where the archive's README states nothing else"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "train": {"videos": 60},
        "val": {"videos": 30, "objects": 61},
    }
    lists: ClassVar[Mapping[str, str]] = _TRAIN_AND_VAL | {"test-dev": "2017", "test-challenge": "2017"}
    masks: ClassVar[str] = "Annotations"

    def splits(self, root: Path) -> tuple[str, ...]:
        """Splits whose list is there and of which some sequence is."""
        base = _base(root)
        found = tuple(split for split in self.lists if _resolution(root, base, self._listed(root, split)))
        if not found:
            raise missing_layout(root, ["ImageSets/2017/val.txt", "JPEGImages/480p/<sequence>/00000.jpg"])
        return found

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[ListedVideo]]:
        """Lists of sequences with their files."""
        sequences = self._listed(root, split)
        base = _base(root)
        resolution = _resolution(root, base, sequences)
        if resolution is None:
            raise missing_layout(root, [f"{base}JPEGImages/{r}/<sequence> of split {split}" for r in _RESOLUTIONS])
        named = self.sentences_of(root, split, problems)
        frames, masks = f"{base}JPEGImages/{resolution}", f"{base}{self.masks}/{resolution}"
        # Every frame of train and val has a mask, of the test sets the first, if any.
        masked: Sequence[str] | Literal["all", "first"] = "all" if split in _TRAIN_AND_VAL else "first"
        if split in self.splits_without_masks:
            masked = ()
        listed = (
            list_video(root, name, frames, masks, problems, masked=masked, objects=named.get(name, ()))
            for name in once_each(sequences, problems)
        )
        yield from in_units((video for video in listed if video is not None), VIDEOS_A_UNIT)

    def sentences_of(self, root: Path, split: str, problems: Problems) -> Mapping[str, tuple[NamedObject, ...]]:
        """Objects that are spoken of, by sequence."""
        return {}

    def chosen_objects(self, video: ListedVideo, masks: ReadMasks, problems: Problems) -> Iterable[NamedObject] | None:
        """Ids up to the largest of the first mask, and those that are spoken of."""
        named = {item.id: item for item in video.objects}
        if not video.masks:
            return []
        if masks.frames.numbers.get(next(iter(video.frames))) != 0 or 0 not in masks.annotated:
            problems.broken("sequence without its first frame and mask", video.name)
            return None
        largest = max((number for number, track in masks.tracks.items() if track.frames[0] == 0), default=0)
        for number in sorted(set(masks.tracks) - set(named)):
            if number <= largest:
                named[number] = NamedObject(number)
            else:
                problems.by_rule("id above those of the first mask", f"{video.name}: {number}")
        return [named[number] for number in sorted(named)]

    def _listed(self, root: Path, split: str) -> list[str]:
        """Sequences of a split; none if there is no list."""
        path = root / f"{_base(root)}ImageSets/{self.lists[split]}/{split}.txt"
        return read_lines(path) if path.is_file() else []


class Davis2017Unsupervised(Davis2017):
    """The unsupervised task of 2019; objects are counted alike. Its test sets have no masks."""

    name: ClassVar[str] = "davis2017_unsupervised"
    title: ClassVar[str] = "DAVIS 2017 Unsupervised"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {"train": {"videos": 60}, "val": {"videos": 30}}
    lists: ClassVar[Mapping[str, str]] = _TRAIN_AND_VAL | {"test-dev": "2019", "test-challenge": "2019"}
    masks: ClassVar[str] = "Annotations_unsupervised"
    splits_without_masks: ClassVar[frozenset[str]] = frozenset({"test-dev", "test-challenge"})


class RefDavis17(Davis2017):
    """Ref-DAVIS17: four sentences an object, over the masks of the unsupervised task.

    An object's sentences are in the order first annotator's of the first frame, of the whole video, second
    annotator's of the first frame, of the whole video; sentence ``k`` of object ``n`` is ``4 * (n - 1) + k``.
    """

    name: ClassVar[str] = "ref_davis17"
    title: ClassVar[str] = "Ref-DAVIS17"
    homepage: ClassVar[str] = (
        "https://www.mpi-inf.mpg.de/departments/computer-vision-and-machine-learning/research/"
        "video-segmentation/video-object-segmentation-with-language-referring-expressions"
    )
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "train": {"videos": 60},
        "val": {"videos": 30, "objects": 61, "sentences": 244},
    }
    lists: ClassVar[Mapping[str, str]] = _TRAIN_AND_VAL
    masks: ClassVar[str] = "Annotations_unsupervised"

    def sentences_of(self, root: Path, split: str, problems: Problems) -> Mapping[str, tuple[NamedObject, ...]]:
        """Objects with their sentences; the files are of all splits."""
        base = root / _base(root)
        folder = next(
            (f for f in (root / TEXT_FOLDER, base / TEXT_FOLDER, base.parent / TEXT_FOLDER) if f.is_dir()), None
        )
        if folder is None:
            raise missing_layout(root, [f"{TEXT_FOLDER}/Davis17_annot1.txt, in it or beside DAVIS"])
        known = {name for other in self.lists for name in self._listed(root, other)}
        return read_sentences(folder, set(self._listed(root, split)), known, problems)


def _base(root: Path) -> str:
    """``DAVIS/`` where the root holds that folder, else nothing."""
    return "DAVIS/" if not (root / "JPEGImages").is_dir() and (root / "DAVIS" / "JPEGImages").is_dir() else ""


def _resolution(root: Path, base: str, sequences: Iterable[str]) -> str | None:
    """The folder of frames that has some of the sequences."""
    for resolution in _RESOLUTIONS:
        folder = root / f"{base}JPEGImages/{resolution}"
        if any((folder / name).is_dir() for name in sequences):
            return resolution
    return None

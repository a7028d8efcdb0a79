"""A user's own folder: classes, clips, single images and sentences, without a conversion step.

```
root/classes/<name>/<stem>.jpg and <stem>.png        few-shot: a class a folder, a mask beside each picture
root/clips/<name>/{images,masks}/<stem>.jpg, .png    video: masks for any of the frames, joined by stem
root/images/<stem>.jpg, root/masks/<stem>.png        single images
root/expressions.jsonl                               {"image" or "clip": ..., "object": id, "text": ...} a line
```

``classes`` and ``clips`` may be left out of the path: a root whose own folders look like classes or clips is
read as such. A palette PNG gives an object an id, a binary one gives one object.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from sam_uniref.data.batch import Task
from sam_uniref.data.objects import AnnotatedObject
from sam_uniref.images import IMAGE_SUFFIXES, fit_to_image, image_size, load_id_map
from sam_uniref.nearest import nearest_path
from sam_uniref.video import by_number

logger = logging.getLogger(__name__)

Sentences = dict[tuple[str, int], list[str]]

SENTENCES_FILE = "expressions.jsonl"


@dataclass(frozen=True)
class MaskedPicture:
    """A picture with the file that says what is in it.

    Attributes:
        image: The picture.
        mask: Its ids, for `load_id_map`.
        group: What the objects have in common (`AnnotatedObject.group`); may hold ``{id}``.
        scene: The clip, or the picture itself.
        frame: Its place among the clip's pictures; None in a single picture.
    """

    image: Path
    mask: Path
    group: str
    scene: str
    frame: int | None = None


def read_folder(
    root: str | Path,
    task: Task,
    *,
    expressions: str | Path | None = None,
    validation: float | str | Sequence[str] = 0.0,
) -> list[AnnotatedObject]:
    """All annotated objects of a folder that a task can use.

    Args:
        root: The folder.
        task: ``fss`` reads classes; ``vos`` clips and single images; ``rvos`` clips with sentences; ``ris``
            everything with sentences.
        expressions: The file of sentences; ``root/expressions.jsonl`` by default.
        validation: Share of the pictures and clips to hold out, chosen by their names (a clip is held out whole:
            its frames are alike); or names of classes, clips or picture stems to hold out.

    Raises:
        FileNotFoundError: If the root, or a picture that a sentence is about, is not there.
        ValueError: If nothing in it is annotated, or a file is broken.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}{nearest_path(root)}")
    sentences: Sentences = {}
    if task in ("ris", "rvos"):
        sentences = read_expressions(Path(expressions) if expressions else root / SENTENCES_FILE)
    if task == "fss":
        objects = _objects_of(class_pictures(root))
    elif task == "rvos":
        objects = _objects_of(clip_pictures(root))
    elif task == "vos":
        objects = [*_objects_of(clip_pictures(root)), *_objects_of(single_pictures(root))]
    else:
        clips = list(clip_pictures(root))
        named = [_checked(*pair) for pair in named_pictures(root, sentences, {picture.image for picture in clips})]
        objects = [*_objects_of(clips), *_objects_of(named)]
    if not objects:
        raise ValueError(
            f"{root} holds no annotated pictures for {task}; expected "
            + ("classes/<name>/<stem>.jpg with <stem>.png" if task == "fss" else "clips/<name>/{images,masks}/")
        )
    objects = [_with_sentences(o, root, sentences) for o in objects]
    if task == "ris":
        _warn_of_unused(objects, root, sentences)
    return _hold_out(objects, validation)


def pictures_of(folder: Path) -> list[Path]:
    """Pictures of a folder that are no masks of others, 2.jpg before 10.jpg."""
    found = list(folder.iterdir()) if folder.is_dir() else []
    # Hidden files are an operating system's notes about pictures (._00000.jpg), not pictures.
    files = sorted((p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."), key=by_number)
    photographs = {p.stem for p in files if p.suffix.lower() != ".png"}
    return [p for p in files if p.suffix.lower() != ".png" or p.stem not in photographs]


def _objects_of(pictures: Iterable[MaskedPicture]) -> list[AnnotatedObject]:
    """One object for each id of each mask."""
    objects = []
    for p in pictures:
        # A mask of another picture is found here, not after hours of training.
        ids = fit_to_image(load_id_map(p.mask), image_size(p.image), str(p.mask))
        for object_id in np.unique(ids).tolist():
            if object_id > 0:
                group = p.group.replace("{id}", str(object_id))
                objects.append(AnnotatedObject(p.image, p.mask, object_id, group, p.scene, p.frame))
    return objects


def _mask_beside(image: Path) -> Path | None:
    """The PNG of the same stem in the same folder; a photograph that is a PNG itself can't have one."""
    if image.suffix.lower() == ".png":
        return None
    return next((p for p in (image.with_suffix(".png"), image.with_suffix(".PNG")) if p.is_file()), None)


def _subfolders(root: Path, name: str) -> list[Path]:
    """Folders inside ``root/name``, or inside the root itself where there is none of that name."""
    parent = root / name if (root / name).is_dir() else root
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))


def class_pictures(root: Path) -> Iterator[MaskedPicture]:
    """Few-shot: pictures with a mask of the same stem beside them."""
    for folder in _subfolders(root, "classes"):
        for image in pictures_of(folder):
            mask = _mask_beside(image)
            if mask is not None:
                yield MaskedPicture(image, mask, folder.name, str(image))


def clip_pictures(root: Path) -> Iterator[MaskedPicture]:
    """Video: frames joined with their masks by stem; frames without one are left to the tracker."""
    for folder in clip_folders(root):
        masks = {p.stem: p for p in pictures_of(folder / "masks")}
        for number, image in enumerate(pictures_of(folder / "images")):
            if image.stem in masks:
                yield MaskedPicture(image, masks[image.stem], f"{folder.name}/{{id}}", folder.name, number)


def clip_folders(root: Path) -> list[Path]:
    """Folders of clips: those with ``images``."""
    return [folder for folder in _subfolders(root, "clips") if (folder / "images").is_dir()]


def single_pictures(root: Path) -> Iterator[MaskedPicture]:
    """Single images: each object is a group of its own."""
    masks = {p.stem: p for p in pictures_of(root / "masks")}
    for image in pictures_of(root / "images"):
        if image.stem in masks:
            yield MaskedPicture(image, masks[image.stem], f"{image.name}/{{id}}", str(image))


def named_pictures(
    root: Path, sentences: Iterable[tuple[str, int]], known: Collection[Path]
) -> Iterator[tuple[Path, MaskedPicture | None]]:
    """Pictures that sentences are about: their mask is beside them, or in ``masks`` beside their ``images``.

    Those that are ``known`` already, such as frames of clips, are left out. One that is not there, or has no mask,
    has None.
    """
    for name in sorted({key for key, _ in sentences if PurePosixPath(key).suffix.lower() in IMAGE_SUFFIXES}):
        image = root / name
        if image in known:
            continue
        beside = _mask_beside(image)
        parallel = {p.stem: p for p in pictures_of(image.parent.parent / "masks")} if beside is None else {}
        mask = beside or parallel.get(image.stem)
        if not image.is_file() or mask is None:
            yield image, None
            continue
        # Beside its mask it is one of a class, whose other pictures the sentence may describe as well.
        yield image, MaskedPicture(image, mask, image.parent.name if beside else f"{name}/{{id}}", str(image))


def _checked(image: Path, picture: MaskedPicture | None) -> MaskedPicture:
    """A picture that a sentence is about.

    Raises:
        FileNotFoundError: If it is not there or has no mask.
    """
    if picture is None:
        raise FileNotFoundError(
            f"{image}, which a sentence is about, is not there or has no mask at {image.with_suffix('.png')}"
        )
    return picture


def read_expressions(path: Path) -> Sentences:
    """Sentences by (picture or clip, object id).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is no such record, naming the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there are no sentences at {path}; give their file with expressions=")
    sentences: Sentences = defaultdict(list)
    try:
        text_of_file = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text ({error})") from error
    for number, line in enumerate(text_of_file.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            key, text = _about(record), record["text"].strip()
            object_id = int(record.get("object", 1))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f'{path} line {number}: expected {{"image" or "clip": ..., "object": id, "text": ...}}, got '
                f"{line[:80]!r} ({error})"
            ) from error
        if not text:
            raise ValueError(f"{path} line {number}: the sentence is empty")
        sentences[key, object_id].append(text)
    return dict(sentences)


def _about(record: Mapping[str, Any]) -> str:
    """The picture or clip of a record; it must stay inside the root."""
    key = str(record["clip"] if "clip" in record else record["image"])
    if PurePosixPath(key).is_absolute() or ".." in PurePosixPath(key).parts:
        raise ValueError(f"{key!r} leaves the folder")
    return PurePosixPath(key).as_posix()


def _with_sentences(item: AnnotatedObject, root: Path, sentences: Sentences) -> AnnotatedObject:
    """The object with the sentences about its picture, and about its clip."""
    keys = {item.scene, item.image.relative_to(root).as_posix()}
    found = [text for key in sorted(keys) for text in sentences.get((key, item.object_id), [])]
    return replace(item, sentences=tuple(found))


def _warn_of_unused(objects: list[AnnotatedObject], root: Path, sentences: Sentences) -> None:
    """Name sentences that no object takes: a misspelt clip, or an id that the mask does not have."""
    taken = {(key, o.object_id) for o in objects for key in (o.scene, o.image.relative_to(root).as_posix())}
    unused = [key for key in sentences if key not in taken]
    if unused:
        count = sum(len(sentences[key]) for key in unused)
        examples = ", ".join(f"object {object_id} of {name}" for name, object_id in unused[:4])
        logger.warning("%s: %d sentence(s) are about nothing that has a mask, such as %s", root, count, examples)


def _hold_out(objects: list[AnnotatedObject], validation: float | str | Sequence[str]) -> list[AnnotatedObject]:
    """Mark what validation keeps.

    Raises:
        ValueError: If the share is not in [0, 1), or a name in the list is nothing's.
    """
    if isinstance(validation, int | float):
        if not 0 <= validation < 1:
            raise ValueError(f"the validation share must be in [0, 1), got {validation}")
        scenes = sorted({o.scene for o in objects}, key=lambda s: (zlib.crc32(Path(s).name.encode()), s))
        # Who asks for a share gets some: a tenth of four clips is one.
        held_out = set(scenes[: max(validation > 0, round(validation * len(scenes)))])
        return [replace(o, held_out=o.scene in held_out) for o in objects]
    if not isinstance(validation, Sequence):
        raise ValueError(f"validation must be a share or a list of names, got {validation!r}")
    names = {validation} if isinstance(validation, str) else {str(name) for name in validation}
    known = {name for o in objects for name in _names(o)}
    if names - known:
        raise ValueError(f"nothing is named {sorted(names - known)} among classes, clips and pictures to hold out")
    return [replace(o, held_out=bool(names & _names(o))) for o in objects]


def _names(item: AnnotatedObject) -> set[str]:
    """Class, clip and stem of an object."""
    return {item.group.split("/")[0], item.scene, item.image.stem}

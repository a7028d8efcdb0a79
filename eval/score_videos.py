"""J and F of a folder of predicted masks against a folder of true ones, frames shared out to processes.

```
TRUTH/<video>/<stem>.png          a map of object ids; 255 is void
PREDICTIONS/<video>/<stem>.png    for every frame that has a true mask; more frames and more videos are passed over
```

A video is a folder that holds PNGs, so its name may be a path: ``<video>/<sentence>`` in Ref-YouTube-VOS.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from sam_uniref.data.formats.files import in_units, load_palette_ids, mask_size
from sam_uniref.eval.conventions import Convention, Frame, ObjectKey, VideoFrames
from sam_uniref.eval.davis import ObjectScores
from sam_uniref.eval.id_maps import IdMap
from sam_uniref.processes import working_processes
from sam_uniref.video import by_number

# Few enough that the last process is not waited for, enough that handing them over costs nothing.
_FRAMES_A_PIECE = 8
# What takes one process as long as starting others does.
_WORTH_PROCESSES = 1000

MaskPair = tuple[Path, Path]
"""Files of a predicted and of a true mask."""


def score_videos(
    predictions: str | Path,
    truth: str | Path,
    convention: Convention[Frame],
    *,
    videos: Sequence[str] | None = None,
    workers: int | None = None,
) -> dict[ObjectKey, ObjectScores]:
    """J and F of every object of every video. The result is the same with any number of processes.

    A predicted frame that is missing is refused, an object that is missing in a frame is an empty mask.

    Args:
        predictions: Folder of the predicted masks.
        truth: Folder of the true masks.
        convention: Which frames and objects count.
        videos: Which to score; by default all that the truth has.
        workers: Processes; 0 scores in this one. By default one a core, or none for fewer than a thousand frames.

    Returns:
        By video and object, videos in the order of their names. `davis.summarise` takes the mean of its values.

    Raises:
        FileNotFoundError: If a folder, a video or a predicted frame is not there; nothing is scored then.
        ValueError: If a mask is broken or not of its truth's size, or a video is not as the convention wants it. The
            message has the file, or the video.
    """
    listed = list_masks(Path(predictions), Path(truth), videos)
    if workers is None and sum(len(pairs) for pairs in listed.values()) < _WORTH_PROCESSES:
        workers = 0
    scored: dict[ObjectKey, ObjectScores] = {}
    with closing(_score_frames(listed, convention, workers)) as videos_with_frames:
        for name, frames in videos_with_frames:
            by_stem = {true.stem: frame for (_, true), frame in zip(listed[name], frames, strict=True)}
            try:
                objects = convention.objects(VideoFrames(name, by_stem))
            except ValueError as error:
                raise ValueError(f"video {name} by {convention.name}: {error}") from error
            scored |= {(name, object_id): scores for object_id, scores in objects.items()}
    return scored


def list_masks(predictions: Path, truth: Path, videos: Sequence[str] | None = None) -> dict[str, list[MaskPair]]:
    """Files to compare, frames in order, by video; their headers checked without a mask being read.

    Args:
        predictions: Folder of the predicted masks.
        truth: Folder of the true masks.
        videos: Which; by default all that the truth has.

    Raises:
        FileNotFoundError: Naming the first video or predicted frame that is not there.
        ValueError: If there is no true mask at all, or naming the first file that is no mask, or not of its truth's
            size.
    """
    for folder in (predictions, truth):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
    names = sorted(videos) if videos is not None else sorted(_folders_of_masks(truth))
    if not names:
        raise ValueError(f"{truth} has no folder with PNG masks in it")
    listed = {}
    for name in names:
        files = sorted((truth / name).glob("*.png"), key=by_number)
        if not files:
            raise FileNotFoundError(f"there are no true masks in {truth / name}")
        if not (predictions / name).is_dir():
            raise FileNotFoundError(f"there is no folder {predictions / name} with predictions for the video {name}")
        listed[name] = [(predictions / name / file.name, file) for file in files]
        there = {file.name for file in (predictions / name).iterdir()}
        for predicted, _ in listed[name]:
            if predicted.name not in there:
                raise FileNotFoundError(f"there is no predicted mask {predicted}; the truth has that frame")
    # Sizes and modes that don't fit are found before hours of work.
    for predicted, true in (pair for pairs in listed.values() for pair in pairs):
        _check_size(predicted, true, _header_size(predicted), _header_size(true))
    return listed


def load_pair(predicted: Path, truth: Path, *, binary: bool) -> tuple[IdMap, IdMap]:
    """Both maps of ids ``(H, W)`` of a frame.

    Args:
        predicted: File of the predicted mask.
        truth: File of the true one.
        binary: Whether they are masks of one object, which is 1; else 255 in the truth is void and stays.

    Raises:
        FileNotFoundError: If one is not there.
        ValueError: If one is broken or they differ in size, with the file's name.
    """
    maps = []
    for file, keep_void in ((predicted, False), (truth, not binary)):
        try:
            ids = load_palette_ids(file, keep_void=keep_void)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        maps.append((ids > 0).astype(ids.dtype) if binary else ids)
    _check_size(predicted, truth, maps[0].shape, maps[1].shape)
    return maps[0], maps[1]


def _score_frames(
    listed: dict[str, list[MaskPair]], convention: Convention[Frame], workers: int | None
) -> Generator[tuple[str, list[Frame]], None, None]:
    """All frames of a video, in order, as soon as they are done."""
    waiting: deque[Future[list[Frame]]] = deque()
    pieces = _pieces(listed)
    with working_processes(workers) as (submit, at_once):
        for name, pairs in listed.items():
            frames: list[Frame] = []
            while len(frames) < len(pairs):
                for piece in islice(pieces, at_once + 1 - len(waiting)):
                    waiting.append(submit(_score_pairs, convention.score, convention.binary, piece))
                frames += waiting.popleft().result()
            yield name, frames


def _folders_of_masks(root: Path) -> set[str]:
    """Folders below that hold PNGs, as paths from it."""
    below = (
        Path(folder).relative_to(root).as_posix()
        for folder, _, files in os.walk(root, followlinks=True)
        if any(file.endswith(".png") for file in files)
    )
    return {*below} - {"."}


def _pieces(listed: dict[str, list[MaskPair]]) -> Iterator[list[MaskPair]]:
    """Frames of one video that a process scores at a time, videos in order."""
    return (piece for pairs in listed.values() for piece in in_units(pairs, _FRAMES_A_PIECE))


def _score_pairs(score: Any, binary: bool, pairs: Sequence[MaskPair]) -> list[Any]:
    """Frames in a process of its own."""
    frames = []
    for predicted, truth in pairs:
        maps = load_pair(predicted, truth, binary=binary)
        try:
            frames.append(score(*maps))
        except ValueError as error:
            raise ValueError(f"{predicted}: {error}") from error
    return frames


def _header_size(file: Path) -> tuple[int, int]:
    """``(height, width)`` of a mask, without reading it."""
    try:
        return mask_size(file)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _check_size(predicted: Path, truth: Path, got: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Refuse masks of different sizes."""
    if got != wanted:
        raise ValueError(
            f"{predicted} is {got[1]}x{got[0]}, the true mask {truth} is {wanted[1]}x{wanted[0]} (width x height)"
        )

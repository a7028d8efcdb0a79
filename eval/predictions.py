"""What a method answered, on disk: JSON lines, a case a line, a file a process.

```
FOLDER/settings.json          what the answers were made of; another's are refused
FOLDER/process_00.jsonl       {"case": name, "size": [height, width], "masks": {answer: [a mask a frame]}}
```

Masks are COCO's run-length encoding. A line is written when its case is done; one that was cut off at a file's end is
as if it had never been begun.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam_uniref.data.prepared import EncodedMask, decode_mask, encode_mask
from sam_uniref.images import Mask
from sam_uniref.state import write_json
from sam_uniref.transforms import Size

SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class Prediction:
    """What a method answered about one case.

    Attributes:
        size: ``(height, width)`` of the masks.
        masks: By what the protocol calls the answer: a mask a frame, of a picture one.
    """

    size: Size
    masks: Mapping[str, Sequence[EncodedMask]]

    @classmethod
    def of(cls, size: Size, masks: Mapping[str, Iterable[Mask]]) -> Prediction:
        """From masks ``(H, W)`` bool."""
        return cls(size, {answer: [encode_mask(mask) for mask in given] for answer, given in masks.items()})

    def mask(self, answer: str, frame: int = 0) -> Mask:
        """One mask, ``(H, W)`` bool.

        Raises:
            ValueError: If its runs do not fill its size.
        """
        return decode_mask(self.masks[answer][frame])

    def check(self, name: str, size: Size, answers: Mapping[str, int]) -> None:
        """See that it is about the case.

        Args:
            name: For messages.
            size: ``(height, width)`` of the case's pictures.
            answers: How many masks each answer must have.

        Raises:
            ValueError: If it is of another size, or lacks an answer.
        """
        if self.size != tuple(size):
            raise ValueError(
                f"the prediction of {name} is {self.size[1]}x{self.size[0]}, its pictures are {size[1]}x{size[0]} "
                "(width x height)"
            )
        got = {answer: len(masks) for answer, masks in self.masks.items()}
        wrong = [answer for answer, count in answers.items() if got.get(answer) != count]
        if wrong:
            raise ValueError(
                f"the prediction of {name} has {got.get(wrong[0], 0)} masks of {wrong[0]!r}, not {answers[wrong[0]]}; "
                "it was made from other data, remove it"
            )


class PredictionStore:
    """A folder of answers. Any number of processes append, each to a file of its own.

    Args:
        folder: Need not be there; it is made with the first answer.
        settings: What the answers are made of, in JSON's types. Of a folder that is read only, a part of it will do.

    Raises:
        ValueError: If the folder has answers that were made of something else, or a file is broken.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self._settings = folder, settings
        self._check_settings()
        self._places: dict[str, tuple[Path, int]] = {}
        self.refresh()

    def _check_settings(self) -> None:
        path = self.folder / SETTINGS_FILE
        if not path.is_file():
            if any(self.folder.glob("*.jsonl")):
                raise ValueError(f"{self.folder} has predictions and no {SETTINGS_FILE}; remove it")
            return
        try:
            made_of = json.loads(path.read_text(encoding="utf-8"))
            other = [name for name, value in self._settings.items() if made_of.get(name) != value]
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{path} is broken ({error}); remove {self.folder}") from error
        if other:
            told = ", ".join(f"{name} {made_of.get(name)!r} and not {self._settings[name]!r}" for name in other)
            raise ValueError(f"{self.folder} was made with {told}; remove it, or give another --out")

    @property
    def cases(self) -> set[str]:
        """Names of the cases that are answered, as of the last `refresh`."""
        return set(self._places)

    def refresh(self) -> None:
        """Look what is there now.

        Raises:
            ValueError: If a line is broken that is not a file's last.
        """
        self._places = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            with path.open("rb") as file:
                start = 0
                for number, line in enumerate(file, start=1):
                    if line.endswith(b"\n"):
                        self._places.setdefault(_parse(line, path, number)[0], (path, start))
                    start += len(line)

    def append(self, process: int, case: str, prediction: Prediction) -> None:
        """Add an answer; it is on its way to the disk when this returns.

        Args:
            process: Number of the process, whose own file it goes to.
            case: Name of the case.
            prediction: The answer.

        Raises:
            OSError: If it cannot be written.
        """
        path = self.folder / f"process_{process:02d}.jsonl"
        if not (self.folder / SETTINGS_FILE).is_file():
            write_json(self.folder / SETTINGS_FILE, dict(self._settings))
        masks = {answer: [mask.counts.decode("ascii") for mask in given] for answer, given in prediction.masks.items()}
        line = json.dumps({"case": case, "size": list(prediction.size), "masks": masks}) + "\n"
        with path.open("ab") as file:
            file.truncate(_whole_lines(path))
            file.write(line.encode("utf-8"))

    def read(self, case: str) -> Prediction:
        """The answer to a case.

        Raises:
            ValueError: If there is none.
        """
        if case not in self._places:
            raise ValueError(f"{self.folder} has no prediction of {case}")
        path, start = self._places[case]
        with path.open("rb") as file:
            file.seek(start)
            return _parse(file.readline(), path, 0)[1]


def _parse(line: bytes, path: Path, number: int) -> tuple[str, Prediction]:
    """A line's case and answer."""
    try:
        content = json.loads(line)
        height, width = (int(side) for side in content["size"])
        masks = {
            answer: [EncodedMask(counts.encode("ascii"), (height, width)) for counts in given]
            for answer, given in content["masks"].items()
        }
        return str(content["case"]), Prediction((height, width), masks)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} line {number} is no prediction ({error}); remove the line or the file") from error


def _whole_lines(path: Path) -> int:
    """Bytes of a file up to the end of its last whole line."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            place = file.read(end - start).rfind(b"\n")
            if place >= 0:
                return start + place + 1
            end = start
    return 0

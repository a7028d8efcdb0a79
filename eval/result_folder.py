"""A folder of masks by anyone as predictions, and predictions as such a folder: its files are told by the protocol.

Everything is refused with the file's name: one that is missing or no whole picture, a mask of another size than its
picture, and an id that was not asked about. An empty mask is an answer. Of the video tasks only files of frames that
are scored must be there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from sam_uniref.data.formats.files import load_palette_ids
from sam_uniref.data.prepared import EncodedMask, encode_mask
from sam_uniref.eval.cases import Case
from sam_uniref.eval.predictions import Prediction
from sam_uniref.eval.protocols.base import MaskFile, TaskProtocol
from sam_uniref.images import load_id_map
from sam_uniref.state import whole_file
from sam_uniref.track_files import save_palette
from sam_uniref.transforms import Size


class ResultFolder(Generic[Case]):
    """Predictions of one task in PNGs.

    Args:
        folder: Of the files.
        protocol: Of the task.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If such a folder can't hold what the protocol asks.
    """

    def __init__(self, folder: Path, protocol: TaskProtocol[Case, Any]) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder of predictions {folder}")
        self.folder, self._protocol = folder, protocol

    def read(self, case: Case) -> Prediction:
        """The answers of a case.

        Raises:
            FileNotFoundError: If a file that is needed is not there.
            ValueError: If a file is broken, of another size, or has an id that was not asked about.
        """
        nothing = encode_mask(np.zeros(case.size, bool))
        masks: dict[str, list[EncodedMask]] = {
            answer: [nothing] * count for answer, count in self._protocol.answers(case).items()
        }
        for file in self._protocol.files(case):
            path = self.folder / file.path
            if not file.needed and not path.is_file():
                continue
            ids = _read_ids(path, file, case.size)
            for number, answer in file.answers.items():
                masks[answer][file.frame] = encode_mask(ids == number)
        return Prediction(case.size, masks)


def _read_ids(path: Path, file: MaskFile, size: Size) -> NDArray[np.integer]:
    """The map of ids in a file, ``(H, W)``; of a binary mask 1 is its object."""
    try:
        ids: NDArray[np.integer] = load_id_map(path) if file.binary else load_palette_ids(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no prediction {path}; what is not seen has an empty mask") from None
    except ValueError as error:
        raise ValueError(f"the prediction {path} can't be read: {error}") from error
    if ids.shape != tuple(size):
        raise ValueError(
            f"{path} is {ids.shape[1]}x{ids.shape[0]}, its picture is {size[1]}x{size[0]} (width x height); resize "
            "masks by nearest neighbour"
        )
    found = [int(number) for number in np.unique(ids) if number]
    if file.binary:
        if len(found) > 1:
            raise ValueError(f"{path} has the values {found}, expected a mask of 0 and one other value")
        return (ids > 0).astype(np.int64)
    unknown = [number for number in found if number not in file.answers]
    if unknown:
        raise ValueError(f"{path} has the ids {unknown}, which the truth lacks; it has {sorted(file.answers)}")
    return ids


def write_masks(folder: Path, protocol: TaskProtocol[Case, Any], case: Case, prediction: Prediction) -> None:
    """Write a case's answers as `ResultFolder` reads them: palette PNGs of ids, binary masks as 0 and 255.

    Raises:
        ValueError: If such a folder can't hold what the protocol asks, or an id is above 254.
        OSError: If a file can't be written.
    """
    for file in protocol.files(case):
        ids = np.zeros(case.size, np.int64)
        for number, answer in sorted(file.answers.items()):
            ids[prediction.mask(answer, file.frame)] = number
        path = folder / file.path
        if not file.binary:
            save_palette(ids, path)
            continue
        with whole_file(path) as temporary:
            PILImage.fromarray((ids > 0).astype(np.uint8) * 255).save(temporary, format="PNG")

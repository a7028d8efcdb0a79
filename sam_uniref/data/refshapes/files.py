"""Files of the published layouts, each written whole or not at all."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam_uniref.images import RGB
from sam_uniref.palette import id_color
from sam_uniref.state import whole_file


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8 whose line ends are the text's own."""
    with whole_file(path) as temporary:
        temporary.write_bytes(text.encode())


def write_json(path: Path, content: Any) -> None:
    """A JSON file."""
    write_text(path, json.dumps(content))


def write_pickle(path: Path, content: Any) -> None:
    """A pickle of plain containers, in the protocol that Python 2 wrote."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        pickle.dump(content, file, protocol=2)


def write_jpeg(path: Path, image: RGB) -> None:
    """A picture, ``(H, W, 3)`` uint8 RGB."""
    with whole_file(path) as temporary:
        # Without chroma subsampling: thin stripes keep their colour.
        Image.fromarray(image).save(temporary, format="JPEG", quality=95, subsampling=0)


def write_ids(path: Path, ids: NDArray[np.uint8]) -> None:
    """A palette PNG whose pixel values ``(H, W)`` are object ids."""
    with whole_file(path) as temporary:
        picture = Image.fromarray(ids, mode="L")
        # Makes it a palette picture and leaves its values.
        picture.putpalette([channel for number in range(256) for channel in id_color(number)])
        picture.save(temporary, format="PNG")


def write_binary(path: Path, mask: NDArray[np.bool_]) -> None:
    """A grey PNG of 0 and 255, ``(H, W)``."""
    with whole_file(path) as temporary:
        Image.fromarray(mask.astype(np.uint8) * 255, mode="L").save(temporary, format="PNG")

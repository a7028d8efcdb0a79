"""What was found in pictures as the files of a format, by name: nothing is written here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from sam_uniref.exchange.coco import encode_coco
from sam_uniref.exchange.label_studio import encode_label_studio, label_config
from sam_uniref.exchange.labelled import LabelledPicture, all_labels
from sam_uniref.exchange.palette_png import encode_palette_png
from sam_uniref.exchange.yolo import encode_yolo

FORMATS = ("coco", "coco-polygons", "label-studio", "yolo", "png")


def encode_files(pictures: Sequence[LabelledPicture], form: str, *, prefix: str = "") -> dict[str, bytes]:
    """The files that a format has for these pictures.

    - ``"coco"``, ``"coco-polygons"``: ``annotations.json``, see `encode_coco`;
    - ``"label-studio"``: ``tasks.json`` to import and ``label_config.xml`` for the project, see `encode_label_studio`;
    - ``"yolo"``: ``labels/<stem>.txt`` a picture and ``classes.txt``, see `encode_yolo`;
    - ``"png"``: ``<stem>.png`` a picture, a palette PNG of ids.

    Args:
        pictures: Each with its own name.
        form: One of `FORMATS`.
        prefix: For Label Studio, put before every file name; see `encode_label_studio`.

    Returns:
        Contents by names with forward slashes.

    Raises:
        ValueError: If there is no such format, or files of two pictures would have the same name.
    """
    if form not in FORMATS:
        raise ValueError(f"the format must be one of {', '.join(FORMATS)}, got {form!r}")
    if form in ("coco", "coco-polygons"):
        return {"annotations.json": _json(encode_coco(pictures, polygons=form != "coco"))}
    if form == "label-studio":
        tasks = _json(encode_label_studio(pictures, prefix=prefix))
        return {"tasks.json": tasks, "label_config.xml": label_config(all_labels(pictures)).encode()}
    stems = [PurePosixPath(picture.file_name).stem for picture in pictures]
    twice = sorted(stem for stem, count in Counter(stems).items() if count > 1)
    if twice:
        raise ValueError(f"more than one picture is called {twice[0]!r}; the files of this format are named after them")
    if form == "yolo":
        classes = all_labels(pictures)
        texts = {
            f"labels/{stem}.txt": encode_yolo(picture.objects, classes).encode()
            for stem, picture in zip(stems, pictures, strict=True)
        }
        return {**texts, "classes.txt": "".join(f"{label}\n" for label in classes).encode()}
    return {
        f"{stem}.png": encode_palette_png(picture.objects, picture.size)
        for stem, picture in zip(stems, pictures, strict=True)
    }


def _json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()

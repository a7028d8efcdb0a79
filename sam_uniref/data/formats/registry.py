"""All readers, by name."""

from __future__ import annotations

import difflib

from sam_uniref.data.formats.base import DataFormat
from sam_uniref.data.formats.coco import Coco
from sam_uniref.data.formats.coco_expressions import CocoExpressions
from sam_uniref.data.formats.fss1000 import Fss1000
from sam_uniref.data.formats.objects365 import Objects365
from sam_uniref.data.formats.refcoco import RefCoco, RefCocoG, RefCocoGGoogle, RefCocoGoogle, RefCocoPlus
from sam_uniref.data.formats.visual_genome import VisualGenome

_IMAGES: tuple[DataFormat, ...] = (
    RefCoco(),
    RefCocoPlus(),
    RefCocoG(),
    RefCocoGoogle(),
    RefCocoGGoogle(),
    Fss1000(),
    Coco(),
    Objects365(),
    VisualGenome(),
    CocoExpressions(),
)

FORMATS: dict[str, DataFormat] = {layout.name: layout for layout in _IMAGES}
"""Readers by name."""


def named_format(name: str) -> DataFormat:
    """A data set's reader.

    Raises:
        ValueError: If there is none of that name; the nearest is named.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, 1)
        raise ValueError(
            f"there is no reader of {name!r}{f'; did you mean {near[0]}?' if near else ''} Known are {sorted(FORMATS)}"
        )
    return FORMATS[name]

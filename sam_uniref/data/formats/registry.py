"""All readers, by name."""

from __future__ import annotations

from sam_uniref.data.formats.base import DataFormat
from sam_uniref.data.formats.coco import Coco
from sam_uniref.data.formats.coco_expressions import CocoExpressions
from sam_uniref.data.formats.davis import Davis2017, Davis2017Unsupervised, RefDavis17
from sam_uniref.data.formats.fss1000 import Fss1000
from sam_uniref.data.formats.lvos import Lvos1, Lvos2
from sam_uniref.data.formats.mevis import Mevis
from sam_uniref.data.formats.mose import Mose
from sam_uniref.data.formats.objects365 import Objects365
from sam_uniref.data.formats.ovis import Ovis
from sam_uniref.data.formats.ref_youtube_vos import RefYoutubeVos
from sam_uniref.data.formats.refcoco import RefCoco, RefCocoG, RefCocoGGoogle, RefCocoGoogle, RefCocoPlus
from sam_uniref.data.formats.user_folder import FolderImages, FolderVideos
from sam_uniref.data.formats.visual_genome import VisualGenome
from sam_uniref.data.formats.youtube_vos import YoutubeVos2018, YoutubeVos2019
from sam_uniref.nearest import did_you_mean

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
    FolderImages(),
)
_VIDEOS: tuple[DataFormat, ...] = (
    Davis2017(),
    Davis2017Unsupervised(),
    RefDavis17(),
    YoutubeVos2018(),
    YoutubeVos2019(),
    RefYoutubeVos(),
    Lvos1(),
    Lvos2(),
    Mose(),
    Ovis(),
    Mevis(),
    FolderVideos(),
)

FORMATS: dict[str, DataFormat] = {layout.name: layout for layout in (*_IMAGES, *_VIDEOS)}
"""Readers by name."""


def named_format(name: str) -> DataFormat:
    """A data set's reader.

    Raises:
        ValueError: If there is none of that name; the nearest is named.
    """
    if name not in FORMATS:
        hint = did_you_mean(name, FORMATS) or f"; known are {', '.join(sorted(FORMATS))}"
        raise ValueError(f"there is no reader of {name!r}{hint}")
    return FORMATS[name]

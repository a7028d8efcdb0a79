"""Segment the object that a reference points at, in images and videos, with a plug-in on a frozen SAM.

```python
from sam_uniref import MaskReference, SamRef

model = SamRef.from_sam("vit_h", checkpoint="sam_vit_h_4b8939.pth", text_encoder="bert-base-uncased")
seg = model.segment("street.jpg", text="the man on the left")
seg.mask  # (H, W) bool
```

Names are imported when they are first used, so ``import sam_uniref`` is light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sam_uniref.version import __version__

if TYPE_CHECKING:
    from sam_uniref.config import SamRefConfig
    from sam_uniref.detr import Detections, UniRef, UniRefConfig
    from sam_uniref.interfaces import ImageFeatures, MaskPrediction, Prompts, ReferenceSegmenter
    from sam_uniref.official import convert_official, from_official
    from sam_uniref.predictor import Predictor
    from sam_uniref.reference import MaskReference, Reference
    from sam_uniref.samref import SamRef
    from sam_uniref.segmentation import Segmentation
    from sam_uniref.tracking import FrameResult, VideoTracker

_HOMES = {
    "Detections": "detr",
    "FrameResult": "tracking",
    "ImageFeatures": "interfaces",
    "MaskPrediction": "interfaces",
    "MaskReference": "reference",
    "Predictor": "predictor",
    "Prompts": "interfaces",
    "Reference": "reference",
    "ReferenceSegmenter": "interfaces",
    "SamRef": "samref",
    "SamRefConfig": "config",
    "Segmentation": "segmentation",
    "UniRef": "detr",
    "UniRefConfig": "detr",
    "VideoTracker": "tracking",
    "convert_official": "official",
    "from_official": "official",
}

__all__ = [
    "Detections",
    "FrameResult",
    "ImageFeatures",
    "MaskPrediction",
    "MaskReference",
    "Predictor",
    "Prompts",
    "Reference",
    "ReferenceSegmenter",
    "SamRef",
    "SamRefConfig",
    "Segmentation",
    "UniRef",
    "UniRefConfig",
    "VideoTracker",
    "__version__",
    "convert_official",
    "from_official",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"sam_uniref.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """All public names."""
    return __all__

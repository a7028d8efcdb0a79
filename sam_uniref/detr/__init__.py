"""UniRef: the full UniRef++ (Wu et al. 2023, arXiv 2312.15715), a two-stage Deformable-DETR with UniFusion."""

from sam_uniref.detr.config import UniRefConfig
from sam_uniref.detr.detections import Detections
from sam_uniref.detr.uniref import UniRef

__all__ = ["Detections", "UniRef", "UniRefConfig"]

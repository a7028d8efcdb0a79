"""SAM (Kirillov et al. 2023) as a host model."""

from sam_uniref.sam.build import SAM_SIZES, build_sam, load_sam_checkpoint
from sam_uniref.sam.host import PromptedSamHost, SamHost
from sam_uniref.sam.image_encoder import ImageEncoder
from sam_uniref.sam.resize import check_image_size

__all__ = [
    "SAM_SIZES",
    "ImageEncoder",
    "PromptedSamHost",
    "SamHost",
    "build_sam",
    "check_image_size",
    "load_sam_checkpoint",
]

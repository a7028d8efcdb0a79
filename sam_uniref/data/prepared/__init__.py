"""Prepared data sets: one Arrow schema for all of them, written once from the official download."""

from sam_uniref.data.prepared.masks import EncodedMask, decode_mask, encode_mask, polygons_to_mask, read_segmentation
from sam_uniref.data.prepared.prepare import prepare
from sam_uniref.data.prepared.rows import ImageRow, VideoObject, VideoRow
from sam_uniref.data.prepared.shards import PreparedInfo, open_split, read_info

__all__ = [
    "EncodedMask",
    "ImageRow",
    "PreparedInfo",
    "VideoObject",
    "VideoRow",
    "decode_mask",
    "encode_mask",
    "open_split",
    "polygons_to_mask",
    "prepare",
    "read_info",
    "read_segmentation",
]

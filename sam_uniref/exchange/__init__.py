"""Masks in the forms that other tools read and write, and back."""

from sam_uniref.exchange.brush import decode_brush, encode_brush
from sam_uniref.exchange.coco import (
    decode_coco,
    decode_results,
    decode_rle,
    decode_segmentation,
    encode_coco,
    encode_results,
    encode_rle,
    encode_runs,
)
from sam_uniref.exchange.detections import decode_detections, encode_detections
from sam_uniref.exchange.files import FORMATS, encode_files
from sam_uniref.exchange.label_studio import decode_label_studio, encode_label_studio, label_config
from sam_uniref.exchange.labelled import LabelledMask, LabelledPicture
from sam_uniref.exchange.palette_png import decode_palette_png, encode_palette_png
from sam_uniref.exchange.polygons import Polygon, decode_polygons, encode_polygons, polygon_iou
from sam_uniref.exchange.references import read_examples, read_pictures
from sam_uniref.exchange.yolo import decode_yolo, encode_yolo

__all__ = [
    "FORMATS",
    "LabelledMask",
    "LabelledPicture",
    "Polygon",
    "decode_brush",
    "decode_coco",
    "decode_detections",
    "decode_label_studio",
    "decode_palette_png",
    "decode_polygons",
    "decode_results",
    "decode_rle",
    "decode_segmentation",
    "decode_yolo",
    "encode_brush",
    "encode_coco",
    "encode_detections",
    "encode_files",
    "encode_label_studio",
    "encode_palette_png",
    "encode_polygons",
    "encode_results",
    "encode_rle",
    "encode_runs",
    "encode_yolo",
    "label_config",
    "polygon_iou",
    "read_examples",
    "read_pictures",
]

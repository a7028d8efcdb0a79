"""RefShapes: an embedded data set drawn on the fly, for the four tasks and for learning to segment at all."""

from sam_uniref.data.refshapes.dataset import RefShapesDataset
from sam_uniref.data.refshapes.drawn import SPLITS, Split
from sam_uniref.data.refshapes.draws import Draws
from sam_uniref.data.refshapes.export import LAYOUTS, export
from sam_uniref.data.refshapes.named import NamedClip, NamedScene
from sam_uniref.data.refshapes.palette import COLOURS, STYLES, TEXTURES, Style
from sam_uniref.data.refshapes.scene import Scene, ShapeObject, draw_scene, render
from sam_uniref.data.refshapes.shapes import SEEN_SHAPES, UNSEEN_SHAPES
from sam_uniref.data.refshapes.wording import VOCABULARY

__all__ = [
    "COLOURS",
    "LAYOUTS",
    "SEEN_SHAPES",
    "SPLITS",
    "STYLES",
    "TEXTURES",
    "UNSEEN_SHAPES",
    "VOCABULARY",
    "Draws",
    "NamedClip",
    "NamedScene",
    "RefShapesDataset",
    "Scene",
    "ShapeObject",
    "Split",
    "Style",
    "draw_scene",
    "export",
    "render",
]

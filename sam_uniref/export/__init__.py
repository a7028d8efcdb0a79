"""Models for other programs: ONNX files and `torch.export` programs, compared with the model that they were made of."""

from sam_uniref.export.comparison import Difference, compare
from sam_uniref.export.graphs import Graph, graphs_of
from sam_uniref.export.writing import FORMATS, OPSET, check_exportable, export_model, prepared

__all__ = [
    "FORMATS",
    "OPSET",
    "Difference",
    "Graph",
    "check_exportable",
    "compare",
    "export_model",
    "graphs_of",
    "prepared",
]

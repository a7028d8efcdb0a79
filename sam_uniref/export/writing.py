"""A SamRef's graphs as files, with all that a program needs to use them beside them.

```
FOLDER/export.json          sizes, normalisation, each graph's inputs and outputs; also in every ONNX file's metadata
FOLDER/image_encoder.onnx   (or .pt2) and text_encoder, mask_encoder, decoder
FOLDER/tokenizer.json       for the package tokenizers; where the model reads sentences
FOLDER/segment.py           with ONNX: segments a picture on onnxruntime, numpy and pillow alone
```
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch

from sam_uniref.adapters import has_lora
from sam_uniref.export.graphs import Graph, graphs_of
from sam_uniref.models import KINDS
from sam_uniref.sam import SamHost
from sam_uniref.samref import SamRef
from sam_uniref.state import file_sha256, whole_folder, write_json
from sam_uniref.trainable import TrainableModel
from sam_uniref.version import __version__

FORMATS = ("onnx", "torch")
# The newest that onnxruntime 1.16 knows; of what later ones brought nothing is used.
OPSET = 18
DESCRIPTION_FILE = "export.json"
TOKENIZER_FILE = "tokenizer.json"
_SAMPLE = Path(__file__).parent / "segment_onnx.py"
_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


def check_exportable(model: TrainableModel) -> SamRef:
    """The model, if it can be exported.

    Raises:
        ValueError: If it is of another kind, on another host than SAM, or its encoder is held in half precision.
    """
    if not isinstance(model, SamRef):
        kinds = ", ".join(kind for kind in KINDS if kind != "samref")
        raise ValueError(f"only a samref can be exported, this is a {model.config.kind}; not yet: {kinds}")
    host = type(model.sam)
    if host is not SamHost:
        raise ValueError(f"only a samref on SAM itself can be exported yet, this one is on a {host.__name__}")
    if model.sam.image_encoder.is_rounded:
        raise ValueError("the image encoder is held in half precision; load the model in float32 to export it")
    return model


def prepared(model: TrainableModel) -> SamRef:
    """The model as it is exported: on the CPU, for inference, LoRA a part of the encoders. It is changed in place.

    Raises:
        ValueError: If it can't be exported.
    """
    given = check_exportable(model).cpu().eval()
    encoders = [given.sam.image_encoder, *([given.text_encoder.model] if given.text_encoder else [])]
    if any(has_lora(encoder) for encoder in encoders):
        given.merge_lora()
    return given


@torch.no_grad()
def export_model(model: SamRef, out: str | Path, form: str = "onnx") -> dict[str, Any]:
    """Write all graphs of a model that is `prepared`; the folder is whole or not there, and an old one is replaced.

    Args:
        model: On the CPU and in evaluation mode.
        out: The folder.
        form: ``"onnx"`` or ``"torch"``.

    Returns:
        What ``export.json`` holds.

    Raises:
        ValueError: If there is no such format.
        FileExistsError: If there is a folder that no export wrote.
    """
    if form not in FORMATS:
        raise ValueError(f"the format must be one of {', '.join(FORMATS)}, got {form!r}")
    out = Path(out)
    if out.exists() and not (out / DESCRIPTION_FILE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there and holds no export; give another folder")
    graphs = graphs_of(model)
    description = _description(model, form, graphs)
    with whole_folder(out) as folder:
        for graph in graphs:
            file = folder / f"{graph.name}{_SUFFIXES[form]}"
            program = traced(graph)
            if form == "onnx":
                _save_onnx(program, graph, file, description)
            else:
                torch.export.save(program, file)
            description["graphs"][graph.name] |= {"file": file.name, "sha256": file_sha256(file)}
        if model.text_encoder is not None:
            backend = getattr(model.text_encoder.tokenizer, "backend_tokenizer", None)
            if backend is None:
                raise ValueError("the text encoder's tokenizer has no fast form, which export needs (tokenizer.json)")
            backend.save(str(folder / TOKENIZER_FILE))
        if form == "onnx":
            shutil.copyfile(_SAMPLE, folder / "segment.py")
        write_json(folder / DESCRIPTION_FILE, description)
    return description


def traced(graph: Graph) -> torch.export.ExportedProgram:
    """One graph as a program of tensor operations."""
    shapes = graph.shapes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(
            graph.module.eval(),
            (),
            kwargs=dict(graph.inputs),
            dynamic_shapes={name: shapes[name] for name in graph.inputs},
        )


def _save_onnx(program: torch.export.ExportedProgram, graph: Graph, file: Path, description: Mapping[str, Any]) -> None:
    """Write an ONNX file; weights of more than 2 GB, which it can't hold, come to lie beside it."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = torch.onnx.export(
                program,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    onnx_program = cast(torch.onnx.ONNXProgram, converted)
    onnx_program.model.metadata_props["sam_uniref"] = json.dumps(description)
    onnx_program.save(file)


def _description(model: SamRef, form: str, graphs: Sequence[Graph]) -> dict[str, Any]:
    """What a program must know to use the graphs."""
    transform, text = model.transform, model.text_encoder
    description: dict[str, Any] = {
        "sam_uniref": __version__,
        "kind": model.config.kind,
        "format": form,
        "opset": OPSET if form == "onnx" else None,
        "image": {"size": transform.size, "mean": list(transform.mean), "std": list(transform.std), "channels": "RGB"},
        "embedding": {"channels": model.sam.channels, "stride": model.sam.strides[0]},
        "mask_threshold": 0.0,
        "text": None,
        "config": asdict(model.config),
        "graphs": {graph.name: _signature(graph) for graph in graphs},
    }
    if text is not None:
        padding = int(getattr(text.tokenizer, "pad_token_id", None) or 0)
        description["text"] = {"tokenizer": TOKENIZER_FILE, "max_length": text.max_length, "padding_id": padding}
    return description


def _signature(graph: Graph) -> dict[str, Any]:
    """A graph's inputs, with the names of axes that may have any length, and its outputs."""
    inputs = {}
    for name, tensor in graph.inputs.items():
        shape = [graph.dynamic[name].get(axis, side) for axis, side in enumerate(tensor.shape)]
        inputs[name] = {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": shape}
    return {"inputs": inputs, "outputs": list(graph.outputs)}

"""Exported graphs against the model: the same picture and references through both, and the largest difference."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam_uniref.adapters.references import ReferenceFeatures
from sam_uniref.export.graphs import Graph, graphs_of
from sam_uniref.images import RGB, Mask
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.samref import SamRef

T = TypeVar("T")

Arrays = dict[str, NDArray[np.generic]]
Run = Callable[[Arrays], Sequence[NDArray[np.generic]]]


@dataclass(frozen=True)
class Difference:
    """How far one graph is from the model.

    Attributes:
        graph: Its name; ``"all"`` for the four one after another, each fed by the exported ones before it.
        output: Which of its outputs.
        largest: Absolute difference at its largest.
        magnitude: The largest absolute value of the model's own.
        seconds: That the exported graph took.
        model_seconds: That the model took for the same.
    """

    graph: str
    output: str
    largest: float
    magnitude: float
    seconds: float
    model_seconds: float


def runners(folder: str | Path, form: str, graphs: Sequence[Graph]) -> dict[str, Run]:
    """What runs each exported graph, on the CPU.

    Raises:
        ImportError: If onnxruntime is not installed, for ONNX.
    """
    return {graph.name: (_onnx if form == "onnx" else _torch)(Path(folder), graph) for graph in graphs}


def _onnx(folder: Path, graph: Graph) -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("comparing ONNX files needs onnxruntime: pip install 'sam_uniref[export]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / f"{graph.name}.onnx", options, providers=["CPUExecutionProvider"])

    def run(inputs: Arrays) -> Sequence[NDArray[np.generic]]:
        return session.run(list(graph.outputs), inputs)

    return run


def _torch(folder: Path, graph: Graph) -> Run:
    module = torch.export.load(folder / f"{graph.name}.pt2").module()

    @torch.no_grad()
    def run(inputs: Arrays) -> Sequence[NDArray[np.generic]]:
        answer = module(**{name: torch.from_numpy(np.asarray(given)) for name, given in inputs.items()})
        return [tensor.numpy() for tensor in answer]

    return run


@torch.no_grad()
def compare(
    model: SamRef, run: Mapping[str, Run], picture: RGB, mask: Mask, sentence: str | None = None
) -> list[Difference]:
    """Ask model and exported graphs for an object of a picture, by a sentence and by the object itself.

    Args:
        model: That was exported.
        run: From `runners`.
        picture: HWC uint8 RGB.
        mask: ``(H, W)`` bool, of an object in it.
        sentence: About it, for a model that reads sentences.

    Returns:
        One entry an output of each graph, and one an output of all together.
    """
    graphs = {graph.name: graph for graph in graphs_of(model)}
    features, took_image = _timed(lambda: model.encode_image(picture))
    scaled = model.transform.mask(mask, features.canvas)[None]
    zero = torch.zeros(1, dtype=torch.int64)
    shown, took_mask = _timed(lambda: model.encode_mask(features, scaled, zero))
    given: dict[str, dict[str, Tensor]] = {
        "image_encoder": {"pixels": features.pixels},
        "mask_encoder": {
            "pixels": features.pixels,
            "masks": scaled,
            "embedding": features.levels[0],
            "padding": features.padding[0],
        },
    }
    wanted: dict[str, tuple[tuple[Tensor, ...], float]] = {
        "image_encoder": ((features.levels[0],), took_image),
        "mask_encoder": ((shown.keys[0], shown.values[0], shown.pooled[0]), took_mask),
    }
    said = _no_sentence(model)
    if model.text_encoder is not None:
        words = sentence or "the object"
        said, took_text = _timed(lambda: model.encode_text([words]))
        ids, seen = model.text_encoder.tokenize([words])
        given["text_encoder"] = {"input_ids": ids, "attention_mask": seen}
        wanted["text_encoder"] = ((said.keys[0], said.pooled[0]), took_text)
    references = _rows(said, shown)
    given["decoder"] = _decoder_inputs(features, references)
    prediction, took = _timed(lambda: model.predict(features, references, decoder="trained"))
    wanted["decoder"] = ((prediction.logits, prediction.scores), took)
    found: list[Difference] = []
    answers: dict[str, Sequence[NDArray[np.generic]]] = {}
    for name, graph in graphs.items():
        inputs = {key: tensor.numpy() for key, tensor in given[name].items()}
        answers[name], seconds = _timed(lambda n=name, i=inputs: run[n](i))  # type: ignore[misc]
        found += _differences(name, graph, wanted[name], answers[name], seconds)
    return [*found, *_together(run, graphs["decoder"], given["decoder"], answers, wanted["decoder"])]


def _together(
    run: Mapping[str, Run],
    graph: Graph,
    inputs: Mapping[str, Tensor],
    answers: Mapping[str, Sequence[NDArray[np.generic]]],
    wanted: tuple[tuple[Tensor, ...], float],
) -> list[Difference]:
    """The decoder on what the exported encoders made."""
    fed: Arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    keys, values, pooled = answers["mask_encoder"]
    fed |= {"embedding": answers["image_encoder"][0]}
    fed |= {"example_keys": keys.repeat(2, 0), "example_values": values.repeat(2, 0)}
    fed |= {"example_pooled": pooled.repeat(2, 0)}
    if "text_encoder" in answers:
        tokens, mean = answers["text_encoder"]
        fed |= {"sentence": tokens.repeat(2, 0), "sentence_pooled": mean.repeat(2, 0)}
    answer, seconds = _timed(lambda: run["decoder"](fed))
    return _differences("all", graph, wanted, answer, seconds)


def _rows(said: ReferenceFeatures, shown: ReferenceFeatures) -> list[ReferenceFeatures]:
    """Two rows about the one image: the first has a sentence, where there is one, and both have the example."""
    two = torch.zeros(2, dtype=torch.int64)
    both = said.select(two).about(two)
    present = both.present.clone()
    present[1] = False
    padding = both.padding[0] | ~present[:, None]
    sentences = ReferenceFeatures(
        both.keys, both.values, (padding,), both.pooled, present, both.image_index, "sentence"
    )
    return [sentences, shown.select(two).about(two)]


def _no_sentence(model: SamRef) -> ReferenceFeatures:
    """A row without a sentence, for models that read none."""
    nothing = torch.zeros(1, 1, model.sam.channels)
    return ReferenceFeatures(
        (nothing,),
        (nothing,),
        (torch.ones(1, 1, dtype=torch.bool),),
        (nothing[:, 0],),
        torch.zeros(1, dtype=torch.bool),
        torch.zeros(1, dtype=torch.int64),
        "sentence",
    )


def _decoder_inputs(features: ImageFeatures, references: Sequence[ReferenceFeatures]) -> dict[str, Tensor]:
    """By the decoder graph's names."""
    said, shown = references
    return {
        "embedding": features.levels[0],
        "image_index": said.image_index,
        "sentence": said.keys[0],
        "sentence_padding": said.padding[0],
        "sentence_pooled": said.pooled[0],
        "sentence_present": said.present,
        "example_keys": shown.keys[0],
        "example_values": shown.values[0],
        "example_padding": shown.padding[0],
        "example_pooled": shown.pooled[0],
        "example_present": shown.present,
    }


def _differences(
    name: str,
    graph: Graph,
    wanted: tuple[tuple[Tensor, ...], float],
    answer: Sequence[NDArray[np.generic]],
    seconds: float,
) -> list[Difference]:
    """One entry an output; what is no number on either side is infinitely far."""
    found = []
    for output, ours, theirs in zip(graph.outputs, wanted[0], answer, strict=True):
        own = ours.numpy().astype(np.float64)
        apart = np.abs(own - np.asarray(theirs, np.float64))
        largest = float(apart.max()) if np.isfinite(apart).all() else float("inf")
        found.append(Difference(name, output, largest, float(np.abs(own).max()), seconds, wanted[1]))
    return found


def _timed(function: Callable[[], T]) -> tuple[T, float]:
    """What a function gives, and the seconds that it took."""
    start = time.perf_counter()
    return function(), time.perf_counter() - start

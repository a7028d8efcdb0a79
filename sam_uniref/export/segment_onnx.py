"""Segment an object with an exported SamRef: onnxruntime, numpy and pillow, and tokenizers for sentences.

    python segment.py street.jpg --text "the man on the left" --out mask.png
    python segment.py street.jpg --example dog.jpg:dog_mask.png --out mask.png

Examples may be repeated, and a sentence and examples may be given together. The graphs, export.json and tokenizer.json
lie beside this file, or in the folder given by --model. `ExportedModel` is for programs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


class ExportedModel:
    """The four graphs of a folder.

    Args:
        folder: That ``sam-uniref export`` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.about = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        self.size = int(self.about["image"]["size"])
        self.grid = self.size // int(self.about["embedding"]["stride"])
        self.folder = folder
        self._sessions: dict[str, Any] = {}

    def run(self, graph: str, **inputs: Any) -> list[Any]:
        """One graph's outputs, numpy arrays in the order of export.json."""
        if graph not in self._sessions:
            path = self.folder / self.about["graphs"][graph]["file"]
            self._sessions[graph] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        outputs: list[Any] = self._sessions[graph].run(None, inputs)
        return outputs

    def segment(
        self, image: Image.Image, text: str | None = None, examples: Sequence[tuple[Image.Image, Any]] = ()
    ) -> tuple[Any, float]:
        """The mask of an object ``(H, W)`` bool, and the predicted IoU.

        Args:
            image: The picture.
            text: A sentence that names one object.
            examples: Pictures with masks ``(H, W)`` bool of their own sizes.

        Raises:
            ValueError: If the sentence or a mask is empty, or the model takes no sentences.
        """
        pixels, content = self._pixels(image)
        (embedding,) = self.run("image_encoder", pixels=pixels)
        inputs = {**self._sentence(text), **self._examples(examples)}
        index = np.zeros(1, np.int64)
        logits, scores = self.run("decoder", embedding=embedding, image_index=index, **inputs)
        canvas = _resize_bilinear(logits[0, 0], (self.size, self.size))[: content[0], : content[1]]
        mask = _resize_bilinear(canvas, (image.height, image.width)) > self.about["mask_threshold"]
        return mask, float(scores[0, 0])

    def _pixels(self, image: Image.Image) -> tuple[Any, tuple[int, int]]:
        """A picture as ``(1, 3, S, S)`` float32, and the ``(height, width)`` of its content."""
        scale = self.size / max(image.size)
        height, width = (max(1, int(side * scale + 0.5)) for side in (image.height, image.width))
        resized = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR), np.float32)
        mean, std = (np.array(self.about["image"][name], np.float32) for name in ("mean", "std"))
        pixels = np.zeros((1, 3, self.size, self.size), np.float32)
        pixels[0, :, :height, :width] = ((resized - mean) / std).transpose(2, 0, 1)
        return pixels, (height, width)

    def _sentence(self, text: str | None) -> dict[str, Any]:
        """The decoder's inputs of a sentence, or of none."""
        channels = self.about["embedding"]["channels"]
        tokens, pooled = np.zeros((1, 1, channels), np.float32), np.zeros((1, channels), np.float32)
        if text is not None:
            if not text.strip():
                raise ValueError("a sentence must name something, got an empty one")
            if not self.about.get("text"):
                raise ValueError("this model takes no sentences; give an example")
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(self.folder / self.about["text"]["tokenizer"]))
            tokenizer.no_padding()
            tokenizer.enable_truncation(self.about["text"]["max_length"])
            ids = np.array([tokenizer.encode(text).ids], np.int64)
            tokens, pooled = self.run("text_encoder", input_ids=ids, attention_mask=np.ones_like(ids))
        return {
            "sentence": tokens,
            "sentence_padding": np.full(tokens.shape[:2], text is None),
            "sentence_pooled": pooled,
            "sentence_present": np.array([text is not None]),
        }

    def _examples(self, examples: Sequence[tuple[Image.Image, Any]]) -> dict[str, Any]:
        """The decoder's inputs of annotated pictures, whose cells are put one after another, or of none."""
        channels = self.about["embedding"]["channels"]
        keys = values = np.zeros((1, 1, channels), np.float32)
        padding, pooled = np.ones((1, 1), bool), np.zeros((1, channels), np.float32)
        if examples:
            encoded = [self._example(image, mask) for image, mask in examples]
            keys, values, padding = (np.concatenate([one[part] for one in encoded], axis=1) for part in range(3))
            pooled = np.mean([one[3] for one in encoded], axis=0)
        return {
            "example_keys": keys,
            "example_values": values,
            "example_padding": padding,
            "example_pooled": pooled,
            "example_present": np.array([bool(examples)]),
        }

    def _example(self, image: Image.Image, mask: Any) -> tuple[Any, Any, Any, Any]:
        """Keys, values, padding and pooled vector of one annotated picture."""
        if not mask.any():
            raise ValueError("an example's mask must mark at least one pixel, got an empty one")
        pixels, (height, width) = self._pixels(image)
        (embedding,) = self.run("image_encoder", pixels=pixels)
        masks = np.zeros((1, self.size, self.size), np.float32)
        masks[0, :height, :width] = _resize_nearest(mask, (height, width))
        cells = np.arange(self.grid) * self.about["embedding"]["stride"]
        padding = ~((cells < height)[:, None] & (cells < width)[None])[None]
        keys, values, pooled = self.run(
            "mask_encoder", pixels=pixels, masks=masks, embedding=embedding, padding=padding
        )
        return keys, values, padding.reshape(1, -1), pooled


def _resize_bilinear(values: Any, size: tuple[int, int]) -> Any:
    """``(h, w)`` to another size, pixels' middles aligned and no smoothing, as PyTorch's ``interpolate``."""
    for axis, length in enumerate(size):
        place = (np.arange(length) + 0.5) * (values.shape[axis] / length) - 0.5
        place = np.clip(place, 0, values.shape[axis] - 1)
        below = np.floor(place).astype(int)
        above = np.minimum(below + 1, values.shape[axis] - 1)
        share = (place - below).astype(np.float32)[(slice(None), None) if axis == 0 else (None, slice(None))]
        values = values.take(below, axis) * (1 - share) + values.take(above, axis) * share
    return values


def _resize_nearest(mask: Any, size: tuple[int, int]) -> Any:
    """A mask ``(h, w)`` at another size; one that falls between the samples keeps the pixels that it touches."""
    rows, columns = (
        ((np.arange(length) + 0.5) * side / length).astype(int) for length, side in zip(size, mask.shape, strict=True)
    )
    scaled = mask[rows[:, None], columns[None]]
    if mask.any() and not scaled.any():
        y, x = np.nonzero(mask)
        scaled[y * size[0] // mask.shape[0], x * size[1] // mask.shape[1]] = True
    return scaled


def open_image(path: str) -> Image.Image:
    """A picture as it is seen, turned as its EXIF says."""
    with Image.open(path) as image:
        image.load()
        return ImageOps.exif_transpose(image)


def open_mask(path: str) -> Any:
    """A mask ``(H, W)`` bool: what is not 0 in a palette picture, what is brighter than half in others."""
    with Image.open(path) as image:
        return np.asarray(image) > 0 if image.mode == "P" else np.asarray(image.convert("L")) > 127


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("--text", help="a sentence that names one object")
    parser.add_argument("--example", action="append", default=[], metavar="IMG:MASK")
    parser.add_argument("--out", default="mask.png", help="the mask, black and white")
    parser.add_argument("--model", type=Path, default=Path(__file__).parent, help="the exported folder")
    asked = parser.parse_args()
    if asked.text is None and not asked.example:
        parser.error("say what to segment: --text, --example, or both")
    pairs = [example.rpartition(":") for example in asked.example]
    if not all(image and mask for image, _, mask in pairs):
        parser.error(f"--example takes IMG:MASK, got {' '.join(asked.example)}")
    try:
        examples = [(open_image(image), open_mask(mask)) for image, _, mask in pairs]
        mask, score = ExportedModel(asked.model).segment(open_image(asked.image), asked.text, examples)
        Image.fromarray(mask.astype(np.uint8) * 255).save(asked.out)
    except (OSError, ValueError, Image.DecompressionBombError) as error:  # a file that is not there, or no picture
        parser.error(" ".join(str(error).split()))
    sys.stdout.write(f"score {score:.3f}, {int(mask.sum())} pixels, {asked.out}\n")


if __name__ == "__main__":
    main()

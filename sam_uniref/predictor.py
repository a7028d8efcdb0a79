"""What people call on a model: encode, segment, track. The same for both siblings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from sam_uniref.adapters.references import ReferenceFeatures, concat
from sam_uniref.images import ImageLike, MaskLike, load_image, load_mask
from sam_uniref.interfaces import ImageFeatures, Prompts, ReferenceSegmenter
from sam_uniref.reference import MaskReference, Reference, fingerprint
from sam_uniref.segmentation import Segmentation

if TYPE_CHECKING:
    from sam_uniref.tracking import FrameResult
    from sam_uniref.video import FrameReader, FrameSource


class Predictor(ReferenceSegmenter):
    """Convenience on top of a `ReferenceSegmenter`: pictures in, masks at the picture's size out."""

    @torch.no_grad()
    def encode_image(self, images: ImageLike | Sequence[ImageLike]) -> ImageFeatures:
        """Encode one image or a list of them, once; `segment` takes the result in place of an image.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If an image is broken, or the list empty.
        """
        given = list(images) if isinstance(images, list | tuple) else [cast(ImageLike, images)]
        if not given:
            raise ValueError("encode_image needs at least one image, got an empty list")
        pictures = [load_image(image) for image in given]
        pixels, input_sizes = self.transform.batch(pictures)
        sizes = [(picture.shape[0], picture.shape[1]) for picture in pictures]
        return self.encode_pixels(pixels.to(self.device), input_sizes, sizes)

    @torch.no_grad()
    def encode_reference(
        self, *, text: str | None = None, examples: Sequence[MaskReference] | None = None
    ) -> Reference:
        """Encode a reference once, to use it on many images.

        Args:
            text: A sentence that names one object.
            examples: One or more annotated images of the object, or of its kind.

        Raises:
            ValueError: If neither is given, a sentence or a mask is empty, or a mask does not fit its image.
        """
        if text is None and not examples:
            raise ValueError("a reference needs a sentence (text=), annotated images (examples=), or both")
        return Reference(*self._encode_kinds(text, examples), self.fingerprint())

    def _encode_kinds(
        self, text: str | None, examples: Sequence[MaskReference] | None
    ) -> tuple[ReferenceFeatures | None, ReferenceFeatures | None]:
        """A sentence's and annotated images' features, one row each; None for what is not given."""
        encoded = None if text is None else self.encode_text([text])
        return encoded, self._encode_examples(examples) if examples else None

    def fingerprint(self) -> str:
        """A short hash that tells whether a saved reference was made by this model."""
        return fingerprint(self)

    def _encode_examples(self, examples: Sequence[MaskReference]) -> ReferenceFeatures:
        """All examples joined to one row; their images go through the encoder in one call."""
        pictures = [load_image(example.image) for example in examples]
        masks = [
            load_mask(example.mask, (picture.shape[0], picture.shape[1]), object_id=example.object_id)
            for example, picture in zip(examples, pictures, strict=True)
        ]
        features = self.encode_image(pictures)
        scaled = torch.stack([self.transform.mask(mask, features.canvas) for mask in masks]).to(self.device)
        encoded = self.encode_mask(features, scaled, torch.arange(len(masks), device=self.device))
        one = torch.zeros(1, dtype=torch.int64, device=self.device)
        return concat([encoded.select(one + k) for k in range(len(masks))]).about(one)

    @torch.no_grad()
    def segment(
        self,
        image: ImageLike | ImageFeatures,
        *,
        text: str | None = None,
        examples: Sequence[MaskReference] | None = None,
        reference: Reference | None = None,
        points: Sequence[Sequence[float]] | None = None,
        labels: Sequence[int] | None = None,
        box: Sequence[float] | None = None,
        mask_logits: np.ndarray | None = None,
        multimask: bool = False,
        decoder: str = "auto",
    ) -> Segmentation:
        """Segment what a reference or a prompt points at. They may be combined.

        Args:
            image: The picture, or its features from `encode_image` (one image).
            text: A sentence that names one object.
            examples: One or more annotated images.
            reference: Encoded by `encode_reference`, in place of text and examples.
            points: ``(P, 2)`` as (x, y) in the picture's pixels.
            labels: P numbers, 1 foreground and 0 background; all 1 by default.
            box: ``(x0, y0, x1, y1)`` in the picture's pixels.
            mask_logits: ``(1, h, w)`` low-res logits of an earlier answer.
            multimask: Ask for three candidates and return the one with the best score.
            decoder: ``"auto"`` (SAM's own untouched decoder where there is no reference), ``"trained"``, ``"sam"``.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If nothing is asked, something is empty, or a shape does not fit.
        """
        if reference is not None and (text is not None or examples):
            raise ValueError("give reference=, or text= and examples=, not both")
        if reference is None:
            kinds = [kind for kind in self._encode_kinds(text, examples) if kind is not None]
        elif reference.fingerprint == self.fingerprint():
            kinds = [kind.to(self.device) for kind in reference.kinds()]
        else:
            raise ValueError(
                f"the reference was encoded by another model ({reference.fingerprint}, this one is "
                f"{self.fingerprint()}), or at another image size; encode it again"
            )
        if isinstance(image, ImageFeatures):
            features = image
        else:
            with nullcontext() if kinds else self.without_lora():
                features = self.encode_image(image)
        if len(features) != 1:
            raise ValueError(f"segment takes one image, got {len(features)}; use predict for several")
        prompts = self._prompts(features, points, labels, box, mask_logits)
        prediction = self.predict(features, kinds, prompts, multimask=multimask, decoder=decoder)
        best = int(prediction.scores[0].argmax())
        low_res = prediction.logits.float()
        # All candidates are enlarged at once, as SAM does it: one alone would differ in the last bits.
        logits = self.transform.logits(low_res, features.input_sizes[0], features.original_sizes[0])[0, best]
        mask = logits.cpu().numpy()
        score = float(prediction.scores[0, best])
        return Segmentation(mask > 0, score, mask, low_res[0, best : best + 1].cpu().numpy())

    def _prompts(
        self,
        features: ImageFeatures,
        points: Sequence[Sequence[float]] | None,
        labels: Sequence[int] | None,
        box: Sequence[float] | None,
        mask_logits: np.ndarray | None,
    ) -> Prompts | None:
        """Points, box and logits of one image as one row of prompts; None where there are none."""
        if points is None and box is None and mask_logits is None:
            if labels is not None:
                raise ValueError("labels= come with points=")
            return None
        size = features.original_sizes[0]
        coordinates = None if points is None else self._coordinates(points, (-1, 2), "points", size)
        corners = None if box is None else self._coordinates(box, (2, 2), "box", size).reshape(1, 4)
        signs = None
        if coordinates is not None:
            signs = torch.tensor([list(labels) if labels is not None else [1] * len(coordinates)], device=self.device)
            if signs.shape[1] != len(coordinates) or not bool(((signs == 0) | (signs == 1)).all()):
                raise ValueError(f"labels must be one 0 or 1 for each of the {len(coordinates)} points, got {labels}")
        return Prompts(
            torch.zeros(1, dtype=torch.int64, device=self.device),
            points=None if coordinates is None else coordinates[None],
            labels=signs,
            boxes=corners,
            mask_logits=None if mask_logits is None else self._mask_logits(mask_logits, features),
        )

    def _coordinates(self, given: object, shape: tuple[int, int], name: str, size: tuple[int, int]) -> Tensor:
        """Checked (x, y) pairs in the input."""
        array = np.asarray(given, dtype=np.float64)
        wrong = array.ndim != 2 or array.shape[1] != 2 if shape[0] < 0 else array.size != shape[0] * shape[1]
        if array.size == 0 or wrong:
            raise ValueError(f"{name} must be (x, y) pairs{' of two corners' if name == 'box' else ''}, got {given}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got {given}")
        return self.transform.points(array.reshape(shape), size).to(self.device)

    def _mask_logits(self, given: np.ndarray, features: ImageFeatures) -> Tensor:
        """Checked low-res logits ``(1, 1, 4h, 4w)``."""
        logits = torch.as_tensor(np.asarray(given), dtype=torch.float32, device=self.device)
        wanted = tuple(4 * side for side in features.levels[0].shape[-2:])
        if tuple(logits.shape[-2:]) != wanted or logits.numel() != wanted[0] * wanted[1]:
            raise ValueError(f"mask_logits must be (1, {wanted[0]}, {wanted[1]}), got {tuple(logits.shape)}")
        if not bool(torch.isfinite(logits).all()):
            raise ValueError("mask_logits must be finite, got NaN or infinity")
        return logits.reshape(1, 1, *wanted)

    def track(
        self,
        frames: FrameSource | FrameReader,
        *,
        masks: Mapping[int, MaskLike] | MaskLike | None = None,
        texts: Mapping[int, str] | None = None,
        examples: Mapping[int, Sequence[MaskReference]] | None = None,
        new_masks: Mapping[int, Mapping[int, MaskLike] | MaskLike] | None = None,
        score_threshold: float | None = None,
        frame_references: str = "both",
    ) -> Iterator[FrameResult]:
        """Follow objects through a video, a frame at a time, in constant memory.

        An object may have a mask, a sentence and examples, all together. See `sam_uniref.tracking.VideoTracker`
        for adding and removing objects as you go.

        Args:
            frames: A video file, a folder or glob of pictures (in the order of their names), the number of a camera,
                any iterable of images, or what `sam_uniref.video.read_frames` made of one of these, which also tells
                each result's picture and time. A video that breaks off ends there, with a warning.
            masks: Masks in the first frame: ``{object id: mask}``, or one map of ids (a palette PNG).
            texts: ``{object id: sentence}``.
            examples: ``{object id: annotated images}``.
            new_masks: ``{frame number: masks}`` of objects that join later; others stay tracked.
            score_threshold: Below it an object counts as not visible. By default 0.4, and 0.3 for an object that
                is named by a sentence (paper, appendix B).
            frame_references: Which masks of the video itself an object is found by: ``"both"``, in the first and in
                the previous frame (published), ``"first"``, ``"previous"``, or ``"none"``: its sentence and examples
                alone, which it then must have.

        Yields:
            A `FrameResult` a frame.

        Raises:
            FileNotFoundError: If a path does not exist.
            OSError: If a camera cannot be opened.
            ValueError: If no object is given, an object has nothing to be found by, a frame changes size, or not a
                single frame can be read.
        """
        from sam_uniref.track_video import track_video
        from sam_uniref.tracking import VideoTracker

        tracker = VideoTracker(self, score_threshold=score_threshold, frame_references=frame_references)
        return track_video(tracker, frames, masks=masks, texts=texts, examples=examples, new_masks=new_masks)

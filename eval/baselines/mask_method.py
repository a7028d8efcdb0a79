"""What the training-free methods share: how they are asked, and what they refuse."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic

from sam_uniref.data.batch import Task
from sam_uniref.eval.baselines.mask_tracker import EncodedFrame, Followed, MaskTracker, State
from sam_uniref.eval.baselines.prompting import PromptedSam
from sam_uniref.hosts import Host
from sam_uniref.images import ImageLike, Mask, MaskLike, load_image, load_mask
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.reference import MaskReference
from sam_uniref.segmentation import Segmentation
from sam_uniref.track_video import track_video
from sam_uniref.tracking import FrameResult
from sam_uniref.video import FrameReader, FrameSource


@dataclass(frozen=True)
class EncodedExample:
    """An annotated picture.

    Attributes:
        features: Of this one picture.
        mask: ``(H, W)`` bool, not empty.
    """

    features: ImageFeatures
    mask: Mask


class MaskMethod(ABC, Generic[State]):
    """A `sam_uniref.eval.methods.Method` that knows objects by masks alone, on a frozen SAM.

    Args:
        host: The SAM, of any size and image size.

    Raises:
        ValueError: If LoRA sits in its image encoder.
    """

    name: str
    tasks: ClassVar[tuple[Task, ...]] = ("vos",)

    def __init__(self, host: Host) -> None:
        self.sam = PromptedSam(host)

    def encode_image(self, images: ImageLike) -> ImageFeatures:
        """Encode one picture, once; `segment` takes the result in place of the picture.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If it is broken or no picture.
        """
        return self.sam.encode(images)

    def segment(
        self,
        image: ImageLike | ImageFeatures,
        *,
        text: str | None = None,
        examples: Sequence[MaskReference] | None = None,
    ) -> Segmentation:
        """Segment what annotated pictures show.

        Args:
            image: The picture, or its features from `encode_image`.
            text: No method of this kind can be asked by a sentence.
            examples: One or more. Each is encoded once.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If the method can't be asked so, or a mask is empty or does not fit its picture.
        """
        if "fss" not in self.tasks:
            raise ValueError(f"{self.name} can't be asked about one picture, only track() objects by their masks")
        if text is not None or not examples:
            raise ValueError(
                f"{self.name} can be asked by examples= alone, one annotated picture or more, not by text="
            )
        query = image if isinstance(image, ImageFeatures) else self.encode_image(image)
        if len(query) != 1:
            raise ValueError(f"segment takes one picture, got {len(query)}")
        return self._segment(query, [self._encode_example(example) for example in examples])

    def track(
        self,
        frames: FrameSource | FrameReader,
        *,
        masks: Mapping[int, MaskLike] | MaskLike | None = None,
        texts: Mapping[int, str] | None = None,
        new_masks: Mapping[int, Mapping[int, MaskLike] | MaskLike] | None = None,
    ) -> Iterator[FrameResult]:
        """Follow objects through a video; arguments and errors as `sam_uniref.predictor.Predictor.track`'s.

        An object that nothing is found of in a frame is looked for again in the next, with what was known of it when
        it was last seen.

        Raises:
            ValueError: If an object is named by a sentence.
        """
        if texts:
            raise ValueError(f"{self.name} can be asked by masks= and new_masks= alone, not by texts=")
        return track_video(MaskTracker(self), frames, masks=masks, new_masks=new_masks)

    def _encode_example(self, example: MaskReference) -> EncodedExample:
        """An example's picture encoded, and its object's mask at the picture's size."""
        picture = load_image(example.image)
        mask = load_mask(example.mask, (picture.shape[0], picture.shape[1]), object_id=example.object_id)
        return EncodedExample(self.encode_image(picture), mask)

    def _segment(self, query: ImageFeatures, examples: Sequence[EncodedExample]) -> Segmentation:
        """Answer about one picture; only of methods that are asked so."""
        raise NotImplementedError

    @abstractmethod
    def start(self, frame: EncodedFrame, mask: Mask) -> State:
        """What to remember of an object whose mask ``(H, W)`` bool, not empty, is given in a frame."""

    @abstractmethod
    def follow(self, frame: EncodedFrame, state: State) -> Followed[State] | None:
        """Find the object in a frame; None where nothing of it is left to look for."""

    @abstractmethod
    def see(self, state: State, mask: Mask) -> State:
        """Add the mask ``(H, W)`` bool, not empty, that the object got in the frame in which it was found."""

"""Following objects by their masks, for methods that find each object by itself.

The tracker owns the map from object ids to what a method remembers of an object. A frame is encoded once for all
objects; they meet in the arg max of their logits at the frame's size, with 0 for the background, as in PerSAM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam_uniref.aggregation import merge
from sam_uniref.images import RGB, ImageLike, Mask, MaskLike, load_image, load_mask
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.reference import MaskReference
from sam_uniref.segmentation import Segmentation
from sam_uniref.tracked_object import GivenMask, checked_id, checked_size, given_mask
from sam_uniref.tracking import FrameResult
from sam_uniref.transforms import Size

State = TypeVar("State")


@dataclass(frozen=True)
class EncodedFrame:
    """A frame and what SAM made of it.

    Attributes:
        picture: ``(H, W, 3)`` uint8 RGB.
        features: Of this one picture.
    """

    picture: RGB
    features: ImageFeatures


class Followed(NamedTuple, Generic[State]):
    """What a method says of one object in one frame.

    Attributes:
        segmentation: As if the object were alone.
        state: What to remember if the object is seen.
    """

    segmentation: Segmentation
    state: State


class Follower(Protocol[State]):
    """A method that follows one object at a time, and itself remembers nothing."""

    name: str

    def encode_image(self, images: ImageLike) -> ImageFeatures:
        """Encode one frame."""

    def start(self, frame: EncodedFrame, mask: Mask) -> State:
        """What to remember of an object whose mask ``(H, W)`` bool, not empty, is given in a frame."""

    def follow(self, frame: EncodedFrame, state: State) -> Followed[State] | None:
        """Find the object in a frame; None where nothing of it is left to look for."""

    def see(self, state: State, mask: Mask) -> State:
        """Add the mask ``(H, W)`` bool, not empty, that the object got in the frame in which it was found."""


class MaskTracker(Generic[State]):
    """Follows any number of objects, each known by its mask in the frame where it joins.

    An object that is not seen in a frame, since nothing is left of its mask or others own all of it, is looked for
    again with what was remembered when it was last seen.

    Args:
        method: Finds each object by itself.
    """

    def __init__(self, method: Follower[State]) -> None:
        self._method = method
        self._states: dict[int, State | None] = {}
        self._given: dict[int, GivenMask] = {}
        self._frame = 0
        self._size: Size | None = None

    @property
    def object_ids(self) -> list[int]:
        """Ids of the tracked objects, in the order they were added."""
        return list(self._states)

    def check_followed(self, object_id: int, named: bool) -> None:
        """Every object that has a mask can be followed."""

    def add(
        self,
        object_id: int,
        *,
        mask: MaskLike | None = None,
        text: str | None = None,
        examples: Sequence[MaskReference] | None = None,
    ) -> None:
        """Add an object by its mask in the next frame.

        Raises:
            ValueError: If its id is not positive, it has no mask or an empty one, or is to be found by anything else.
        """
        if mask is None or text is not None or examples:
            raise ValueError(
                f"{self._method.name} follows objects by their masks alone; give object {object_id} a mask"
            )
        object_id = checked_id(object_id)
        given = given_mask(mask, object_id, self._size)
        self._states.setdefault(object_id, None)
        self._given[object_id] = given

    def update(self, object_id: int, *, mask: MaskLike | None = None) -> None:
        """Start an object anew from its mask in the next frame; errors as `add`'s."""
        self.add(object_id, mask=mask)

    def checked_size(self, picture: RGB) -> Size:
        """``(height, width)`` of a frame, which must be that of the frames before it."""
        return checked_size(picture, self._size, self._frame)

    def step(self, frame: ImageLike) -> FrameResult:
        """Segment all objects in the next frame; without any, it is not encoded.

        Raises:
            FileNotFoundError: If the frame is a path that does not exist.
            ValueError: If the frame is of another size, or a given mask does not fit it.
        """
        picture = load_image(frame)
        size = self.checked_size(picture)
        given = {i: load_mask(told.mask, size, name=told.name) for i, told in self._given.items()}
        followed: dict[int, Followed[State]] = {}
        states: dict[int, State] = {}
        labels: NDArray[np.int32] = np.zeros(size, np.int32)
        if self._states:
            encoded = EncodedFrame(picture, self._method.encode_image(picture))
            followed = self._follow(encoded, given)
            logits = {i: torch.from_numpy(answer.segmentation.logits) for i, answer in followed.items()}
            labels = merge(logits, given, size, compete=against_zero)
            states = {i: self._method.start(encoded, mask) for i, mask in given.items()}
        masks = {i: given.get(i, labels == i) for i in self._states}
        visible = {i: bool(mask.any()) for i, mask in masks.items()}
        states |= {i: self._method.see(answer.state, masks[i]) for i, answer in followed.items() if visible[i]}
        scores = dict.fromkeys(given, 1.0) | {i: answer.segmentation.score for i, answer in followed.items()}
        result = FrameResult(self._frame, labels, masks, {i: scores.get(i, 0.0) for i in self._states}, visible)
        # From here on nothing can fail.
        self._states.update(states)
        self._given.clear()
        self._size, self._frame = size, self._frame + 1
        return result

    def _follow(self, frame: EncodedFrame, given: Mapping[int, Mask]) -> dict[int, Followed[State]]:
        """Answers about the objects whose masks are not given, without those of which nothing is left."""
        known = {i: state for i, state in self._states.items() if state is not None and i not in given}
        answers = {i: self._method.follow(frame, state) for i, state in known.items()}
        return {i: answer for i, answer in answers.items() if answer is not None}


def against_zero(logits: Tensor) -> Tensor:
    """``(N, H, W)`` logits with the background's before them, 0 everywhere."""
    return torch.cat([torch.zeros_like(logits[:1]), logits])

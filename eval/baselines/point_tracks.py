"""Points tracked through a video, and SAM prompted by them, after SAM-PT (Rajic et al. 2023).

SAM-PT's idea with other parts: its point trackers are learned networks, this one is optical flow from OpenCV; it also
has background points, this one none. Its published numbers are not this method's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_uniref.eval.baselines.mask_method import MaskMethod
from sam_uniref.eval.baselines.mask_tracker import EncodedFrame, Followed
from sam_uniref.eval.baselines.prompting import Prompt
from sam_uniref.hosts import Host
from sam_uniref.images import RGB, Mask

Grey = NDArray[np.uint8]
Points = NDArray[np.float32]

_WINDOW = (15, 15)
_PYRAMID_LEVELS = 3


@dataclass(frozen=True)
class PointedObject:
    """What is remembered of an object.

    Attributes:
        grey: ``(H, W)`` uint8, the last frame in which it was seen.
        points: ``(P, 2)`` float32 on it there, as (x, y).
    """

    grey: Grey
    points: Points


class PointTracks(MaskMethod[PointedObject]):
    """Eight points in an object's mask, tracked by pyramidal Lucas-Kanade flow; SAM is asked with those that hold.

    A point holds if it is tracked, inside the frame, and comes back to within 1 px of where it was when it is tracked
    backwards. SAM is asked twice for its single mask: with the points, then also with the first answer's box and
    logits. Where fewer than four points are left, new ones are put into the object's mask of that frame; where none is,
    the object is not seen, and the next frame is looked at from the last one in which it was.

    Args:
        host: The SAM.
        count: How many points are put into a mask, if it has that many pixels.
        fewest: With fewer left, new points are put into the mask.
        tolerance: How far a point may come back from where it was, in pixels.

    Raises:
        ValueError: If ``count`` or ``fewest`` is below 1, or the tolerance is not positive.
    """

    name = "points"

    def __init__(self, host: Host, *, count: int = 8, fewest: int = 4, tolerance: float = 1.0) -> None:
        super().__init__(host)
        if count < 1 or fewest < 1 or not tolerance > 0:
            raise ValueError(
                "count and fewest must be at least 1 and the tolerance above 0, got "
                f"count={count}, fewest={fewest}, tolerance={tolerance}"
            )
        self._count, self._fewest, self._tolerance = count, fewest, tolerance

    def start(self, frame: EncodedFrame, mask: Mask) -> PointedObject:
        """Points in the mask."""
        return PointedObject(grey_picture(frame.picture), spread_points(mask, self._count))

    def follow(self, frame: EncodedFrame, state: PointedObject) -> Followed[PointedObject] | None:
        """Track the points and ask SAM; None if none is left."""
        grey = grey_picture(frame.picture)
        points = tracked_points(state.grey, grey, state.points, self._tolerance)
        if not len(points):
            return None
        prompt = Prompt(points.astype(np.float64), np.ones(len(points), np.int64))
        (first,) = self.sam.candidates(frame.features, prompt, multimask=False)
        answer = self.sam.refine(frame.features, prompt, first, multimask=False)
        return Followed(answer, PointedObject(grey, points))

    def see(self, state: PointedObject, mask: Mask) -> PointedObject:
        """New points, if too few are left."""
        if len(state.points) >= self._fewest:
            return state
        return replace(state, points=spread_points(mask, self._count))


def grey_picture(picture: RGB) -> Grey:
    """``(H, W)`` uint8 of ``(H, W, 3)`` RGB."""
    import cv2

    grey: Grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return grey


def spread_points(mask: Mask, count: int) -> Points:
    """Points well inside a mask and apart from one another, the same for the same mask.

    Each is the pixel farthest from the mask's border, the picture's edge and the points before it.

    Args:
        mask: ``(H, W)`` bool, not empty.
        count: At most so many.

    Returns:
        ``(P, 2)`` float32 as (x, y), all different; P is ``count`` or the number of pixels.
    """
    import cv2

    free = np.pad(mask, 1).astype(np.uint8)
    points = []
    for _ in range(min(count, int(np.count_nonzero(mask)))):
        distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        row, column = np.unravel_index(int(distance.argmax()), distance.shape)
        free[row, column] = 0
        points.append((column - 1, row - 1))
    return np.array(points, np.float32)


def tracked_points(before: Grey, now: Grey, points: Points, tolerance: float) -> Points:
    """Where points of one frame are in another, without those that do not hold.

    Args:
        before: ``(H, W)`` uint8.
        now: ``(H, W)`` uint8.
        points: ``(P, 2)`` float32 as (x, y) in ``before``; P may be 0.
        tolerance: How far a point may come back from where it was, in pixels.

    Returns:
        ``(Q, 2)`` float32 in ``now``, in the points' order.
    """
    import cv2

    if not len(points):
        return points
    options: dict[str, Any] = {"winSize": _WINDOW, "maxLevel": _PYRAMID_LEVELS}
    moved, there, _ = cv2.calcOpticalFlowPyrLK(before, now, points[:, None], None, **options)
    returned, back, _ = cv2.calcOpticalFlowPyrLK(now, before, moved, None, **options)
    astray = np.linalg.norm(returned[:, 0] - points, axis=1)
    inside = ((moved[:, 0] >= 0) & (moved[:, 0] <= np.array(now.shape[::-1]) - 1)).all(axis=1)
    holds = (there[:, 0] == 1) & (back[:, 0] == 1) & (astray < tolerance) & inside
    kept: Points = moved[holds, 0]
    return kept

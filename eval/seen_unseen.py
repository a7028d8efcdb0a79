"""Means over objects of what training has seen and of what it has not, as YouTube-VOS and LVOS report them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sam_uniref.eval.conventions import ObjectKey
from sam_uniref.eval.davis import ObjectScores


@dataclass(frozen=True)
class GroupMeans:
    """One quantity's mean over the objects of each group; None for a group without an object.

    Attributes:
        seen: Of objects that are not in the other group.
        unseen: Of objects of categories, or in videos, unlike training's.
    """

    seen: float | None
    unseen: float | None

    @property
    def mean(self) -> float:
        """Of the two means, so that an object of the smaller group weighs more; of the one that there is."""
        there = [value for value in (self.seen, self.unseen) if value is not None]
        return sum(there) / len(there)


@dataclass(frozen=True)
class SeenUnseenScores:
    """J and F by group, in 0-1.

    Attributes:
        j: Region similarity.
        f: Boundary accuracy.
    """

    j: GroupMeans
    f: GroupMeans

    @property
    def overall(self) -> float:
        """YouTube-VOS's G and LVOS's J&F: the mean of J and F, seen and unseen. Not the mean over all objects."""
        return (self.j.mean + self.f.mean) / 2


def group_means(values: Mapping[ObjectKey, float], unseen: Collection[ObjectKey]) -> GroupMeans:
    """The mean over the objects of each group.

    Args:
        values: Of each object.
        unseen: Which are; others that it names are passed over.

    Raises:
        ValueError: If there is no object.
    """
    if not values:
        raise ValueError("there is no object to take a mean over")
    groups = [[value for key, value in values.items() if (key in unseen) is there] for there in (False, True)]
    seen, new = (sum(group) / len(group) if group else None for group in groups)
    return GroupMeans(seen, new)


def seen_and_unseen(objects: Mapping[ObjectKey, ObjectScores], unseen: Collection[ObjectKey]) -> SeenUnseenScores:
    """J and F by group: of an object the mean over its frames, of a group the mean over its objects.

    Args:
        objects: Scores of each.
        unseen: Which are; others that it names are passed over.

    Raises:
        ValueError: If there is no object.
    """
    j, f = (
        group_means({key: float(getattr(scores, which).mean()) for key, scores in objects.items()}, unseen)
        for which in ("j", "f")
    )
    return SeenUnseenScores(j, f)


def in_videos(objects: Collection[ObjectKey], videos: Collection[str]) -> set[ObjectKey]:
    """Objects of the listed videos: how LVOS tells what is unseen."""
    return {key for key in objects if key[0] in videos}


def not_of_categories(categories: Mapping[ObjectKey, str], known: Collection[str]) -> set[ObjectKey]:
    """Objects of categories that are not among the known: how YouTube-VOS tells what is unseen.

    Args:
        categories: Of each object.
        known: Categories of the training videos.
    """
    return {key for key, category in categories.items() if category not in known}

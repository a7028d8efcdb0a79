"""Reading a cache: the features of pictures by what is on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sam_uniref.cache.description import CacheDescription, held_precision, read_description
from sam_uniref.cache.shard import SHARDS_FOLDER, SUFFIX, BrokenShardError, Shard
from sam_uniref.images import RGB
from sam_uniref.interfaces import ImageBackbone


class NotCachedError(ValueError):
    """A picture of which a cache has no features."""


def picture_key(image: RGB) -> str:
    """What a picture is known by: a hash of its size and its pixels.

    Args:
        image: HWC uint8 RGB, as a model is shown it, before it is brought to the input's size.
    """
    digest = hashlib.sha256(f"{image.shape[0]}x{image.shape[1]} ".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:32]


class ShardIndex:
    """Where each picture's features are, in the shards that a folder has by now.

    Args:
        folder: Of the cache.
        digest: Of its description.

    Attributes:
        shards: By their files' names.
        broken: What is wrong with the files that are no whole shards.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = folder
        self._digest = digest
        self.shards: dict[str, Shard] = {}
        self.broken: dict[str, BrokenShardError] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look for shards that were written since."""
        for path in sorted((self.folder / SHARDS_FOLDER).glob(f"[!.]*{SUFFIX}")):
            if path.name in self.shards:
                continue
            self.broken.pop(path.name, None)  # it may have been made again
            try:
                shard = Shard(path, self._digest)
            except BrokenShardError as error:
                self.broken[path.name] = error
                continue
            except FileNotFoundError:  # another writer found it broken, and took it away
                continue
            self.shards[path.name] = shard
            for row, key in enumerate(shard.keys):
                self._places.setdefault(key, (path.name, row))

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def record(self, key: str) -> Tensor:
        """A picture's record, ``(size,)`` uint8.

        Raises:
            KeyError: If there is none.
            BrokenShardError: If it is not as it was written.
        """
        name, row = self._places[key]
        return self.shards[name].record(row)


class FeatureCache:
    """The features of all pictures of a run, for `sam_uniref.data.collate`.

    Loader processes may share it: each maps the files it reads, none keeps them open.

    Args:
        folder: Of the cache.
        description: Of what it is.

    Raises:
        BrokenShardError: If one of its files is no whole shard.
    """

    def __init__(self, folder: Path, description: CacheDescription) -> None:
        self.folder = folder
        self.description = description
        self._index = ShardIndex(folder, description.digest)
        for error in self._index.broken.values():
            raise error

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._index)

    def levels(self, pictures: Sequence[RGB], names: Sequence[str]) -> tuple[Tensor, ...]:
        """The features of P pictures.

        Args:
            pictures: Each HWC uint8 RGB, as it is shown to the model.
            names: Of samples that they are in, for messages.

        Returns:
            Per level ``(P, C, h, w)``: bfloat16, or float32 if the cache keeps it.

        Raises:
            NotCachedError: If there are none of a picture.
            BrokenShardError: If they are not as they were written.
        """
        found = []
        for picture, name in zip(pictures, names, strict=True):
            key = picture_key(picture)
            if key not in self._index:
                raise NotCachedError(
                    f"{self.folder} has no features of a picture of {name} ({picture.shape[1]}x{picture.shape[0]}, "
                    f"key {key}); the data or its views changed since, or pictures are decoded otherwise here. Add "
                    f"what is missing with: sam-uniref cache --data DATA --model MODEL --out {self.folder}"
                )
            found.append(self.description.layout.unpack(self._index.record(key)))
        return tuple(torch.stack(level) for level in zip(*found, strict=True))


def open_cache(folder: str | Path, backbone: ImageBackbone) -> FeatureCache:
    """The cache of a frozen encoder; see `ReferenceSegmenter.frozen_backbone`.

    An encoder in float32 takes features of whatever it was computed in; a rounded one only those of its own precision.

    Raises:
        FileNotFoundError: If the folder holds no cache.
        ValueError: If it is of another encoder or input size, or of a precision that a rounded encoder has not.
        BrokenShardError: If one of its files is no whole shard.
    """
    described = read_description(folder)
    held = held_precision(backbone)
    computed = described.computed_in if held == "float32" else held
    described.check(CacheDescription.of(backbone, described.precision, computed), Path(folder))
    return FeatureCache(Path(folder), described)

"""A cache of made-up pictures, and a stand-in for SAM's encoder that is quick and known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sam_uniref.cache import CacheDescription, CacheWriter
from sam_uniref.images import RGB
from sam_uniref.transforms import ImageTransform, SquareTransform


class QuickBackbone:
    """An `ImageBackbone` of one convolution, which counts the pictures it sees."""

    def __init__(self, size: int = 16, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._convolution = nn.Conv2d(3, 8, 4, stride=4)
        self.transform: ImageTransform = SquareTransform(size, (123.0, 117.0, 104.0), (58.0, 57.0, 57.0))
        self.strides: tuple[int, ...] = (4,)
        self.channels = 8
        self.seen = 0

    @property
    def encoder(self) -> nn.Module:
        return self._convolution

    def encode(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        self.seen += len(pixels)
        return (self._convolution(pixels),), ()


@dataclass(frozen=True)
class MadePicture:
    """A `ShownPicture` of two views; any two of different numbers differ."""

    number: int

    @property
    def name(self) -> str:
        return f"made/{self.number}.jpg"

    @property
    def most_views(self) -> int:
        return 2

    def views(self) -> list[RGB]:
        image = np.random.default_rng(self.number).integers(0, 256, (12, 16, 3)).astype(np.uint8)
        return [image, np.ascontiguousarray(image[:, ::-1])]


class MissingPicture(MadePicture):
    """One whose file is gone."""

    def views(self) -> list[RGB]:
        raise FileNotFoundError(f"there is no picture {self.name}")


def made(count: int) -> list[MadePicture]:
    return [MadePicture(number) for number in range(count)]


def images(count: int) -> list[RGB]:
    """All views of some made pictures."""
    return [view for item in made(count) for view in item.views()]


def written(folder: Path, count: int = 4, precision: str = "float32", shard_views: int = 4) -> CacheDescription:
    """A cache of some made pictures."""
    backbone = QuickBackbone()
    description = CacheDescription.of(backbone, precision)
    CacheWriter(folder, backbone, description).write(made(count), shard_views)
    return description


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "shards").glob("[!.]*"))


def flip_bit(path: Path, at: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))

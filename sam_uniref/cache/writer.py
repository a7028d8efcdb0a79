"""Writing a cache: the work of one process, alone or among others on this machine and on others.

Each takes pieces of the work that no other is at; a shard appears whole or not at all, so that a process that is killed
loses the shard it was making and nothing else.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sam_uniref.cache.claims import claimed
from sam_uniref.cache.description import CacheDescription, held_precision
from sam_uniref.cache.features import ShardIndex, picture_key
from sam_uniref.cache.shard import Record, write_shard
from sam_uniref.data.shown import ShownPicture
from sam_uniref.interfaces import ImageBackbone
from sam_uniref.prefetch import Prefetch

Report = Callable[[int, int], None]
"""Is told of views: so many were seen to since, and so many of them encoded."""


@dataclass(frozen=True)
class _View:
    """A view that is to be encoded.

    Attributes:
        key: See `picture_key`.
        name: Of the picture that it is of.
        pixels: ``(3, S, S)``, the encoder's input.
    """

    key: str
    name: str
    pixels: Tensor


def pieces_of(pictures: Sequence[ShownPicture], shard_views: int) -> list[list[ShownPicture]]:
    """Pictures in order, in lists whose views fill a shard."""
    pieces: list[list[ShownPicture]] = []
    room = 0
    for picture in pictures:
        if picture.most_views > room:
            pieces.append([])
            room = shard_views
        pieces[-1].append(picture)
        room -= picture.most_views
    return pieces


class CacheWriter:
    """One process that writes.

    Args:
        folder: Of the cache; made if it is not there.
        backbone: The frozen encoder, on the device that it is to work on.
        description: Of what the cache is.
        batch_size: Views that are encoded at a time.
        threads: That read pictures ahead.

    Raises:
        ValueError: If the folder holds a cache of something else, or the encoder is held in another precision.
    """

    def __init__(
        self,
        folder: Path,
        backbone: ImageBackbone,
        description: CacheDescription,
        *,
        batch_size: int = 1,
        threads: int = 2,
    ) -> None:
        held, computed = held_precision(backbone), description.computed_in
        if held != ("float32" if computed == "bfloat16" else computed):
            raise ValueError(f"the encoder is held in {held}, and the cache is of one that computes in {computed}")
        folder.mkdir(parents=True, exist_ok=True)
        description.write(folder)
        self.folder, self.description = folder, description
        self._backbone, self._batch_size, self._threads = backbone, batch_size, threads
        self._index = ShardIndex(folder, description.digest)

    def write(
        self,
        pictures: Sequence[ShownPicture],
        shard_views: int,
        *,
        share: tuple[int, int] = (0, 1),
        report: Report | None = None,
    ) -> int:
        """Encode what is missing of some pictures.

        Args:
            pictures: What is to be in the cache.
            shard_views: Views in a shard, about.
            share: ``(r, n)``: this is the r-th of n processes that were given the same pictures and begin apart. All
                of them see to it that everything is done.
            report: Called after every batch.

        Returns:
            How many views were encoded here.

        Raises:
            FileNotFoundError: If a picture is not there.
            ValueError: If a picture is broken, or its features are not finite.
            OSError: If the disk is full; what is whole stays.
        """
        pieces = pieces_of(pictures, shard_views)
        begin = len(pieces) * share[0] // share[1]
        encoded, others = 0, []
        for piece in (*pieces[begin:], *pieces[:begin]):
            done = self._write_piece(piece, report, wait=False)
            if done is None:
                others.append(piece)
            encoded += done or 0
        for piece in others:  # what those who were at it could not finish is done now
            encoded += self._write_piece(piece, report, wait=True) or 0
        return encoded

    def _write_piece(self, piece: Sequence[ShownPicture], report: Report | None, *, wait: bool) -> int | None:
        """Encode what is missing of some pictures into a shard; None if another process is at them."""
        names = "\n".join(picture.name for picture in piece)
        with claimed(self.folder, hashlib.sha256(names.encode()).hexdigest()[:16], wait=wait) as mine:
            if not mine:
                return None
            self._index.refresh()
            records: list[Record] = []
            seen = 0
            for views in Prefetch(self._batches(piece), ahead=2):
                records += self._encoded(views)
                seen += len(views)
                if report is not None:
                    report(len(views), len(views))
            if records:
                write_shard(self.folder, self.description.digest, records)
                self._index.refresh()
            if report is not None:
                report(sum(picture.most_views for picture in piece) - seen, 0)
        return len(records)

    def _batches(self, piece: Sequence[ShownPicture]) -> Generator[list[_View], None, None]:
        """What is missing, so many views at a time."""
        batch: list[_View] = []
        for views in self._read(piece):
            for view in views:
                batch.append(view)
                if len(batch) == self._batch_size:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _read(self, piece: Sequence[ShownPicture]) -> Iterator[list[_View]]:
        """Of each picture the views that are missing, read by threads a little ahead."""
        begun: set[str] = set()
        waiting: deque[Future[list[_View]]] = deque()
        with ThreadPoolExecutor(self._threads) as pool:
            for picture in piece:
                waiting.append(pool.submit(self._missing_views, picture))
                if len(waiting) > self._threads:
                    yield _once(waiting.popleft().result(), begun)
            while waiting:
                yield _once(waiting.popleft().result(), begun)

    def _missing_views(self, picture: ShownPicture) -> list[_View]:
        """The views of a picture that the cache does not have."""
        keyed = {picture_key(image): image for image in picture.views()}
        return [
            _View(key, picture.name, self._backbone.transform.image(image)[0])
            for key, image in keyed.items()
            if key not in self._index
        ]

    @torch.inference_mode()
    def _encoded(self, views: Sequence[_View]) -> list[Record]:
        """Records of views, encoded in one call."""
        device = next(self._backbone.encoder.parameters()).device
        half = self.description.computed_in == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            levels, _ = self._backbone.encode(torch.stack([view.pixels for view in views]).to(device))
        layout = self.description.layout
        records = []
        for row, view in enumerate(views):
            try:
                content = layout.pack([level[row] for level in levels])
            except ValueError as error:
                raise ValueError(f"{view.name}: {error}") from error
            records.append(Record(view.key, view.name, content))
        return records


def _once(views: list[_View], begun: set[str]) -> list[_View]:
    """Those that did not come before, in another picture."""
    new = [view for view in views if view.key not in begun]
    begun.update(view.key for view in new)
    return new

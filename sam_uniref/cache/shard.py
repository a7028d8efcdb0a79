"""A shard: the features of some pictures in one file, memory-mapped, with a checksum each.

```
0    8 bytes  magic
8    8 bytes  length of the header, little-endian, as are all numbers
16   4 bytes  CRC-32 of the header
20   4 bytes  zero
24   header   JSON: {"cache": digest of the description, "size": bytes a record, "records": [[key, name, CRC-32], ...]}
...  zeros to the next multiple of 4096
     records  one after another
```
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sam_uniref.state import whole_file

SHARDS_FOLDER = "shards"
SUFFIX = ".features"

_MAGIC = b"SUFEAT01"
_START = struct.Struct("<8sQII")
_PAGE = 4096
# No header is as long: a number beyond it is a broken one.
_LONGEST_HEADER = 1 << 30


class BrokenShardError(ValueError):
    """A file that is not as it was written.

    Attributes:
        path: Of the file.
    """

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path} is broken: {what}. The command that made the cache makes it again: "
            f"sam-uniref cache --data DATA --model MODEL --out {path.parent.parent}"
        )
        self.path = path

    def __reduce__(self) -> Any:
        """Loader processes send it to the one that trains."""
        return _broken_again, (self.path, str(self))


def _broken_again(path: Path, message: str) -> BrokenShardError:
    error = BrokenShardError(path, "")
    error.args = (message,)
    return error


@dataclass(frozen=True)
class Record:
    """One picture's features, to be written.

    Attributes:
        key: Of the picture; see `sam_uniref.cache.features.picture_key`.
        name: Of what it came from, for messages.
        content: ``(size,)`` uint8.
    """

    key: str
    name: str
    content: Tensor


def write_shard(folder: Path, digest: str, records: Sequence[Record]) -> Path:
    """Write a shard; it is whole or not there.

    Args:
        folder: Of the cache.
        digest: Of its description.
        records: At least one, all of one size.

    Returns:
        Its file, named after the pictures: the same ones again take its place.
    """
    entries = [[record.key, record.name, zlib.crc32(record.content.numpy().data)] for record in records]
    header = json.dumps({"cache": digest, "size": len(records[0].content), "records": entries}).encode()
    name = hashlib.sha256("".join(record.key for record in records).encode()).hexdigest()[:16]
    path = folder / SHARDS_FOLDER / f"{name}{SUFFIX}"
    with whole_file(path) as temporary, temporary.open("wb") as file:
        file.write(_START.pack(_MAGIC, len(header), zlib.crc32(header), 0))
        file.write(header)
        file.write(bytes(_first_record(len(header)) - file.tell()))
        for record in records:
            file.write(record.content.numpy().data)
        file.flush()
        os.fsync(file.fileno())  # the name must not be on the disk before the content is
    return path


def _first_record(header: int) -> int:
    """Where the records begin, after a header of so many bytes."""
    return -(-(_START.size + header) // _PAGE) * _PAGE


class Shard:
    """A shard that is read.

    Its file is mapped when a record is first asked for, and stays so without being held open, so that any number of
    shards can be in use. A record's checksum is compared when a process first reads it.

    Args:
        path: Its file.
        digest: Of the description of the cache that it must belong to.

    Raises:
        BrokenShardError: If it is too short or too long, its header is not as it was written, or it belongs elsewhere.
        FileNotFoundError: If there is no such file.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path = path
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            header, start = self._read_header(file)
        if header["cache"] != digest:
            raise BrokenShardError(path, f"it belongs to another cache, {header['cache']}")
        self._start, self._size = start, header["size"]
        self.keys: tuple[str, ...] = tuple(entry[0] for entry in header["records"])
        self.names: tuple[str, ...] = tuple(entry[1] for entry in header["records"])
        self._checksums = [entry[2] for entry in header["records"]]
        wanted = start + self._size * len(self)
        if length != wanted:
            raise BrokenShardError(path, f"it is {length} bytes long, and should be {wanted}")
        self._bytes: Tensor | None = None
        self._checked = bytearray(len(self))

    def _read_header(self, file: Any) -> tuple[dict[str, Any], int]:
        """The header, and where the records begin."""
        begin = file.read(_START.size)
        if len(begin) < _START.size:
            raise BrokenShardError(self.path, "it has no header")
        magic, length, checksum, _ = _START.unpack(begin)
        if magic != _MAGIC or length > _LONGEST_HEADER:
            raise BrokenShardError(self.path, "it does not begin as a shard does")
        header = file.read(length)
        if len(header) < length or zlib.crc32(header) != checksum:
            raise BrokenShardError(self.path, "its header is not as it was written")
        return json.loads(header), _first_record(length)

    def __len__(self) -> int:
        """Number of records."""
        return len(self.keys)

    def __getstate__(self) -> dict[str, Any]:
        """Without the mapping: other processes make their own."""
        return self.__dict__ | {"_bytes": None}

    @property
    def bytes_on_disk(self) -> int:
        """Length of the file."""
        return self._start + self._size * len(self)

    def record(self, row: int) -> Tensor:
        """A record's bytes, ``(size,)`` uint8: a view of the mapped file.

        Raises:
            BrokenShardError: If they are not as they were written, naming the picture.
        """
        if self._bytes is None:
            if self.path.stat().st_size != self.bytes_on_disk:  # to read beyond the end would end the process
                raise BrokenShardError(self.path, "it was cut off")
            self._bytes = torch.from_file(str(self.path), shared=False, size=self.bytes_on_disk, dtype=torch.uint8)
        start = self._start + row * self._size
        record = self._bytes[start : start + self._size]
        if not self._checked[row]:
            if zlib.crc32(record.numpy().data) != self._checksums[row]:
                raise BrokenShardError(self.path, f"the checksum of the features of {self.names[row]} does not match")
            self._checked[row] = True
        return record

    def check(self) -> None:
        """Read everything.

        Raises:
            BrokenShardError: If something is not as it was written.
        """
        for row in range(len(self)):
            self.record(row)
        self._bytes = None

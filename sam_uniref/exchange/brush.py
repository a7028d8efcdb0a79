"""Label Studio's brush run-length encoding: a stream of bits, given as a list of bytes.

It is thi.ng's rle-pack of a picture's four channels (R, G, B, A), a byte each, line by line. The stream begins with how
many values there are (32 bits), the width of a value less one (5 bits), and the widths less one of the four kinds of
length (4 bits each). Then come blocks: one bit, two bits for the kind of length, the length less one. After a 1 follows
the value that all of the block have, after a 0 as many values as the block is long. Zeros fill the last byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_uniref.exchange.labelled import check_mask, check_size
from sam_uniref.images import Mask
from sam_uniref.transforms import Size

_CHANNELS, _ALPHA = 4, 3
_VALUE_BITS = 8
# Widths of the four kinds of length that Label Studio's own tools write.
_LENGTH_BITS = (3, 4, 8, 16)
_INSIDE = 255


def encode_brush(mask: Mask) -> list[int]:
    """A mask as ``value.rle`` of Label Studio's ``brushlabels``: all channels 255 inside, 0 outside.

    Args:
        mask: ``(H, W)`` bool.

    Raises:
        ValueError: If it is no such array.
    """
    check_mask(mask)
    bits = [f"{_CHANNELS * mask.size:032b}", f"{_VALUE_BITS - 1:05b}", *(f"{bits - 1:04b}" for bits in _LENGTH_BITS)]
    flat = mask.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(np.append(starts, flat.size)) * _CHANNELS
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = f"{_INSIDE * int(flat[start]):0{_VALUE_BITS}b}"
        bits.extend(f"1{block}{value}" for block in _lengths(length))
    stream = "".join(bits)
    # Label Studio's reader asks for bits beyond the last ones: there is always a zero more.
    stream += "0" * (8 - len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8, "big"))


def decode_brush(rle: Sequence[int], size: Size) -> Mask:
    """``value.rle`` to ``(H, W)`` bool, True where it is not wholly transparent.

    Args:
        rle: Bytes, as they stand in the JSON file.
        size: ``(height, width)``: ``original_height`` and ``original_width``.

    Raises:
        ValueError: If it is no list of bytes, of another size, or cut off.
    """
    height, width = check_size(*size)
    bits = _Bits(_bytes(rle))
    count, value_bits = bits.read(32), bits.read(5) + 1
    length_bits = [bits.read(4) + 1 for _ in range(4)]
    if count != _CHANNELS * height * width:
        raise ValueError(
            f"the brush holds {count} values, but {width}x{height} pixels (width x height) have "
            f"{_CHANNELS * height * width}: it is of another picture, or its size is turned"
        )
    alpha = np.zeros(height * width, bool)
    done = 0
    while done < count:
        alike = bits.read(1)
        length = bits.read(length_bits[bits.read(2)]) + 1
        if done + length > count:
            raise ValueError(f"the brush holds more than the {count} values that it speaks of: it is broken")
        # The first pixel whose alpha is in the block, and the one after the last.
        first, stop = (done + _CHANNELS - 1 - _ALPHA) // _CHANNELS, (done + length - 1 - _ALPHA) // _CHANNELS + 1
        if alike:
            alpha[first:stop] = bits.read(value_bits) > 0
        else:
            values = bits.read_many(length, value_bits)
            alpha[first:stop] = values[first * _CHANNELS + _ALPHA - done :: _CHANNELS] > 0
        done += length
    return alpha.reshape(height, width)


def _lengths(length: int) -> Iterator[str]:
    """The kind and the length of blocks that make up one run."""
    longest = 2 ** _LENGTH_BITS[-1]
    while length > longest:
        yield f"11{longest - 1:0{_LENGTH_BITS[-1]}b}"
        length -= longest
    kind = next(kind for kind, bits in enumerate(_LENGTH_BITS) if length <= 2**bits)
    yield f"{kind:02b}{length - 1:0{_LENGTH_BITS[kind]}b}"


def _bytes(rle: Any) -> bytes:
    """What the JSON file has as bytes."""
    if not isinstance(rle, Sequence) or isinstance(rle, str):
        raise ValueError(f"a brush's rle is a list of bytes, got {type(rle).__name__}")
    if not all(type(byte) is int and 0 <= byte <= 255 for byte in rle):
        raise ValueError("a brush's rle is a list of whole numbers in 0-255, got something else in it")
    return bytes(rle)


class _Bits:
    """A stream of bits, the highest of a byte first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def read(self, count: int) -> int:
        """The next ``count`` bits as a number."""
        begin, end = self._place, self._place + count
        self._check(end)
        self._place = end
        window = int.from_bytes(self._data[begin // 8 : (end + 7) // 8], "big")
        return (window >> (-end % 8)) & ((1 << count) - 1)

    def read_many(self, numbers: int, width: int) -> NDArray[np.int64]:
        """The next numbers ``(numbers,)`` of ``width`` bits each."""
        begin, end = self._place, self._place + numbers * width
        self._check(end)
        self._place = end
        window = np.frombuffer(self._data[begin // 8 : (end + 7) // 8], np.uint8)
        bits = np.unpackbits(window)[begin % 8 :][: numbers * width].reshape(numbers, width)
        weights = np.int64(1) << np.arange(width - 1, -1, -1, dtype=np.int64)
        numbers_read: NDArray[np.int64] = bits.astype(np.int64) @ weights
        return numbers_read

    def _check(self, end: int) -> None:
        if end > 8 * len(self._data):
            raise ValueError("the brush's rle ends before its last value: it is cut off")

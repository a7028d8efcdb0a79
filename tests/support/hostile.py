"""Files and names that no visitor should be able to do harm with."""

from __future__ import annotations

import base64
import io
import struct
import zipfile
import zlib

import numpy as np
from hypothesis import strategies as st
from PIL import Image as PILImage


def encoded(picture: np.ndarray, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    PILImage.fromarray(picture).save(file, format=kind, **options)
    return file.getvalue()


def noise(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def painted(mask: np.ndarray, mode: str = "RGBA") -> str:
    """What the page sends of a mask that was painted on a picture."""
    image = np.zeros((*mask.shape, 4), np.uint8)
    image[mask] = 255
    file = io.BytesIO()
    PILImage.fromarray(image).convert(mode).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def gif(frames: int) -> bytes:
    file = io.BytesIO()
    first, *others = [PILImage.fromarray(np.full((16, 16), 40 * n, np.uint8)) for n in range(frames)]
    first.save(file, format="GIF", save_all=True, append_images=others)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../outside.png", encoded(noise(), "PNG"))
    return file.getvalue()


HOSTILE = {
    "empty": b"",
    "text": b"just some text in a file called .jpg\n" * 20,
    "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "html": b"<!doctype html><html><script>alert(1)</script></html>",
    "zip": zipped(),
    "bomb": bomb(30_000, 30_000),
    "huge": bomb(2**31 - 1, 2**31 - 1),
    "narrow": encoded(noise(8, 600), "PNG"),
    "tiny": encoded(noise(2, 2), "PNG"),
    "moving": gif(3),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage\n",
    "playlist": b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n",
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "executable": b"\x7fELF" + bytes(200),
    "pickle": b"\x80\x04cposix\nsystem\n.",
    "too many bytes": bytes(2**20 + 1),
}

PICTURES = {kind: encoded(noise(16, 24), kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF")} | {"moving": gif(3)}

NAMES = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["../../../etc/passwd", "a\0b.png", "..", "/etc/passwd", "C:\\boot.ini", "x" * 4096, "\u202egnp.exe"]
)


def mutated(data: st.DataObject, seed: bytes) -> bytes:
    """A good file cut off, with bits turned, bytes put in, or another file behind it."""
    kind = data.draw(st.sampled_from(["cut", "flip", "insert", "polyglot", "header"]))
    if kind == "cut":
        return seed[: data.draw(st.integers(0, len(seed)))]
    if kind == "polyglot":
        return seed + data.draw(st.sampled_from(list(HOSTILE.values())[1:7]))
    if kind == "header":
        return data.draw(st.binary(min_size=1, max_size=16)) + seed[16:]
    changed = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(0, len(changed) - 1))
        if kind == "flip":
            changed[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            changed[at:at] = data.draw(st.binary(max_size=8))
    return bytes(changed)

"""What a SAM image encoder can't do without: its matrix products, and the bytes they read and write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from sam_uniref.sam import ImageEncoder
from sam_uniref.sam.image_encoder import EncoderBlock

# A product large enough for full speed and small enough for a second or so.
_SIDES = {"cpu": 2048, "cuda": 8192}
_COPIED_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}
COPY = "copy"


@dataclass(frozen=True)
class Probe:
    """Something to be timed.

    Attributes:
        run: Does it once.
        work: Operations, or bytes read and written.
    """

    run: Callable[[], Tensor]
    work: int


@dataclass(frozen=True)
class Product:
    """So many products of a ``(rows, inner)`` matrix and an ``(inner, columns)`` one.

    Attributes:
        rows: Of the first.
        inner: Common.
        columns: Of the second.
        count: How many.
        stored: Whether what comes out is used by anything else than the next product, as logits need not be.
    """

    rows: int
    inner: int
    columns: int
    count: int = 1
    stored: bool = True

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.inner * self.columns * self.count

    @property
    def elements(self) -> int:
        """Read and written, each once."""
        read = self.inner * (self.rows + self.columns)
        return (read + self.rows * self.columns) * self.count if self.stored else read * self.count


def products(encoder: ImageEncoder, batch_size: int) -> Iterator[Product]:
    """The matrix products of one batch.

    Only what must be: cells that fill up windows are keys for the others, as segment-anything has it, but have no
    queries and are not projected.
    """
    grid = encoder.img_size // encoder.patch_embed.proj.kernel_size[0]
    tokens = batch_size * grid**2
    patch = encoder.patch_embed.proj
    yield Product(tokens, patch.weight[0].numel(), patch.out_channels)
    for block in cast(list[EncoderBlock], encoder.blocks):
        attention, mlp = block.attn, block.mlp
        width, heads = attention.proj.in_features, attention.num_heads
        side = attention.window_size or grid
        windows = batch_size * (-(-grid // side)) ** 2
        queries = tokens // windows  # on average: the last windows have fewer
        yield Product(tokens, width, 3 * width)
        yield Product(queries, width // heads, side**2, windows * heads, stored=False)
        yield Product(tokens * heads, width // heads, 2 * side, stored=False)  # relative positions
        yield Product(queries, side**2, width // heads, windows * heads)
        yield Product(tokens, width, width)
        hidden = mlp.lin1.out_features
        yield Product(tokens, width, hidden)
        yield Product(tokens, hidden, width)
    for convolution in cast(list[nn.Conv2d], [encoder.neck[0], encoder.neck[2]]):
        yield Product(tokens, convolution.weight[0].numel(), convolution.out_channels)


def peak_probes(device: torch.device, precisions: Mapping[str, torch.dtype]) -> dict[str, Probe]:
    """What shows how fast a machine is at best: a large matrix product in each precision, and a large copy.

    Args:
        device: To run on.
        precisions: By the names of the products' probes; the copy's is `COPY`.
    """
    side = _SIDES.get(device.type, _SIDES["cpu"])
    probes = {name: _product_probe(side, device, dtype) for name, dtype in precisions.items()}
    source = torch.ones(_COPIED_BYTES.get(device.type, _COPIED_BYTES["cpu"]) // 4, device=device)
    target = torch.empty_like(source)
    return {**probes, COPY: Probe(lambda: target.copy_(source), 2 * source.nbytes)}


def _product_probe(side: int, device: torch.device, precision: torch.dtype) -> Probe:
    """Of two square matrices."""
    left, right = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
    return Probe(lambda: left @ right, 2 * side**3)

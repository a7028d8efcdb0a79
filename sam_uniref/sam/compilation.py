"""The image encoder's blocks compiled by `torch.compile`, where there is a compiler."""

from __future__ import annotations

import logging
import time

import torch
from torch import Tensor, nn

from sam_uniref.sam.image_encoder import run_block

logger = logging.getLogger(__name__)


class CompiledBlocks:
    """Runs blocks compiled, and as they are from the first time on that this fails.

    All blocks of one kind, in windows or over the whole grid, share what was compiled: two compilations a device,
    precision and shape, whatever the number of blocks.
    """

    def __init__(self) -> None:
        self._compiled = torch.compile(run_block, dynamic=False)
        self._known: set[tuple[object, ...]] = set()
        self.works = True

    def __reduce__(self) -> tuple[type[CompiledBlocks], tuple[()]]:
        """What was compiled stays in its process; another one compiles anew."""
        return CompiledBlocks, ()

    def __call__(self, block: nn.Module, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` to the same."""
        if not self.works:
            return run_block(block, x)
        kind = (block.window_size, x.device, x.dtype, *x.shape)
        if kind in self._known:
            return self._compiled(block, x)
        where = "over the whole grid" if block.window_size == 0 else f"in windows of {block.window_size}"
        about = f"the image encoder's attention {where}, {tuple(x.shape[:3])} tokens on {x.device}"
        logger.info("compiling %s: once a process, up to some minutes", about)
        start = time.perf_counter()
        try:
            result = self._compiled(block, x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ImportError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            logger.warning(
                "the image encoder runs uncompiled, with the same answers: torch.compile failed (%s). On a CPU it needs"
                " a C++ compiler such as g++, on a GPU Triton",
                reason,
            )
            self.works = False
            return run_block(block, x)
        logger.info("compiled in %.0f s", time.perf_counter() - start)
        self._known.add(kind)
        return result

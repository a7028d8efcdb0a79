"""Where a GPU would make the host wait: operations whose result the host must know, counted on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_WAITING = ("aten.nonzero.default", "aten._local_scalar_dense.default", "aten.is_nonzero.default")


class HostWaits(TorchDispatchMode):
    """Counts `nonzero`, numbers that are read, and selections by a bool tensor, each a `nonzero` of its own.

    Attributes:
        seen: Names of these operations, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Count and go on."""
        indices = args[1] if str(func).startswith("aten.index") and len(args) > 1 and isinstance(args[1], list) else []
        by_bool = any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices)
        if by_bool or str(func) in _WAITING:
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))

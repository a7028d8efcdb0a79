"""What a forward pass keeps for its gradients."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor, nn


class KeptBytes:
    """While in use, adds up the memory that is kept for gradients, each piece of it once; that of weights is not.

    Args:
        model: Its parameters and buffers are there in any case.

    Attributes:
        total: In bytes.
    """

    def __init__(self, model: nn.Module) -> None:
        self.total = 0
        # Holding the memory keeps its address from being given to another one, which would not be counted then.
        self._seen = {_address(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._count, _as_it_is)

    def __enter__(self) -> KeptBytes:
        """Begin."""
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End; what is kept is as it was."""
        self._hooks.__exit__(kind, error, traceback)
        self._seen.clear()

    def _count(self, tensor: Tensor) -> Tensor:
        if _address(tensor) not in self._seen:
            self._seen[_address(tensor)] = tensor.detach()
            self.total += tensor.untyped_storage().nbytes()
        return tensor


def _address(tensor: Tensor) -> int:
    """Of its memory; tensors without any (of the meta device) are told apart as well."""
    return tensor.untyped_storage()._cdata


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor

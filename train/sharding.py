"""Parameters of which each process holds a share (FSDP2): what is shared out, and made whole to be written or measured.

Where nothing is shared out, everything here leaves things as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from sam_uniref.detr.decoder import DecoderLayer
from sam_uniref.detr.encoder import EncoderLayer
from sam_uniref.train.checkpoints import Checkpointed
from sam_uniref.trainable import TrainableModel


def share_out(accelerator: Accelerator, model: TrainableModel) -> None:
    """Say what `Accelerator.prepare` is to share out under FSDP2: all that is trained, layer by layer.

    What is frozen has neither gradients nor moments, and is whole on every process. Weights stay float32 and autocast
    computes in the run's precision, as with one process.
    """
    if not accelerator.is_fsdp2:
        return
    plugin = accelerator.state.fsdp_plugin
    frozen = [part.module for part in model.parts() if not any(p.requires_grad for p in part.module.parameters())]
    for module in frozen:
        module.to(accelerator.device)
    plugin.ignored_modules = frozen
    plugin.transformer_cls_names_to_wrap = _layers(model, frozen)
    plugin.mixed_precision_policy = MixedPrecisionPolicy()


def _layers(model: TrainableModel, frozen: list[nn.Module]) -> list[str]:
    """Names of classes that are gathered one at a time, each run by being called: those of language models say so."""
    there = set(model.modules()) - {m for module in frozen for m in module.modules()}
    named = {name for m in there for name in getattr(m, "_no_split_modules", None) or ()}
    named |= {EncoderLayer.__name__, DecoderLayer.__name__}
    return sorted({type(m).__name__ for m in there} & named)


def whole(value: Any) -> Any:
    """Nested tensors with every share replaced by the whole, on the CPU; on all processes at once."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, Mapping):
        return {key: whole(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(inner) for inner in value)
    return value


def share_of(value: Tensor, like: object) -> Tensor:
    """This process's share of a whole tensor, if ``like``, of the same shape, is shared out."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    # Every process has read the same file, and none need be told by another.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


@dataclass(frozen=True)
class WholeModel:
    """A model to be restored from whole tensors; see `Checkpointed`.

    Attributes:
        model: Whose parameters may be shared out.
    """

    model: Checkpointed

    def trained_state_dict(self) -> dict[str, Tensor]:
        """Whole; on all processes at once."""
        gathered: dict[str, Tensor] = whole(self.model.trained_state_dict())
        return gathered

    def load_trained_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Take a share of each."""
        mine = self.model.trained_state_dict()
        self.model.load_trained_state_dict({n: share_of(t, mine.get(n)) for n, t in state_dict.items()})


@dataclass(frozen=True)
class WholeOptimizer:
    """As much of an optimiser as checkpoints know, to be restored from whole moments.

    Attributes:
        optimizer: Whose parameters may be shared out.
    """

    optimizer: torch.optim.Optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimiser's own."""
        return self.optimizer.param_groups

    def state_dict(self) -> dict[str, Any]:
        """Whole; on all processes at once."""
        gathered: dict[str, Any] = whole(self.optimizer.state_dict())
        return gathered

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a share of each."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        state = {
            number: {name: share_of(t, parameters[number]) if isinstance(t, Tensor) else t for name, t in held.items()}
            for number, held in state_dict["state"].items()
        }
        self.optimizer.load_state_dict({**state_dict, "state": state})


@dataclass(frozen=True)
class Gathered:
    """What a checkpoint holds, ready to be written by one process.

    Attributes:
        trained: Of the model.
        moments: Of the optimiser.
    """

    trained: dict[str, Tensor]
    moments: dict[str, Any]

    def trained_state_dict(self) -> dict[str, Tensor]:
        """As a model gives it."""
        return self.trained

    def state_dict(self) -> dict[str, Any]:
        """As an optimiser gives it."""
        return self.moments


@contextmanager
def whole_parameters(model: nn.Module) -> Iterator[None]:
    """Have whole parameters within, on the CPU, to be saved; on all processes at once."""
    shares = [
        (module, name, cast(nn.Parameter, parameter))
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if isinstance(parameter, DTensor)
    ]
    try:
        for module, name, share in shares:
            module._parameters[name] = nn.Parameter(whole(share.detach()), share.requires_grad)
        yield
    finally:
        for module, name, share in shares:
            module._parameters[name] = share


@contextmanager
def usable_parameters(model: nn.Module) -> Iterator[None]:
    """Run parts of a model within, as each process likes, without meeting the others; on all processes at once."""
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_forward(module is not model, recurse=False)
            module.reshard()

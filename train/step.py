"""One optimiser step over its micro-batches, on all processes alike."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator

from sam_uniref.data import ReferenceBatch
from sam_uniref.train.build import learning_rate_factor
from sam_uniref.train.settings import RunSettings

# Of the loss with fp16, as fairseq has it.
_LOWEST_SCALE = 1e-4


def take_step(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: Any,
    batches: list[ReferenceBatch],
    settings: RunSettings,
    step: int,
) -> dict[str, float]:
    """One optimiser step over its micro-batches; returns the mean losses over processes.

    Raises:
        FloatingPointError: If a loss or the gradient is not finite on any process; nothing is changed then. With fp16
            if no scale makes the gradient finite.
    """
    # Dropout's draws belong to the step and the process, so a resumed run repeats them.
    torch.manual_seed(hash((settings.seed, step, accelerator.process_index)) % 2**63)
    weights = settings.loss.weights(step)
    summed: dict[str, torch.Tensor] = {}
    for batch in batches:
        with accelerator.accumulate(model):
            with accelerator.autocast():  # which FSDP2 leaves to us
                losses = model(batch.to(accelerator.device))
            total = sum(weights[name] * loss for name, loss in losses.items())
            for name, loss in {"loss": total, **losses}.items():
                summed[name] = summed.get(name, 0) + loss.detach() / len(batches)
            check_finite(accelerator, total, batch)
            accelerator.backward(total)
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(model.parameters(), settings.optimiser.clip)
                # fp16's scaler passes over such a step and lowers its scale; without one the run is lost.
                if accelerator.scaler is None and not torch.isfinite(norm):
                    names = "; ".join(name for batch in batches for name in batch.names)
                    raise FloatingPointError(f"the gradient is not finite for the samples {names}")
                factor = learning_rate_factor(step, settings.optimiser)
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    check_scale(accelerator, optimizer, batches)
    reduced = accelerator.reduce(torch.stack(list(summed.values())), reduction="mean")
    return dict(zip(summed, reduced.tolist(), strict=True))


def check_scale(accelerator: Accelerator, optimizer: Any, batches: list[ReferenceBatch]) -> None:
    """Stop if fp16's scaler has passed over so many steps that what it lets through would be nothing."""
    if accelerator.scaler is None or not optimizer.step_was_skipped:
        return
    scale = accelerator.scaler.get_scale()
    if scale < _LOWEST_SCALE:
        names = "; ".join(name for batch in batches for name in batch.names)
        raise FloatingPointError(
            f"fp16 finds no scale at which the gradient is finite, down to {scale:.1e}, at last for the samples "
            f"{names}; train with precision=bf16, or at a lower learning rate"
        )


def check_finite(accelerator: Accelerator, loss: torch.Tensor, batch: ReferenceBatch) -> None:
    """Stop all processes if the loss of one is not finite, naming its samples."""
    finite = accelerator.reduce(torch.isfinite(loss.detach()).float(), reduction="mean")
    if finite.item() < 1:
        mine = f"here it is {loss.item()} for the samples {'; '.join(batch.names)}"
        other = "on another process; its message names the samples"
        raise FloatingPointError(f"the loss is not finite: {other if torch.isfinite(loss) else mine}")

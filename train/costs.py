"""What a run costs, counted on shapes alone: memory, disk, and the time that GPUs of a known speed would take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.cache.description import level_shapes
from sam_uniref.flop_counting import flop_counter
from sam_uniref.train.activations import KeptBytes
from sam_uniref.train.made_up import SENTENCE, MadeUpFeatures, made_up_batch
from sam_uniref.train.planned_cache import cache_disk
from sam_uniref.train.settings import SPOKEN_TASKS, RunSettings
from sam_uniref.trainable import TrainableModel

# An A100's dense products in bfloat16, and the share of it that a vision transformer's training is taken to reach.
_A100_FLOPS = 312e12
_A100_SHARE = 0.35
_A100_COUNT = 8
_FLOAT = 4
# AdamW's two moments.
_MOMENTS = 2


@dataclass(frozen=True)
class SampleCost:
    """Of one sample of a task.

    Attributes:
        flops: Forward and backward, as a GPU does it; a product and a sum are two.
        kept: Bytes that the forward pass keeps for gradients, in float32.
    """

    flops: float
    kept: float


@contextmanager
def gpu_attention() -> Iterator[None]:
    """On the meta device, have attention keep what the GPUs' kernels keep, which is not its weights."""
    # A mode would do for the forward pass alone: within a call of backward, where activations are computed again, none
    # is in force.
    attention = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _efficient_attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = attention


def _efficient_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    *_: Any,
    **__: Any,
) -> Tensor:
    """The kernel itself, which has shapes of its own for all devices."""
    if query.ndim == 3:  # the kernel wants heads
        mask = None if attn_mask is None else attn_mask[:, None]
        return _efficient_attention(query[:, None], key[:, None], value[:, None], mask, dropout_p)[:, 0]
    bias = None
    if attn_mask is not None:
        bias = query.new_zeros(attn_mask.shape).expand(*query.shape[:3], key.shape[2])
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    attended: Tensor = efficient(query, key, value, bias, True, dropout_p)[0]
    return attended


class _WordsOfShapes(nn.Module):
    """A language model that is not told of padding, of which shapes know nothing."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Hidden states of ``(N, L)`` tokens."""
        return self.model(input_ids=input_ids)


def made_up_tokens(sentences: list[str], **_: Any) -> dict[str, Tensor]:
    """As many tokens as `SENTENCE` has words, and the two special ones, of each sentence; for any language model."""
    shape = (len(sentences), len(SENTENCE.split()) + 2)
    ids = torch.ones(shape, dtype=torch.int64, device="cpu")
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def sample_costs(
    model: TrainableModel, tasks: set[str], batch_size: int, *, cached: bool = False
) -> dict[str, SampleCost]:
    """Count each task's costs on shapes; not those of tasks with sentences for a model without a text encoder.

    Args:
        model: On the meta device; its language model is not itself any more afterwards.
        tasks: To count.
        batch_size: Samples of a batch.
        cached: Whether the image encoder's features come from a cache.

    Returns:
        By task; empty for a model whose losses need numbers.
    """
    if not model.counted_on_shapes:
        return {}
    features = MadeUpFeatures(level_shapes(model.frozen_backbone()), "meta") if cached else None
    if model.text_encoder is not None:
        model.text_encoder.tokenizer = made_up_tokens
        model.text_encoder.model = _WordsOfShapes(model.text_encoder.model)
    model.train()
    costs = {}
    for task in sorted(tasks):
        if task in SPOKEN_TASKS and model.text_encoder is None:
            continue
        batch = made_up_batch(model.transform, task, batch_size, features=features, device="meta")  # type: ignore[arg-type]
        with flop_counter() as counter, gpu_attention():
            with KeptBytes(model) as kept:
                total = torch.stack(list(model(batch).values())).sum()
            total.backward()
        costs[task] = SampleCost(counter.get_total_flops() / batch_size, kept.total / batch_size)
        model.zero_grad()
    return costs


def cost_table(settings: RunSettings, processes: int, model: TrainableModel) -> Table:
    """Memory of a process, disk and time.

    Args:
        settings: Of the stage.
        processes: That share it.
        model: On the meta device; it is used up.

    Raises:
        ValueError: If there is to be a cache, and the model trains its encoder or the cache is not of its kind.
    """
    weights = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    saved = sum(tensor.numel() for tensor in model.trained_state_dict().values())
    shares = task_shares(settings)
    costs = sample_costs(model, set(shares), settings.batch_size, cached=settings.cache is not None)
    left_out = _left_out(model, costs, shares)
    table = Table(title="what it costs, counted on shapes", show_header=False)
    state = [weights * _FLOAT, trained * _FLOAT, trained * _MOMENTS * _FLOAT]
    table.add_row(
        "memory a process",
        f"weights {_gigabytes(state[0])}, gradients {_gigabytes(state[1])}, moments {_gigabytes(state[2])}: "
        f"{_gigabytes(sum(state))}; DDP has the gradients twice",
    )
    table.add_row("kept for gradients", _kept(settings, costs, left_out))
    checkpoint = (saved + trained * _MOMENTS) * _FLOAT
    table.add_row(
        "disk",
        f"{settings.keep} checkpoints of {_gigabytes(checkpoint)}, one more while it is written; "
        f"the model {_gigabytes(saved * _FLOAT)} and what of it is not named",
    )
    if settings.cache is not None:
        table.add_row("cache", cache_disk(settings.cache, model.frozen_backbone()))
    samples = settings.steps * settings.batch_size * settings.accumulate * processes
    table.add_row(f"on {_A100_COUNT} A100s", left_out or _a100_hours(settings, costs, shares, samples))
    table.add_row("on this machine", "--measure N takes N steps of each data set, and tells samples a second")
    return table


def task_shares(settings: RunSettings) -> dict[str, float]:
    """Share of the steps that each task has."""
    total = sum(data.weight for data in settings.data.values()) or 1.0
    shares: dict[str, float] = {}
    for data in settings.data.values():
        if data.weight:
            shares[data.task] = shares.get(data.task, 0.0) + data.weight / total
    return shares


def _kept(settings: RunSettings, costs: dict[str, SampleCost], left_out: str) -> str:
    """Activations of a batch, by task."""
    if not costs:
        return left_out
    each = ", ".join(f"{task} {_gigabytes(cost.kept * settings.batch_size)}" for task, cost in costs.items())
    again = "with checkpoint_activations" if settings.checkpoint_activations else "without checkpoint_activations"
    half = "" if settings.precision == "no" else f"; about half of it in {settings.precision}"
    return f"{each} a batch in float32 ({again}){half}{left_out and '; ' + left_out}"


def _a100_hours(settings: RunSettings, costs: dict[str, SampleCost], shares: dict[str, float], samples: int) -> str:
    """An estimate, and what it supposes."""
    flops = sum(costs[task].flops * share for task, share in shares.items())
    hours = samples * flops / (_A100_COUNT * _A100_FLOPS * _A100_SHARE) / 3600
    source = "without a cache" if settings.cache is None else "from the cache"
    return (
        f"about {hours:,.2g} hours, an estimate: {samples:,} samples of {flops / 1e12:.3g} TFLOP, counted, {source}, "
        f"at {_A100_SHARE:.0%} of {_A100_FLOPS / 1e12:g} TFLOP/s in bf16"
    )


def _left_out(model: TrainableModel, costs: dict[str, SampleCost], shares: dict[str, float]) -> str:
    """What is not counted, and why; nothing if all is."""
    if not shares:
        return "not counted: there is no data with a weight"
    if not model.counted_on_shapes:
        return f"not counted for a {model.config.kind}, see --measure"
    missing = sorted(set(shares) - set(costs))
    return f"{', '.join(missing)} not counted, for want of the text encoder" if missing else ""


def _gigabytes(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.3g} GB"

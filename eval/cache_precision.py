"""What rounding costs a cache of features, on RefShapes: errors of the features, of the masks and of the losses.

# the packaged model
python eval/cache_precision.py --model tiny --episodes 60
python eval/cache_precision.py --model runs/folder/model --episodes 60 --json runs/cache_precision.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from sam_uniref.cache import PRECISIONS, CacheDescription, RecordLayout
from sam_uniref.data import ReferenceBatch, collate
from sam_uniref.data.refshapes import RefShapesDataset
from sam_uniref.eval.commands import OneLineParser, say_error
from sam_uniref.samref import SamRef
from sam_uniref.state import write_json

TASKS = ("ris", "fss", "vos")


@dataclass(frozen=True)
class PrecisionError:
    """What a precision differs by from what the encoder gives.

    Attributes:
        precision: That features are kept in.
        task: Of the episodes.
        view_bytes: On disk, a view.
        features: Norm of the features' error over that of the features.
        agreement: Mean IoU of the masks with those of the encoder's own features.
        lowest_agreement: Of all episodes.
        loss: Mean relative error of the sum of the losses.
        highest_loss: The largest of them.
    """

    precision: str
    task: str
    view_bytes: int
    features: float
    agreement: float
    lowest_agreement: float
    loss: float
    highest_loss: float


def rounded(batch: ReferenceBatch, levels: tuple[torch.Tensor, ...], layout: RecordLayout) -> ReferenceBatch:
    """A batch whose pictures' features were kept so."""
    kept = [layout.unpack(layout.pack([level[row] for level in levels])) for row in range(len(batch.pixels))]
    return replace(batch, levels=tuple(torch.stack(level).float() for level in zip(*kept, strict=True)))


def answered(model: SamRef, batch: ReferenceBatch) -> tuple[torch.Tensor, float]:
    """The mask of a batch of one, and the sum of its losses."""
    features = model.features_of(batch)
    logits = model.predict(features, model.references_of(batch, features)).logits
    mask = torch.nn.functional.interpolate(logits, features.canvas, mode="bilinear") > 0
    return mask, sum(loss.item() for loss in model(batch).values())


def episode_errors(model: SamRef, batch: ReferenceBatch, layout: RecordLayout) -> tuple[float, float, float]:
    """Errors of the features and the loss of one episode, and the IoU of its two masks between."""
    levels = model.encode_levels(batch.pixels)
    kept = rounded(batch, levels, layout)
    apart = sum(float((mine - own).square().sum()) for mine, own in zip(kept.levels or (), levels, strict=True))
    norm = sum(float(own.square().sum()) for own in levels)
    (mask, loss), (expected, own_loss) = (answered(model, given) for given in (kept, replace(batch, levels=levels)))
    union = int((mask | expected).sum())
    return (apart / norm) ** 0.5, int((mask & expected).sum()) / union if union else 1.0, abs(loss / own_loss - 1)


@torch.inference_mode()
def measured(model: SamRef, task: str, episodes: int) -> Iterator[PrecisionError]:
    """The errors of every precision on the first episodes of a task."""
    source = RefShapesDataset(task, task, episodes=episodes)  # type: ignore[arg-type]
    batches = [collate([source.episode(index)], model.transform) for index in range(episodes)]
    for precision in PRECISIONS:
        layout = CacheDescription.of(model.frozen_backbone(), precision).layout
        errors = torch.tensor([episode_errors(model, batch, layout) for batch in batches], dtype=torch.float64)
        features, agreement, loss = errors.T
        yield PrecisionError(
            precision,
            task,
            layout.size,
            float(features.square().mean().sqrt()),
            float(agreement.mean()),
            float(agreement.min()),
            float(loss.mean()),
            float(loss.max()),
        )


def table(rows: list[PrecisionError]) -> str:
    """In Markdown."""
    lines = ["| task | precision | bytes a view | features | masks' IoU, lowest | losses, largest |", "|---" * 6 + "|"]
    for row in rows:
        masks, losses = f"{row.agreement:.4f}, {row.lowest_agreement:.3f}", f"{row.loss:.2%}, {row.highest_loss:.2%}"
        lines.append(f"| {row.task} | {row.precision} | {row.view_bytes:,} | {row.features:.2%} | {masks} | {losses} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, and print a table in Markdown; the exit code."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="a saved SamRef, or tiny: the packaged one")
    parser.add_argument("--checkpoint", type=Path, help="the base SAM's file, where it is not beside the model")
    parser.add_argument("--episodes", type=int, default=60, help="of each task")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    arguments = parser.parse_args()
    if arguments.episodes < 1:
        parser.error(f"--episodes must be at least 1, got {arguments.episodes}")
    try:
        model = SamRef.from_pretrained(arguments.model, arguments.checkpoint)
    except (ValueError, FileNotFoundError) as error:
        return say_error(error)
    rows = [row for task in TASKS for row in measured(model, task, arguments.episodes)]
    Console(soft_wrap=True).print(table(rows), markup=False, highlight=False)
    if arguments.json:
        write_json(arguments.json, [asdict(row) for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())

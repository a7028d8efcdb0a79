"""The table of what is trained and what is frozen, printed when a run begins."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from sam_uniref.interfaces import ReferenceSegmenter


@dataclass(frozen=True)
class PartCount:
    """Numbers of one part.

    Attributes:
        name: Of the part.
        tensors: Number of parameter tensors.
        parameters: Number of parameters.
        trained_tensors: Of them, with gradients.
        trained: Parameters of those.
    """

    name: str
    tensors: int
    parameters: int
    trained_tensors: int
    trained: int


def count_parts(model: ReferenceSegmenter) -> list[PartCount]:
    """Parameters of every part, and of the whole as the last entry."""
    counts = []
    for part in model.parts():
        parameters = list(part.module.parameters())
        trained = [p for p in parameters if p.requires_grad]
        counts.append(
            PartCount(
                part.name,
                len(parameters),
                sum(p.numel() for p in parameters),
                len(trained),
                sum(p.numel() for p in trained),
            )
        )
    total = PartCount("total", *(sum(getattr(c, f) for c in counts) for f in list(PartCount.__annotations__)[1:]))
    return [*counts, total]


def parameter_table(model: ReferenceSegmenter) -> Table:
    """Tensors, parameters and per cent, trained and frozen, a row a part."""
    table = Table(title="trained and frozen parameters")
    table.add_column("part")
    for column in ("tensors", "parameters", "trained tensors", "trained", "frozen", "% trained"):
        table.add_column(column, justify="right")
    for count in count_parts(model):
        table.add_row(
            count.name,
            f"{count.tensors:,}",
            f"{count.parameters:,}",
            f"{count.trained_tensors:,}",
            f"{count.trained:,}",
            f"{count.parameters - count.trained:,}",
            f"{100 * count.trained / max(1, count.parameters):.1f}",
            end_section=count.name == "text encoder",
        )
    return table

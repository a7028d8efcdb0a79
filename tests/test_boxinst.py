"""Masks learnt from boxes: colours, neighbours, shadows, and how many masks there are."""

from __future__ import annotations

import pytest
import torch
from set_cases import CPU, SIDE, output_of, random_boxes, targets_of
from torch import Tensor

from sam_uniref.detr import boxinst
from sam_uniref.detr.criterion import Matches, set_losses
from sam_uniref.detr.loss_options import LossOptions

CELLS = SIDE // boxinst.STRIDE
# Row and column of each neighbour, in order.
AROUND = [(y, x) for y in (-2, 0, 2) for x in (-2, 0, 2) if (y, x) != (0, 0)]


def picture(colour: tuple[int, int, int], other: tuple[int, int, int]) -> Tensor:
    """``(1, 3, SIDE, SIDE)``: one colour on the left, another on the right."""
    left, right = (
        torch.tensor(c, dtype=torch.float32)[:, None, None].expand(3, SIDE, SIDE // 2) for c in (colour, other)
    )
    return torch.cat([left, right], dim=2)[None]


@pytest.mark.parametrize(
    ("colour", "other", "distance"),
    [
        ((255, 255, 255), (255, 255, 255), 0.0),
        ((255, 255, 255), (0, 0, 0), 100.0),
        # Lab of the primaries for D65: (53.24, 80.09, 67.20), (32.30, 79.19, -107.86).
        ((255, 0, 0), (0, 0, 255), (20.94**2 + 0.90**2 + 175.06**2) ** 0.5),
        ((100, 100, 100), (101, 101, 101), 0.39),
    ],
)
def test_similarity_falls_with_the_distance_of_colours(
    colour: tuple[int, int, int], other: tuple[int, int, int], distance: float
) -> None:
    similarity = boxinst.colour_similarity(picture(colour, other), [(SIDE, SIDE)], [(SIDE, SIDE)])[0]
    assert similarity.shape == (8, CELLS, CELLS)
    at = AROUND.index((0, 2))
    row, border = 5, CELLS // 2
    assert similarity[at, row, 2] == 1
    expected = torch.exp(torch.tensor(-distance / 2))
    torch.testing.assert_close(similarity[at, row, border - 1], expected, rtol=0.03, atol=1e-6)
    assert similarity[at, row, border] == 1


def test_what_is_no_picture_is_nobodys_neighbour() -> None:
    grey = torch.full((1, 3, SIDE, SIDE), 90.0)
    # Half the size it had: ten rows at the bottom are five.
    similarity = boxinst.colour_similarity(grey, [(48, 40)], [(96, 80)])[0]
    for index, (down, right) in enumerate(AROUND):
        for y, x in ((0, 0), (5, 5), (8, 4), (9, 4), (10, 9), (4, 8)):
            row, column = y + down, x + right
            # The sampled pixel of a cell is its third.
            inside = row >= 0 and 4 * row + 2 < 43 and column >= 0 and 4 * column + 2 < 40
            assert similarity[index, y, x] == float(inside), (index, y, x)


def test_neighbours_are_two_cells_away() -> None:
    values = torch.arange(36.0).view(1, 1, 6, 6)
    around = boxinst.neighbours(values)[0, 0]
    for index, (down, right) in enumerate(AROUND):
        for y in range(6):
            for x in range(6):
                row, column = y + down, x + right
                inside = 0 <= row < 6 and 0 <= column < 6
                assert around[index, y, x] == (values[0, 0, row, column] if inside else 0)


def test_boxes_are_filled_with_the_pixels_that_they_touch() -> None:
    boxes = torch.tensor([[2.0, 3, 5, 6], [1.5, 0.2, 1.7, 0.9], [-3, -3, 2, 90]])
    filled = boxinst.box_masks(boxes, (8, 10))
    assert filled[0].nonzero().amin(0).tolist() == [3, 2]
    assert filled[0].nonzero().amax(0).tolist() == [6, 5]
    assert filled[1].nonzero().tolist() == [[0, 1]]
    assert filled[2].sum() == 3 * 8


def test_a_mask_with_its_boxs_shadows_loses_nothing() -> None:
    boxes = torch.zeros(2, 8, 8)
    boxes[:, 2:6, 1:5] = 1
    logits = torch.full((2, 8, 8), -30.0)
    for k in range(4):
        logits[0, 2 + k, 1 + k] = 30.0  # a diagonal has the square's shadows
    losses = boxinst.projection_loss(logits, boxes)
    assert losses[0] < 1e-4
    assert losses[1] == pytest.approx(2)


def test_pairs_of_one_colour_are_to_be_one_thing() -> None:
    logits = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(0))
    boxes, similarity = torch.zeros(1, 6, 6), torch.zeros(1, 8, 6, 6)
    boxes[0, 2, 2] = 1
    at = AROUND.index((2, 0))
    similarity[0, at, 2, 2], similarity[0, at, 0, 0], similarity[0, 0, 2, 2] = 0.3, 1.0, 0.29
    total, pairs = boxinst.pairwise_loss(logits, boxes, similarity)
    p, q = logits[0, 2, 2].sigmoid(), logits[0, 4, 2].sigmoid()
    assert pairs.item() == 1
    torch.testing.assert_close(total[0], -(p * q + (1 - p) * (1 - q)).log())
    total, pairs = boxinst.pairwise_loss(logits, boxes * 0, similarity)
    assert total.item() == pairs.item() == 0


# ---- In a set ----


class Case:
    """Two layers whose 30 queries all lie on 3 objects, of which boxes alone are known."""

    queries = 30

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        objects = random_boxes(3, generator)
        self.known = [objects, objects]
        self.logits = torch.randn(2, 2, self.queries, 1, generator=generator)
        self.boxes = objects[torch.arange(self.queries) % 3].expand(2, 2, -1, -1).contiguous()
        self.masks = torch.randn(2, 2, self.queries, CELLS, CELLS, generator=generator).requires_grad_()
        self.similarity = torch.ones(2, 8, CELLS, CELLS)
        self.asked: list[Matches] = []

    def losses(
        self, options: LossOptions, masks: list[Tensor | None] | None = None, *, similar: bool = True
    ) -> dict[str, Tensor]:
        def build(matches: Matches) -> Tensor:
            self.asked.append(matches)
            return self.masks[matches.layer, matches.row, matches.query]

        valid = torch.ones(2, SIDE, SIDE, dtype=torch.bool, device=CPU)
        targets = targets_of(self.known, masks)
        output = output_of(self.logits, self.boxes)
        return set_losses(output, targets, build, valid, options, (lambda: self.similarity) if similar else None)


def test_at_most_so_many_masks_a_layer_are_built() -> None:
    case = Case()
    torch.manual_seed(0)
    losses = case.losses(LossOptions(boxinst_masks=7))
    (matches,) = case.asked
    assert matches.per_layer(torch.ones(len(matches))).tolist() == [7, 7]
    order = (matches.layer * 2 + matches.row) * case.queries + matches.query
    assert (order.diff() > 0).all()
    again = Case()
    torch.manual_seed(0)
    assert again.losses(LossOptions(boxinst_masks=7))["projection"] == losses["projection"]
    torch.manual_seed(1)
    case.losses(LossOptions(boxinst_masks=7))
    assert case.asked[1].query.tolist() != matches.query.tolist()
    case.losses(LossOptions())
    assert len(case.asked[2]) > 14
    assert losses["mask"] == losses["dice"] == 0


def test_objects_with_and_without_masks_side_by_side() -> None:
    case = Case()
    losses = case.losses(LossOptions(), [torch.ones(3, SIDE, SIDE), None])
    drawn, boxed = case.asked
    assert drawn.row.unique().tolist() == [0]
    assert boxed.row.unique().tolist() == [1]
    assert all(loss > 0 for name, loss in losses.items() if name != "box" and name != "giou")
    (gradient,) = torch.autograd.grad(torch.stack(list(losses.values())).sum(), case.masks)
    assert torch.isfinite(gradient).all()
    assert gradient[:, 0].any()
    assert gradient[:, 1].any()


def test_without_similarities_boxes_alone_teach_no_masks() -> None:
    case = Case()
    losses = case.losses(LossOptions(), similar=False)
    assert "projection" not in losses
    assert losses["mask"] == 0
    assert not case.asked


def test_where_no_colours_are_alike_there_are_no_pairs() -> None:
    case = Case()
    case.similarity.zero_()
    losses = case.losses(LossOptions())
    assert losses["pairwise"] == 0
    assert losses["projection"] > 0

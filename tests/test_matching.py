"""Matching: every target has its queries, no query two targets, and what is beside a row changes nothing in it."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from set_cases import random_boxes, targets_of
from torch import Tensor

from sam_uniref.detr import matching
from sam_uniref.detr.matching import assign_one, assign_several, several_cost
from sam_uniref.detr.set_targets import SetTargets


def case(seed: int, counts: list[int], queries: int, layers: int = 2) -> tuple[Tensor, Tensor, SetTargets]:
    """Logits of three classes, boxes near the targets, and targets."""
    generator = torch.Generator().manual_seed(seed)
    boxes = [random_boxes(count, generator) for count in counts]
    labels = [torch.randint(0, 3, (count,), generator=generator) for count in counts]
    rows = []
    for of_row in boxes:
        pool = of_row if len(of_row) else random_boxes(1, generator)
        near = pool[torch.randint(0, len(pool), (layers, queries), generator=generator)]
        rows.append((near + 0.05 * torch.randn(near.shape, generator=generator)).clamp(0.02, 0.98))
    logits = torch.randn(layers, len(counts), queries, 3, generator=generator)
    return logits, torch.stack(rows, dim=1), targets_of(boxes, labels=labels)


def plain_assignment(cost: Tensor, iou: Tensor) -> list[int]:
    """The procedure of the docstring, a target at a time, for costs and IoU ``(Q, M)``."""
    queries, count = cost.shape
    takers: dict[int, set[int]] = {q: set() for q in range(queries)}
    for target in range(count):
        wanted = max(1, int(iou[:, target].sort(descending=True).values[:10].sum()))
        for query in cost[:, target].argsort(stable=True)[:wanted].tolist():
            takers[query].add(target)
    owner = {}
    for query, candidates in takers.items():
        if candidates:
            owner[query] = int(cost[query].argmin()) if len(candidates) > 1 else candidates.pop()
    while waiting := [target for target in range(count) if target not in owner.values()]:
        free = [q for q in range(queries) if q not in owner]
        spare = [q for q in owner if list(owner.values()).count(owner[q]) > 1]
        asked = [(float(cost[q, target]), q, target) for q in free or spare for target in waiting]
        if not asked:
            break
        _, query, target = min(asked)
        owner[query] = target
    return [owner.get(query, -1) for query in range(queries)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    queries=st.integers(1, 14),
)
def test_several_queries_a_target(seed: int, counts: list[int], queries: int) -> None:
    logits, boxes, targets = case(seed, counts, queries)
    assigned = assign_several(logits, boxes, targets)
    assert assigned.shape == logits.shape[:3]
    cost, iou = several_cost(logits, boxes, targets) if targets.most else (None, None)
    for row, count in enumerate(counts):
        for layer in range(len(logits)):
            found = assigned[layer, row].tolist()
            if not count:
                assert set(found) == {-1}
                continue
            assert cost is not None
            assert iou is not None
            assert found == plain_assignment(cost[layer, row, :, :count], iou[layer, row, :, :count])
            assert len(set(found) - {-1}) == min(count, queries)


def test_a_target_that_lost_all_its_queries_takes_the_best_free_one() -> None:
    # One object annotated four times: all want the same queries, the first gets them.
    box = torch.tensor([[0.5, 0.5, 0.3, 0.3]])
    targets = targets_of([box.expand(4, 4)])
    boxes = torch.cat(
        [box.expand(3, 4), torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1]])]
    )
    assigned = assign_several(torch.zeros(1, 1, 6, 1), boxes[None, None], targets)[0, 0]
    assert assigned.tolist() == [0, 0, 0, 1, 2, 3]


def test_where_no_query_is_free_a_target_takes_one_of_another_that_has_several() -> None:
    first, second = torch.tensor([[0.4, 0.5, 0.3, 0.3]]), torch.tensor([[0.41, 0.5, 0.3, 0.3]])
    targets = targets_of([torch.cat([first, second])])
    assigned = assign_several(torch.zeros(1, 1, 3, 1), first.expand(1, 1, 3, 4), targets)[0, 0]
    assert assigned.tolist() == [1, 0, 0]


def test_fewer_queries_than_targets_leave_targets_without() -> None:
    logits, boxes, targets = case(0, [5], queries=2)
    assigned = assign_several(logits, boxes, targets)
    assert all(len(set(row.tolist())) == 2 and (row >= 0).all() for row in assigned[:, 0])
    one = assign_one(logits[0], boxes[0], targets)
    assert (one >= 0).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(0, 5), min_size=2, max_size=4))
def test_rows_do_not_depend_on_those_beside_them(seed: int, counts: list[int]) -> None:
    logits, boxes, targets = case(seed, counts, queries=12)
    together, alone = assign_several(logits, boxes, targets), assign_one(logits[0], boxes[0], targets)
    for row, count in enumerate(counts):
        own = SetTargets(
            targets.corners[row : row + 1, :count],
            targets.sizes[row : row + 1],
            targets.labels[row : row + 1, :count],
            targets.present[row : row + 1, :count],
            targets.masks,
            targets.mask_index[row : row + 1, :count],
            targets.label_range,
            targets.boxes_alone,
        )
        at = slice(row, row + 1)
        assert torch.equal(assign_several(logits[:, at], boxes[:, at], own), together[:, at])
        assert torch.equal(assign_one(logits[0, at], boxes[0, at], own), alone[at])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 3))
def test_one_token_a_target_costs_least_in_all(seed: int, count: int) -> None:
    logits, boxes, targets = case(seed, [count], queries=5)
    assigned = assign_one(logits[0], boxes[0], targets)[0]
    assert sorted(assigned[assigned >= 0].tolist()) == list(range(count))

    def total(tokens: tuple[int, ...]) -> float:
        """L1, class and GIoU, straight from their definitions."""
        cost = 0.0
        for target, token in enumerate(tokens):
            box, goal = boxes[0, 0, token], targets.boxes[0, target]
            x = logits[0, 0, token, 0]
            p = x.sigmoid()
            cost += 2 * float(-0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log())
            cost += 5 * float((box - goal).abs().sum())
            low, high = (torch.stack([b[:2] + sign * b[2:] / 2 for b in (box, goal)]) for sign in (-1, 1))
            common = (high.amin(0) - low.amax(0)).clamp(min=0).prod()
            union = box[2:].prod() + goal[2:].prod() - common
            hull = (high.amax(0) - low.amin(0)).prod()
            cost -= 2 * float(common / union - (hull - union) / hull)
        return cost

    chosen = tuple(int((assigned == target).nonzero()) for target in range(count))
    assert total(chosen) == pytest.approx(min(map(total, permutations(range(5), count))), abs=1e-4)


def test_only_the_first_class_counts_for_proposals() -> None:
    logits, boxes, targets = case(3, [2], queries=6)
    expected = assign_one(logits[0], boxes[0], targets)
    logits[0, :, :, 1:] = 50.0
    assert torch.equal(assign_one(logits[0], boxes[0], targets), expected)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_is_no_number_is_matched_last(broken: float) -> None:
    logits, boxes, targets = case(4, [2, 0], queries=6)
    boxes[:, :, :3] = broken
    assigned = assign_several(logits, boxes, targets)
    assert (assigned[:, 0, :3] == -1).all()
    assert all(set(row.tolist()) == {-1, 0, 1} for row in assigned[:, 0])
    assert (assign_one(logits[0], boxes[0], targets)[0, :3] == -1).all()
    assert (assign_several(logits * broken, boxes * broken, targets)[:, 0].amax(1) == 1).all()


def test_boxes_without_an_area_are_matched() -> None:
    targets = targets_of([torch.tensor([[0.5, 0.5, 0.1, 0.1]])])
    targets = replace(targets, corners=targets.corners.mean(-1, keepdim=True).expand(-1, -1, 4))
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.9, 0.9, 0.1, 0.1]])[None, None]
    assert assign_several(torch.zeros(1, 1, 2, 1), boxes, targets).tolist() == [[[0, -1]]]


def test_matching_leaves_no_gradient_and_changes_nothing() -> None:
    logits, boxes, targets = case(5, [3], queries=8)
    before = logits.clone(), boxes.clone()
    assigned = assign_several(logits.requires_grad_(), boxes.requires_grad_(), targets)
    assert not assigned.requires_grad
    assert torch.equal(logits, before[0])
    assert torch.equal(boxes, before[1])
    assert torch.equal(assigned, assign_several(logits, boxes, targets))


def test_the_host_does_not_look_where_no_row_has_two_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("the host waited")

    monkeypatch.setattr(matching, "_serve_the_rest", refuse)
    logits, boxes, targets = case(6, [1, 0, 1], queries=8)
    assert (assign_several(logits, boxes, targets).amax(2) == torch.tensor([0, -1, 0])).all()
    with pytest.raises(AssertionError, match="waited"):
        assign_several(*case(6, [2], queries=8))

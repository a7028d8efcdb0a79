"""References that share their pictures against the same references a row each."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sam_uniref.adapters import FrameReference, FrameReferences, ReferenceFeatures, UniFusion, concat
from sam_uniref.adapters.frames import attend_frames

C, SIDE = 12, 4
TOKENS = SIDE * SIDE


def picture(seed: int) -> tuple[Tensor, Tensor]:
    """Keys ``(L, C)`` and padding of a picture."""
    generator = torch.Generator().manual_seed(seed)
    padding = torch.zeros(TOKENS, dtype=torch.bool)
    padding[TOKENS - seed % 3 * SIDE :] = True
    return torch.randn(TOKENS, C, generator=generator), padding


def annotated(seed: int, row: int) -> tuple[Tensor, Tensor]:
    """Values ``(L, C)`` and pooled vector of an object in it."""
    generator = torch.Generator().manual_seed(100 * row + seed)
    return torch.randn(TOKENS, C, generator=generator), torch.randn(C, generator=generator)


def fusion(order: str = "parallel") -> UniFusion:
    torch.manual_seed(0)
    return UniFusion(C, heads=3, head_width=5, dropout=0.0, zero_init=False, order=order).eval()


def both_ways(model: UniFusion, rows: list[list[int]]) -> tuple[FrameReferences, ReferenceFeatures]:
    """Row i's object annotated in the pictures ``rows[i]``: shared, and as they were before."""
    frames = {k: model.frame_keys([picture(k)[0][~picture(k)[1]]]) for row in rows for k in row}
    shared, separate = [], []
    most = max(map(len, rows))
    for number, row in enumerate(rows):
        objects = [annotated(k, number) for k in row]
        shared.append(
            tuple(
                FrameReference(frames[k], (values[~picture(k)[1]],), (pooled,))
                for k, (values, pooled) in zip(row, objects, strict=True)
            )
        )
        told = [(k, *pair, True) for k, pair in zip(row, objects, strict=True)]
        separate.append(told + [(0, *annotated(0, number), False)] * (most - len(told)))
    about = torch.zeros(len(rows), dtype=torch.int64)
    columns = [
        ReferenceFeatures(
            keys=(torch.stack([picture(k)[0] for k, *_ in column]),),
            values=(torch.stack([value for _, value, *_ in column]),),
            padding=(torch.stack([picture(k)[1] for k, *_ in column]),),
            pooled=(torch.stack([pooled for *_, pooled, _ in column]),),
            present=torch.tensor([present for *_, present in column]),
            image_index=about,
        )
        for column in zip(*separate, strict=True)
    ]
    return FrameReferences(tuple(shared), about), concat(columns)


def sentence(rows: int) -> ReferenceFeatures:
    torch.manual_seed(5)
    tokens = torch.randn(rows, 3, C)
    return ReferenceFeatures(
        (tokens,),
        (tokens,),
        (torch.zeros(rows, 3, dtype=torch.bool),),
        (torch.randn(rows, C),),
        torch.ones(rows, dtype=torch.bool),
        torch.zeros(rows, dtype=torch.int64),
    )


rows_strategy = st.lists(st.lists(st.integers(0, 4), max_size=3, unique=True), min_size=1, max_size=5).filter(any)


@settings(max_examples=40, deadline=None)
@given(rows_strategy, st.sampled_from(["parallel", "in_order", "reversed"]), st.booleans())
def test_sharing_changes_nothing(rows: list[list[int]], order: str, spoken: bool) -> None:
    model = fusion(order)
    shared, separate = both_ways(model, rows)
    image = [torch.randn(1, C, 3, 5, generator=torch.Generator().manual_seed(9))]
    kinds = [sentence(len(rows))] if spoken else []
    with torch.no_grad():
        (got,), (expected,) = model(image, [*kinds, shared]), model(image, [*kinds, separate])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shared.pooled[0][shared.present], separate.pooled[0][shared.present])
    assert shared.present.tolist() == separate.present.tolist()


def test_blocks_of_queries_change_nothing() -> None:
    model = fusion()
    shared, _ = both_ways(model, [[0, 1], [1], [2, 0]])
    queries = torch.randn(3, 7, 5)
    frames = shared.by_frame(0)
    whole = attend_frames(queries, frames, 3, lambda x: x.flatten(2))
    for block in (1, 3 * TOKENS * 2):
        torch.testing.assert_close(attend_frames(queries, frames, 3, lambda x: x.flatten(2), block=block), whole)


def test_a_picture_s_weights_are_computed_once_for_all_its_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    from sam_uniref.adapters import frames as module

    seen = []
    attend = module._attend
    monkeypatch.setattr(module, "_attend", lambda q, f: seen.append(f.rows.tolist()) or attend(q, f))
    model = fusion()
    shared, _ = both_ways(model, [[0, 1], [1], [0, 1], [3]])
    model([torch.randn(1, C, 3, 5)], [shared])
    assert seen == [[0, 2], [0, 1, 2], [3]]
    alone, _ = both_ways(model, [[0, 1], [2]])
    model([torch.randn(1, C, 3, 5)], [alone])
    assert len(seen) == 3, "where nothing is shared, a fused kernel is asked"


def test_keys_are_projected_when_they_are_stored_and_never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fusion()
    shared, _ = both_ways(model, [[0, 1], [1]])
    calls = []
    model.attention.key.register_forward_hook(lambda *_: calls.append(1))
    model([torch.randn(1, C, 3, 5)], [shared])
    assert calls == []


def test_rows_that_are_selected() -> None:
    shared, _ = both_ways(fusion(), [[0], [], [1, 2]])
    assert [len(row) for row in shared.select(torch.tensor([2, 0])).rows] == [2, 1]
    assert len(shared.select(shared.present)) == 2
    with pytest.raises(ValueError, match="at least one row must have a reference"):
        shared.select(torch.tensor([1]))
    with pytest.raises(ValueError, match=r"image_index must be \(3,\)"):
        FrameReferences(shared.rows, torch.zeros(2, dtype=torch.int64))

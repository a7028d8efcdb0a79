"""Which of SAM's segments is meant, looked at from nearby."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tiny import disc, tiny_model

from sam_uniref.closely import choose_closely, cut_out, segment_carefully
from sam_uniref.data.refshapes import RefShapesDataset
from sam_uniref.everything import agreement
from sam_uniref.reference import MaskReference
from sam_uniref.samref import SamRef
from sam_uniref.segmentation import Segmentation
from sam_uniref.turned import TurnedImage, segment_turned


@pytest.fixture(scope="module")
def tiny() -> SamRef:
    """The packaged one, whose SAM can draw RefShapes."""
    return SamRef.from_pretrained("tiny")


def question(index: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_], MaskReference]:
    """A picture, the true mask and an example."""
    sample = RefShapesDataset("refshapes", "fss", episodes=20).episode(index)
    (support,) = sample.references
    return sample.image, sample.mask, MaskReference(support.image, support.mask)


def as_segment(mask: NDArray[np.bool_]) -> Segmentation:
    """A mask as an answer."""
    logits = np.where(mask, 5, -5).astype(np.float32)
    return Segmentation(mask, 0.5, logits, logits[None])


@given(
    hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))).filter(np.any),
    st.sampled_from([16, 33]),
)
def test_what_is_cut_out_holds_the_whole_object(mask: NDArray[np.bool_], side: int) -> None:
    mask = np.pad(mask, max(mask.shape))  # so that there is room for a larger square
    image = np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)
    picture, drawn = cut_out(image, mask, side)
    assert picture.shape == (side, side, 3)
    assert drawn.shape == (side, side)
    # A ninth of the square, or less where the object is long or scattered.
    assert drawn.mean() <= 1 / 9 + 4 / side
    # Inside the picture an object's pixels are its own; beyond it no pixel is.
    assert not drawn.any() or picture[drawn].mean() > 127


@given(st.integers(4, 30), st.integers(4, 30), st.integers(0, 29), st.integers(0, 29))
def test_nothing_of_a_rectangle_is_lost(height: int, width: int, top: int, left: int) -> None:
    mask = np.zeros((60, 80), bool)
    mask[top : top + height, left : left + width] = True
    _, drawn = cut_out(np.zeros((60, 80, 3), np.uint8), mask, 128)
    scale = 128 / max(min(3 * np.sqrt(height * width), 80), height, width)
    rows, columns = drawn.any(1).sum(), drawn.any(0).sum()
    assert rows == pytest.approx(height * scale, abs=2)
    assert columns == pytest.approx(width * scale, abs=2)
    assert drawn.sum() == pytest.approx(rows * columns, rel=0.1)  # corners are rounded


@pytest.mark.parametrize("at", [(0.5, 0.5), (0.05, 0.95)])
def test_an_object_s_size_in_the_cut_is_always_the_same(at: tuple[float, float]) -> None:
    shares = []
    for radius in (0.08, 0.2):
        y, x = np.mgrid[:200, :300]
        mask = np.hypot(y - at[0] * 200, x - at[1] * 300) <= radius * 200
        _, drawn = cut_out(np.zeros((200, 300, 3), np.uint8), mask, 64)
        shares.append(drawn.mean())
    assert shares == pytest.approx([1 / 9, 1 / 9], rel=0.06)


def test_the_segment_is_the_one_that_both_looks_agree_on(tiny: SamRef) -> None:
    image, _, example = question(3)
    turned = TurnedImage(tiny, image)
    answer = segment_turned(turned, [example])
    chosen = choose_closely(turned, answer, [example])
    masks = [segment.mask for segment in turned.segments]
    near = []
    for segment in turned.segments:
        picture, mask = cut_out(image, segment.mask, 128)
        nearby = MaskReference(*cut_out(np.asarray(example.image), np.asarray(example.mask), 128))
        looked = segment_turned(TurnedImage(tiny, picture), [nearby])
        near.append(agreement(looked, [mask])[0])
    worth = np.add(agreement(answer, masks), near)
    likely = np.argsort(agreement(answer, masks))[::-1][:5]
    assert chosen is turned.segments[max(likely, key=worth.__getitem__)]
    # One that is looked at alone is the one that agrees best.
    best = int(np.argmax(agreement(answer, masks)))
    assert choose_closely(turned, answer, [example], most=1) is turned.segments[best]


def test_the_right_object_is_chosen(tiny: SamRef) -> None:
    found = []
    for index in range(10):
        image, truth, example = question(index)
        turned = TurnedImage(tiny, image)
        chosen = choose_closely(turned, segment_turned(turned, [example]), [example])
        assert chosen is not None
        found.append((chosen.mask & truth).sum() / (chosen.mask | truth).sum() > 0.5)
    assert sum(found) >= 8


def test_where_sam_sees_nothing_there_is_nothing_to_choose() -> None:
    model = tiny_model(noise=0.05)
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    turned = TurnedImage(model, image)
    turned.__dict__["segments"] = []
    answer = as_segment(disc(64, 64))
    example = MaskReference(image, disc(64, 64))
    assert choose_closely(turned, answer, [example]) is None
    alone = as_segment(disc(64, 64, center=(0.2, 0.2)))
    turned.__dict__["segments"] = [alone]
    assert choose_closely(turned, answer, [example]) is alone


def test_a_sentence_s_segment_is_the_one_that_is_asked_for(tiny: SamRef) -> None:
    scene = RefShapesDataset("refshapes", "ris", episodes=4).scene_sentences(1)
    found = []
    for object_id, sentence in scene.sentences:
        turned = TurnedImage(tiny, scene.image)
        answer = segment_carefully(turned, text=sentence)
        assert any(answer is segment for segment in turned.segments)
        truth = scene.ids == object_id
        found.append((answer.mask & truth).sum() / (answer.mask | truth).sum() > 0.5)
    assert np.mean(found) > 0.7


def test_bad_input_is_said(tiny: SamRef) -> None:
    image, mask, example = question(0)
    turned = TurnedImage(tiny, image)
    with pytest.raises(ValueError, match="at least one reference or prompt"):
        segment_carefully(turned)
    with pytest.raises(ValueError, match="empty"):
        segment_carefully(turned, text="")
    with pytest.raises(ValueError, match="most must be at least 1, got 0"):
        choose_closely(turned, as_segment(mask), [example], most=0)
    with pytest.raises(ValueError, match=r"picture of \(64, 64\).*a segment of one of \(128, 128\)"):
        choose_closely(turned, as_segment(mask[:64, :64]), [example])
    with pytest.raises(ValueError, match="empty"):
        choose_closely(turned, as_segment(mask), [replace(example, mask=np.zeros((128, 128), bool))])
    with pytest.raises(ValueError, match="example"):
        choose_closely(turned, as_segment(mask), [])

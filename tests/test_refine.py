"""An answer, asked for once more of SAM itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from tiny import disc, tiny_model

from sam_uniref.closely import choose_closely
from sam_uniref.eval.compared_methods import load_method
from sam_uniref.everything import nearest_segment, segment_everything
from sam_uniref.reference import MaskReference
from sam_uniref.samref import SamRef
from sam_uniref.segmentation import innermost_point
from sam_uniref.turned import TurnedImage, segment_turned


@pytest.fixture(scope="module")
def model() -> SamRef:
    """As if trained."""
    return tiny_model(noise=0.05)


def test_refining_asks_sam_by_what_was_found(model: SamRef) -> None:
    picture = np.random.default_rng(5).integers(0, 256, (100, 128, 3), dtype=np.uint8)
    features = model.encode_image(picture)
    answer = model.segment(features, text="a red square")
    found = replace(answer, mask=disc(100, 128, center=(0.4, 0.5)))
    refined = model.refine(picture, found)
    asked = {"points": [innermost_point(found.mask)], "box": found.box, "mask_logits": found.low_res_logits}
    wanted = model.segment(features, **asked, decoder="sam")
    np.testing.assert_array_equal(refined.logits, wanted.logits)
    assert refined.score == wanted.score
    nothing = replace(answer, mask=np.zeros((100, 128), bool))
    assert model.refine(features, nothing) is nothing
    with pytest.raises(ValueError, match=r"picture of \(100, 128\).*this one is \(128, 100\)"):
        model.refine(picture.transpose(1, 0, 2), found)


@given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_the_innermost_point_is_inside_and_nowhere_is_further_in(mask: NDArray[np.bool_]) -> None:
    if not mask.any():
        with pytest.raises(ValueError, match="empty mask"):
            innermost_point(mask)
        return
    x, y = innermost_point(mask)
    assert mask[int(y), int(x)]
    outside = np.argwhere(~np.pad(mask, 1)) - 0.5
    depth = {(r, c): np.hypot(*(outside - (r + 0.5, c + 0.5)).T).min() for r, c in np.argwhere(mask)}
    assert depth[int(y), int(x)] == pytest.approx(max(depth.values()))


def test_the_careful_method_turns_pictures_with_examples_and_leaves_videos_alone() -> None:
    plain, careful = (load_method(name, "tiny", torch.device("cpu")) for name in ("samref", "samref_careful"))
    assert plain.made_of["method"] == "samref"
    assert careful.made_of == {**plain.made_of, "method": "samref_careful"}
    picture = np.random.default_rng(6).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    example = MaskReference(picture, disc(96, 128))
    model: SamRef = careful.method.model  # type: ignore[attr-defined]
    asked, segments = TurnedImage(model, picture), segment_everything(model, picture)
    turned = segment_turned(asked, [example])
    by_example = choose_closely(asked, turned, [example]) or model.refine(picture, turned)
    encoded = careful.method.encode_image(picture)
    np.testing.assert_array_equal(careful.method.segment(encoded, examples=[example]).logits, by_example.logits)
    answer = plain.method.segment(picture, text="a red square")
    spoken = nearest_segment(answer, segments) or model.refine(picture, answer)
    np.testing.assert_array_equal(careful.method.segment(encoded, text="a red square").logits, spoken.logits)
    tracks = [list(m.method.track([picture, picture], masks={1: disc(96, 128)})) for m in (plain, careful)]
    np.testing.assert_array_equal(*(track[1].labels for track in tracks))


@pytest.mark.parametrize("size", [(96, 128), (128, 70)])
def test_an_answer_in_all_turns_is_the_mean_of_eight(model: SamRef, size: tuple[int, int]) -> None:
    picture = np.random.default_rng(8).integers(0, 256, (*size, 3), dtype=np.uint8)
    example = MaskReference(picture, disc(*size))
    answer = segment_turned(TurnedImage(model, picture), [example])
    copies = [example.turned(quarters) for quarters in range(4)]
    asked = [
        np.rot90(model.segment(np.rot90(picture, quarters).copy(), examples=given).logits, -quarters)
        for quarters in range(4)
        for given in ([example], copies)
    ]
    np.testing.assert_allclose(answer.logits, np.clip(asked, -8, 8).mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(answer.mask, answer.logits > 0)
    # The low-res logits are those of the picture as it stands: enlarged, they tell the same.
    scale = 128 / max(size)
    content = answer.low_res_logits[0, : round(size[0] * scale / 2), : round(size[1] * scale / 2)]
    told = np.asarray(Image.fromarray(content).resize(size[::-1], Image.Resampling.BILINEAR))
    assert np.corrcoef(told.ravel(), answer.logits.ravel())[0, 1] > 0.99


def test_a_turned_picture_gives_the_turned_answer(model: SamRef) -> None:
    picture = np.random.default_rng(9).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    example = MaskReference(picture, disc(128, 128, center=(0.3, 0.4)))
    # Both are asked the same eight questions, in another order.
    upright = segment_turned(TurnedImage(model, picture), [example])
    turned = segment_turned(TurnedImage(model, np.rot90(picture).copy()), [example])
    np.testing.assert_allclose(np.rot90(upright.logits), turned.logits, rtol=1e-3, atol=1e-3)


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_an_example_turns_with_its_mask(first: int, second: int) -> None:
    picture = np.random.default_rng(7).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    ids = np.zeros((6, 9), np.uint8)
    ids[:2, 4:], ids[4:, :3] = 1, 2
    twice = MaskReference(picture, ids, object_id=2).turned(first).turned(second)
    np.testing.assert_array_equal(twice.image, np.rot90(picture, first + second))
    np.testing.assert_array_equal(twice.mask, np.rot90(ids == 2, first + second))

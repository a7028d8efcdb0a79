"""The training-free methods on tiny SAMs: what they are asked, what they refuse, RefShapes from end to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from persam_support import Listener, random_host, tiny_host
from tiny import disc, picture, tiny_model

from sam_uniref import MaskReference
from sam_uniref.adapters import add_lora
from sam_uniref.eval.baselines import BASELINES, Persam, PersamF, PlainSam
from sam_uniref.eval.baselines.mask_weights import Schedule
from sam_uniref.eval.baselines.prompting import grown_box, inclusive_box
from sam_uniref.eval.baselines.target import IMAGE_BRIGHTNESS, object_cells
from sam_uniref.eval.methods import Method
from sam_uniref.eval.refshapes_protocol import PROTOCOLS
from sam_uniref.images import Mask
from sam_uniref.segmentation import Segmentation
from sam_uniref.transforms import SquareTransform

SHORT = Schedule(1e-3, 5)
HEIGHT, WIDTH = 60, 80
BY_EXAMPLES = sorted(name for name, baseline in BASELINES.items() if "fss" in baseline.tasks)
IN_VIDEOS_ONLY = sorted(BASELINES.keys() - set(BY_EXAMPLES))


def built(name: str, **options: Any) -> Method:
    """On the packaged SAM; PerSAM-F learns a little."""
    if name == "persam_f":
        options = {"image_schedule": SHORT, "video_schedule": SHORT, **options}
    return BASELINES[name].build(tiny_host(), **options)


def examples(count: int = 1) -> list[MaskReference]:
    return [MaskReference(picture(90 + 10 * k, 120, seed=k), disc(90 + 10 * k, 120)) for k in range(count)]


def clip(frames: int) -> list[NDArray[np.uint8]]:
    return [picture(HEIGHT, WIDTH, seed) for seed in range(frames)]


def blob(row: float = 0.5, column: float = 0.5) -> Mask:
    return disc(HEIGHT, WIDTH, center=(row, column))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of the image encoder had."""
    host, seen = tiny_host(), []
    encode = host.encode

    def count(pixels: Any) -> Any:
        seen.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(host, "encode", count)
    return seen


def test_the_registry() -> None:
    assert BY_EXAMPLES == ["persam", "persam_f"]
    assert {name: b.trained_parameters for name, b in BASELINES.items()} == {
        "persam": 0,
        "persam_f": 2,
        "plain_sam": 0,
        "points": 0,
    }
    for baseline in BASELINES.values():
        assert "vos" in baseline.tasks
        assert not {"ris", "rvos"} & {*baseline.tasks}


# ---- Pictures ----


@pytest.mark.parametrize("name", BY_EXAMPLES)
def test_each_picture_is_encoded_once(name: str, encoded: list[int]) -> None:
    method = built(name)
    features = method.encode_image(picture())
    assert encoded == [1]
    first = method.segment(features, examples=examples(3))
    assert encoded == [1] * 4
    again = method.segment(picture(), examples=examples(3))
    assert encoded == [1] * 8
    np.testing.assert_array_equal(first.logits, again.logits)


@pytest.mark.parametrize("name", BY_EXAMPLES)
def test_an_answer_depends_on_its_question_alone(name: str) -> None:
    method = built(name)
    first = method.segment(picture(), examples=examples())
    method.segment(picture(seed=5), examples=examples(2))
    list(method.track(clip(2), masks={1: blob()}))
    again = method.segment(picture(), examples=examples())
    np.testing.assert_array_equal(first.logits, again.logits)
    assert first.score == again.score
    assert first.mask.shape == first.logits.shape == (90, 120)
    assert first.low_res_logits.shape == (1, 64, 64)


@pytest.mark.parametrize("name", BY_EXAMPLES)
def test_the_order_of_examples_does_not_matter(name: str) -> None:
    method = built(name)
    there = method.segment(picture(seed=7), examples=examples(3))
    back = method.segment(picture(seed=7), examples=examples(3)[::-1])
    np.testing.assert_allclose(there.logits, back.logits, atol=1e-3)


@pytest.mark.parametrize("name", BY_EXAMPLES)
def test_pictures_can_be_asked_by_examples_alone(name: str) -> None:
    method = built(name)
    with pytest.raises(ValueError, match="can be asked by examples= alone"):
        method.segment(picture(), text="the dog")
    with pytest.raises(ValueError, match="not by text="):
        method.segment(picture(), text="the dog", examples=examples())
    with pytest.raises(ValueError, match="one annotated picture or more"):
        method.segment(picture(), examples=[])
    with pytest.raises(ValueError, match="is empty"):
        method.segment(picture(), examples=[MaskReference(picture(), np.zeros((90, 120), bool))])
    with pytest.raises(ValueError, match="is 40x40 but its image is 120x90"):
        method.segment(picture(), examples=[MaskReference(picture(), np.ones((40, 40), bool))])
    with pytest.raises(FileNotFoundError, match="no image at"):
        method.segment("nowhere.png", examples=examples())
    two = tiny_model(text=False).encode_image([picture(), picture()])
    with pytest.raises(ValueError, match="segment takes one picture, got 2"):
        method.segment(two, examples=examples())


@pytest.mark.parametrize("name", IN_VIDEOS_ONLY)
def test_some_methods_are_for_videos_only(name: str, encoded: list[int]) -> None:
    with pytest.raises(ValueError, match="can't be asked about one picture"):
        built(name).segment(picture(), examples=examples())
    assert not encoded


def test_a_sam_with_lora_is_refused() -> None:
    host = random_host()
    add_lora(host.image_encoder, ["qkv"])
    with pytest.raises(ValueError, match="give a SAM as it was released"):
        Persam(host)


def test_any_image_size() -> None:
    answer = Persam(random_host(64)).segment(picture(), examples=examples())
    assert answer.low_res_logits.shape == (1, 32, 32)


# ---- Small and large objects ----


def one_pixel(height: int, width: int) -> Mask:
    mask = np.zeros((height, width), bool)
    mask[height // 2, width // 3] = True
    return mask


def everything(height: int, width: int) -> Mask:
    return np.ones((height, width), bool)


@pytest.mark.parametrize("mask", [one_pixel, everything])
@pytest.mark.parametrize("size", [(60, 80), (300, 500), (4, 6), (1, 1)])
@pytest.mark.parametrize("name", BASELINES)
def test_objects_of_one_pixel_and_of_the_whole_picture(
    name: str, size: tuple[int, int], mask: Callable[[int, int], Mask]
) -> None:
    method = built(name)
    given = mask(*size)
    results = list(method.track([picture(*size, seed=k) for k in range(3)], masks={3: given}))
    np.testing.assert_array_equal(results[0].labels, 3 * given)
    assert all(r.labels.shape == size and np.isfinite(r.scores[3]) for r in results)
    if name in BY_EXAMPLES:
        answer = method.segment(picture(*size, seed=4), examples=[MaskReference(picture(*size), given)])
        assert np.isfinite(answer.logits).all()


def test_an_object_too_small_for_a_cell_is_the_cell_it_is_in() -> None:
    transform = SquareTransform(128, (123.675, 116.28, 103.53), (58.4, 57.1, 57.4))
    mask = np.zeros((256, 256), bool)
    mask[33, 200] = True
    cells = object_cells(mask, transform, (16, 16), IMAGE_BRIGHTNESS)
    assert cells.nonzero().tolist() == [[2, 12]]
    wide = np.zeros((256, 512), bool)
    wide[:] = True
    covered = object_cells(wide, transform, (16, 16), IMAGE_BRIGHTNESS)
    assert covered[:7].all()
    assert not covered[8:].any(), "padding is background"


# ---- Videos ----


@pytest.mark.parametrize("name", BASELINES)
def test_tracking_by_its_rules(name: str, encoded: list[int]) -> None:
    method = built(name)
    late = {2: {4: blob(0.3, 0.3)}}
    results = list(method.track(clip(4), masks={1: blob(), 2: blob(0.7, 0.7)}, new_masks=late))
    assert encoded == [1] * 4, "one encoder pass a frame, whatever the number of objects"
    assert [list(r.masks) for r in results] == [[1, 2]] * 2 + [[1, 2, 4]] * 2
    for result in results:
        assert result.labels.shape == (HEIGHT, WIDTH)
        for object_id, mask in result.masks.items():
            assert result.visible[object_id] == mask.any()
    again = list(method.track(clip(4), masks={1: blob(), 2: blob(0.7, 0.7)}, new_masks=late))
    for one, other in zip(results, again, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.scores == other.scores


@pytest.mark.parametrize("name", BASELINES)
def test_bad_questions_about_videos(name: str) -> None:
    method = built(name)
    with pytest.raises(ValueError, match=r"can be asked by masks= and new_masks= alone, not by texts="):
        method.track(clip(2), masks={1: blob()}, texts={1: "the dog"})
    with pytest.raises(ValueError, match="nothing to track"):
        method.track(clip(2))
    with pytest.raises(ValueError, match="mask of object 1 is empty"):
        method.track(clip(2), masks={1: ~everything(HEIGHT, WIDTH)})
    with pytest.raises(ValueError, match="names frame 7, but there are 2 frames"):
        method.track(clip(2), new_masks={7: {1: blob()}})
    with pytest.raises(ValueError, match="frame 1 is 120x90, those before it 80x60"):
        list(method.track([*clip(1), picture()], masks={1: blob()}))
    with pytest.raises(ValueError, match="not a single frame"):
        method.track([], masks={1: blob()})


def test_persam_in_videos_asks_around_the_previous_mask() -> None:
    method = Persam(tiny_host())
    heard = Listener(method.sam)
    results = list(method.track(clip(2), masks={1: blob()}))
    first, second, third = heard.asked
    x0, y0, x1, y1 = inclusive_box(blob())
    assert first.box == (x0 - 10, y0 - 10, x1 + 10, y1 + 10)
    assert first.points is not None
    assert first.points.shape == (3, 2)
    assert first.points[2].tolist() == [(x0 + x1) // 2, (y0 + y1) // 2]
    assert first.labels is not None
    assert first.labels.tolist() == [1, 1, 1]
    areas = [candidate.mask.sum() for candidate in heard.answers[0]]
    largest = heard.answers[0][int(np.argmax(areas))]
    assert second.box is None
    np.testing.assert_array_equal(second.mask_logits, largest.low_res_logits)
    best = max(heard.answers[1], key=lambda s: s.score)
    np.testing.assert_array_equal(third.mask_logits, best.low_res_logits)
    np.testing.assert_array_equal(results[1].masks[1], max(heard.answers[2], key=lambda s: s.score).mask)


@pytest.mark.parametrize(("name", "similar"), [("persam", 2), ("persam_f", 1)])
def test_at_the_edge_the_last_point_is_the_masks_centre_and_not_the_cut_boxs(name: str, similar: int) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[40:, :21] = True
    method: Any = built(name)
    heard = Listener(method.sam)
    list(method.track(clip(2), masks={1: mask}))
    around = [prompt for prompt in heard.asked if prompt.mask_logits is None and prompt.box is not None]
    assert around
    for prompt in around:
        assert prompt.box == (0, 30, 30, 60)
        assert prompt.points is not None
        assert prompt.points[similar].tolist() == [10, 49]


def test_the_published_count_of_pixels_is_modulo_256() -> None:
    candidates = []
    for pixels in (255, 256, 300):
        mask = np.zeros(400, bool)
        mask[:pixels] = True
        candidates.append(Segmentation(mask.reshape(20, 20), 0.0, np.zeros((20, 20), np.float32), np.zeros((1, 4, 4))))
    assert max(candidates, key=Persam(tiny_host())._area) is candidates[2]
    assert max(candidates, key=Persam(tiny_host(), areas_modulo_256=True)._area) is candidates[0]


def test_persam_f_in_videos_learns_in_the_first_frame_alone() -> None:
    method = PersamF(tiny_host(), video_schedule=SHORT)
    heard = Listener(method.sam)
    list(method.track(clip(3), masks={1: blob()}))
    assert len(heard.asked) == 1 + 2 * 3
    assert [prompt.mask_logits is None for prompt in heard.asked] == [True, True, False, False, True, False, False]
    learning = heard.asked[0]
    assert learning.points is not None
    assert learning.points.shape == (2, 2)
    assert learning.box == grown_box(inclusive_box(blob()), (HEIGHT, WIDTH))


def test_plain_sam_is_asked_by_box_and_logits_alone() -> None:
    method = PlainSam(tiny_host())
    heard = Listener(method.sam)
    results = list(method.track(clip(3), masks={1: blob()}))
    first, second = heard.asked
    assert first.points is None
    assert first.mask_logits is not None
    assert first.mask_logits.shape == (1, 64, 64)
    assert (first.mask_logits.min(), first.mask_logits.max()) == (-10, 10)
    if results[1].visible[1]:
        assert second.box == grown_box(inclusive_box(results[1].masks[1]), (HEIGHT, WIDTH))
        np.testing.assert_array_equal(second.mask_logits, heard.answers[0][0].low_res_logits)


def test_boxes() -> None:
    assert inclusive_box(one_pixel(30, 30)) == (10, 15, 10, 15)
    assert grown_box((5, 20, 10, 25), (30, 100)) == (0, 10, 20, 30)
    with pytest.raises(ValueError, match="an empty mask has no box"):
        inclusive_box(np.zeros((3, 3), bool))


# ---- RefShapes from end to end ----


@pytest.mark.parametrize("name", BY_EXAMPLES)
def test_few_shot_episodes(name: str) -> None:
    protocol = PROTOCOLS["fss"](2)
    scores = [score for index in range(2) for score in protocol.score(built(name), index)]
    metrics = protocol.summarise(scores)
    assert all(0 <= value <= 1 for value in metrics.values())
    assert metrics["mIoU_1shot"] > 0.05


@pytest.mark.parametrize("name", BASELINES)
def test_clips(name: str) -> None:
    protocol = PROTOCOLS["vos"](2)
    scores = [score for index in range(2) for score in protocol.score(built(name), index)]
    assert protocol.summarise(scores)["J&F"] > 0.1

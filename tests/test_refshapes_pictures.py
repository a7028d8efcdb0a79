"""RefShapes' pictures and clips: rasters and masks, visibility, and what moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refshapes_checker import true_of

from sam_uniref.data.refshapes import (
    COLOURS,
    SEEN_SHAPES,
    TEXTURES,
    UNSEEN_SHAPES,
    Draws,
    RefShapesDataset,
    Scene,
    ShapeObject,
    draw_scene,
    render,
)
from sam_uniref.data.refshapes.clips import draw_clip, draw_name
from sam_uniref.data.refshapes.doodles import DOODLES, doodle, doodle_number
from sam_uniref.data.refshapes.palette import Background, Paint, background_pixels
from sam_uniref.data.refshapes.raster import UNIT, coverage, place
from sam_uniref.data.refshapes.shapes import outline
from sam_uniref.data.refshapes.wording import word

GREY = Background("flat", (128, 128, 128), (128, 128, 128), 2, 0)


# ---- pictures and masks ----


def naive_alpha(x: np.ndarray, y: np.ndarray, following: np.ndarray, side: int, steps: int = 8) -> np.ndarray:
    """Coverage by asking of many points whether a ray from them crosses the border an odd number of times."""
    offsets = (np.arange(side * steps) * 2 + 1) * UNIT / (2 * steps)
    px, py = np.meshgrid(offsets, offsets)
    inside = np.zeros(px.shape, bool)
    for k, n in enumerate(following):
        crosses = (y[k] > py) != (y[n] > py)
        rise = np.where(y[n] == y[k], 1, y[n] - y[k])
        inside ^= crosses & (px < (x[n] - x[k]) * (py - y[k]) / rise + x[k])
    return inside.reshape(side, steps, side, steps).mean((1, 3)) * 255


@given(
    shape=st.sampled_from(SEEN_SHAPES + UNSEEN_SHAPES) | st.integers(0, DOODLES - 1).map(doodle),
    x=st.floats(-0.2, 1.2),
    y=st.floats(-0.2, 1.2),
    size=st.floats(0.05, 0.4),
    angle=st.integers(0, 359),
)
@settings(max_examples=60, deadline=None)
def test_raster_covers_what_the_polygon_covers(shape: str, x: float, y: float, size: float, angle: int) -> None:
    border, turn = outline(shape), (float(np.cos(np.radians(angle))), float(np.sin(np.radians(angle))))
    points = place(border, (x, y), size, turn, 24)
    patch = coverage(*points, border.following, 24)
    alpha = np.zeros((24, 24))
    alpha[patch.rows, patch.columns] = patch.alpha
    assert np.abs(alpha - naive_alpha(*points, border.following, 24)).max() < 80
    assert np.abs(alpha - naive_alpha(*points, border.following, 24)).mean() < 1.5


def test_outlines_have_one_size() -> None:
    for shape in SEEN_SHAPES + UNSEEN_SHAPES + tuple(map(doodle, range(40))):
        border = outline(shape)
        whole = ShapeObject(shape, "red", Paint("plain", (0, 0, 0), (0, 0, 0), 0.1), 0.2, 0.5, 0.5, 0).patch(256)
        assert whole.alpha.sum() / 255 == pytest.approx(border.area * (0.2 * 256) ** 2, rel=0.01)
        assert 0.35 * np.pi < border.area <= np.pi + 1e-3


def test_doodles_are_by_number() -> None:
    assert [doodle_number(doodle(n)) for n in (0, 7, DOODLES - 1)] == [0, 7, DOODLES - 1]
    assert outline(doodle(3)).x.tolist() != outline(doodle(4)).x.tolist()
    for name in ("star", "doodle", "doodle ", "doodle 07", "doodle -1", f"doodle {DOODLES}", "doodle ²"):
        assert doodle_number(name) is None
    with pytest.raises(ValueError, match="there is no shape"):
        outline(f"doodle {DOODLES}")


@pytest.mark.parametrize("style", ["textured", "plain"])
def test_masks_are_what_is_seen(style: str) -> None:
    for index in range(25):
        scene = draw_scene(Draws(7, index), style)  # type: ignore[arg-type]
        ids = render(scene, 96)[1]
        for k, item in enumerate(scene.objects):
            # How much a pixel changes from black to white is how much of the object is seen in it.
            painted = []
            for grey in (0, 255):
                objects = list(scene.objects)
                objects[k] = replace(item, paint=Paint("plain", (grey,) * 3, (0, 0, 0), 0.1))  # type: ignore[arg-type]
                image, same_ids = render(Scene(tuple(objects), scene.background), 96)
                np.testing.assert_array_equal(same_ids, ids)
                painted.append(image[..., 0].astype(int))
            seen = painted[1] - painted[0]
            assert (seen[ids == k + 1] > 55).all()
            assert (seen[ids != k + 1] < 135).all()


@pytest.mark.parametrize("style", ["textured", "plain"])
@pytest.mark.parametrize("side", [64, 128, 200])
def test_objects_of_a_scene_are_mostly_visible_and_sizes_have_a_gap(style: str, side: int) -> None:
    hidden = 0
    for index in range(150):
        scene = draw_scene(Draws(3, index), style)  # type: ignore[arg-type]
        assert 2 <= len(scene.objects) <= 6
        ids = render(scene, side)[1]
        for k, item in enumerate(scene.objects):
            share = (ids == k + 1).sum() / (item.patch(side).alpha >= 128).sum()
            assert share >= 0.6
            hidden += share < 0.97
            assert item.size <= 0.1 or item.size >= 0.13
    assert hidden > 15


def test_textures_and_backgrounds_show() -> None:
    for texture in TEXTURES:
        item = ShapeObject("square", "blue", Paint(texture, COLOURS["blue"], (0, 0, 0), 0.06), 0.17, 0.5, 0.5, 0.0)
        image, ids = render(Scene((item,), GREY))
        dark = (image[ids == 1].max(-1) < 40).mean()
        assert (dark == 0) if texture == "plain" else 0.2 < dark < 0.65
    assert background_pixels(replace(GREY, kind="clouds", second=(200, 200, 200)), 64).std() > 5


def test_named_colours_are_far_apart() -> None:
    values = np.array(list(COLOURS.values()), float)
    distance = np.linalg.norm(values[:, None] - values[None], axis=-1)
    assert distance[~np.eye(len(values), dtype=bool)].min() > 80
    assert len(COLOURS) >= 8


def test_a_scene_looks_alike_at_any_side() -> None:
    scene = draw_scene(Draws(11))
    small, large = (render(scene, side)[1] for side in (64, 256))
    assert (small == large[2::4, 2::4]).mean() > 0.97


# ---- clips ----


@pytest.mark.parametrize("style", ["textured", "plain"])
def test_a_clips_sentences_hold_for_one_object_throughout(style: str) -> None:
    for index in range(150):
        draws = Draws(21, index)
        clip = draw_clip(draws, style)  # type: ignore[arg-type]
        for k in range(len(clip.objects)):
            sentence = word(draw_name(draws, clip, k, style), draws, style)  # type: ignore[arg-type]
            items = [o.item for o in clip.objects]
            assert true_of(sentence, items) == [k], sentence
            for t in range(clip.frames):
                for shown, item in zip(clip.at(t), items, strict=True):
                    assert shown is None or (shown.shape, shown.colour, shown.texture) == (
                        item.shape,
                        item.colour,
                        item.texture,
                    )


def test_clips_give_frames_masks_first_frames_and_sentences() -> None:
    data = RefShapesDataset("vos", "vos", side=64)
    late = gone_and_back = 0
    for index in range(40):
        clip = data.clip(index)
        assert clip.frames.shape == (12, 64, 64, 3)
        assert clip.ids.shape == (12, 64, 64)
        assert clip.frames.dtype == clip.ids.dtype == np.uint8
        numbers = list(range(1, len(clip.first_frames) + 1))
        assert list(clip.first_frames) == list(clip.sentences) == numbers
        assert list(clip.first_frames.values()) == sorted(clip.first_frames.values())
        assert set(np.unique(clip.ids)) <= {0, *numbers}
        assert sum(first == 0 for first in clip.first_frames.values()) >= 2
        for number, first in clip.first_frames.items():
            seen = (clip.ids == number).any((1, 2))
            assert not seen[:first].any()
            assert seen[first]
            late += first > 0
            away = np.flatnonzero(~seen[first:])
            gone_and_back += bool(len(away) and seen[first + away[0] :].any())
        assert (np.diff(clip.frames.astype(int), axis=0) != 0).any((1, 2, 3)).all()
    assert late > 5
    assert gone_and_back > 5


def test_objects_appear_mostly_visible() -> None:
    for index in range(40):
        clip = draw_clip(Draws(5, index))
        for k, moving in enumerate(clip.objects):
            shown = clip.at(moving.first)[k]
            assert shown is not None
            border = outline(shown.shape)
            whole = border.area * (shown.size * 128) ** 2
            ids = clip.render(moving.first)[1]
            assert (ids == k + 1).sum() >= 0.6 * whole


def test_a_frame_is_the_films() -> None:
    clip = draw_clip(Draws(8))
    frames, ids = clip.film(64)
    for t in (0, 7):
        image, numbers = clip.render(t, 64)
        np.testing.assert_array_equal(frames[t], image)
        np.testing.assert_array_equal(ids[t], numbers)
    k = int(np.flatnonzero(np.array(clip.shares[7]) > 0.5)[0])
    assert (ids[7] == k + 1).any()
    assert not (clip.render(7, 64, without=k)[1] == k + 1).any()

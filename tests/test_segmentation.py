"""Pictures and masks in, masks out: every kind of input, what is refused, and the way through the input square."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as PILImage
from pycocotools import mask as coco
from tiny import disc, picture

from sam_uniref.images import fit_to_image, load_id_map, load_image, load_mask
from sam_uniref.palette import id_color
from sam_uniref.sam.build import PIXEL_MEAN, PIXEL_STD
from sam_uniref.segmentation import Segmentation, bounding_box, encode_rle, overlay_mask
from sam_uniref.transforms import SquareTransform, content_mask

TRANSFORM = SquareTransform(128, PIXEL_MEAN, PIXEL_STD)
RGB = picture(6, 8)
GREY = RGB[:, :, 0]
RGBA = np.dstack([RGB, np.full((6, 8), 7, np.uint8)])
GREY_AS_RGB = np.repeat(GREY[:, :, None], 3, axis=2)

# ---- Images ----


def saved(array: NDArray[np.uint8], path: Path) -> Path:
    PILImage.fromarray(array).save(path)
    return path


def palette(ids: NDArray[np.uint8]) -> PILImage.Image:
    """A palette picture whose colours have nothing to do with its ids."""
    image = PILImage.fromarray(ids)
    image.putpalette([(37 * i + c) % 256 for i in range(256) for c in range(3)])
    return image


IMAGES: dict[str, tuple[Callable[[Path], object], NDArray[np.uint8]]] = {
    "path": (lambda folder: saved(RGB, folder / "a.png"), RGB),
    "str path": (lambda folder: str(saved(RGB, folder / "a.bmp")), RGB),
    "PIL RGB": (lambda _: PILImage.fromarray(RGB), RGB),
    "PIL L": (lambda _: PILImage.fromarray(GREY), GREY_AS_RGB),
    "PIL RGBA": (lambda _: PILImage.fromarray(RGBA), RGB),
    "numpy RGB": (lambda _: RGB, RGB),
    "numpy grey": (lambda _: GREY, GREY_AS_RGB),
    "numpy grey with channel": (lambda _: GREY[:, :, None], GREY_AS_RGB),
    "numpy RGBA": (lambda _: RGBA, RGB),
    "numpy float": (lambda _: RGB / 255, RGB),
    "numpy float32 grey": (lambda _: (GREY / 255).astype(np.float32), GREY_AS_RGB),
    "numpy RGBA float": (lambda _: RGBA / 255, RGB),
    "numpy not contiguous": (lambda _: RGB[::-1, ::-1], RGB[::-1, ::-1]),
    "torch uint8": (lambda _: torch.from_numpy(RGB).permute(2, 0, 1), RGB),
    "torch grey": (lambda _: torch.from_numpy(GREY)[None], GREY_AS_RGB),
    "torch RGBA": (lambda _: torch.from_numpy(RGBA).permute(2, 0, 1), RGB),
    "torch float": (lambda _: torch.from_numpy(RGB).permute(2, 0, 1) / 255, RGB),
    "torch float64 that wants gradients": (
        lambda _: (torch.from_numpy(RGB).permute(2, 0, 1).double() / 255).requires_grad_(),
        RGB,
    ),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_every_kind_of_image(kind: str, tmp_path: Path) -> None:
    make, wanted = IMAGES[kind]
    image = load_image(make(tmp_path))  # type: ignore[arg-type]
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, wanted)


def test_palette_image_becomes_its_colours() -> None:
    image = load_image(palette(np.array([[0, 1], [2, 0]], np.uint8)))
    np.testing.assert_array_equal(image[0, 1], [37, 38, 39])
    np.testing.assert_array_equal(image[1, 0], [74, 75, 76])


def test_bfloat16_tensor_is_rounded() -> None:
    tensor = (torch.from_numpy(RGB).permute(2, 0, 1) / 255).bfloat16()
    assert np.abs(load_image(tensor).astype(int) - RGB).max() <= 1


def test_sixteen_bit_grey_is_scaled(tmp_path: Path) -> None:
    """Not clipped to white, as a plain conversion would."""
    deep = GREY.astype(np.uint16) * 257
    PILImage.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(load_image(tmp_path / "deep.png"), GREY_AS_RGB)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = PILImage.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "turned.png"), np.rot90(RGB, -1))


def nan_image() -> NDArray[np.float64]:
    array = RGB / 255
    array[0, 0, 0] = np.nan
    return array


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (nan_image(), "finite"),
        (np.full((4, 4), np.inf), "finite"),
        (torch.full((3, 4, 4), torch.nan), "finite"),
        (RGB.astype(np.float32), "divide by 255"),
        (RGB / 255 - 0.5, "in 0-1"),
        (RGB.astype(np.int64), "uint8 .* got int64"),
        (np.ones((4, 4), bool), "got bool"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), "got int32"),
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\)"),
        (np.zeros((3, 4, 5), np.uint8), r"got \(3, 4, 5\)"),
        (np.zeros(4, np.uint8), "must be"),
        (np.zeros((1, 4, 4, 3), np.uint8), "must be"),
        (np.zeros((0, 4, 3), np.uint8), "must be"),
        (torch.zeros(4, 4), r"\(C, H, W\)"),
        (torch.zeros(6, 4, 3), r"got \(6, 4, 3\)"),
        (torch.zeros(5, 4, 6), r"got \(5, 4, 6\)"),
    ],
)
def test_bad_arrays_are_refused(image: NDArray | torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_image(image)


@pytest.mark.parametrize("image", [None, 3, [[1, 2], [3, 4]], b"bytes"])
def test_other_types_are_refused(image: object) -> None:
    with pytest.raises(TypeError, match=f"got {type(image).__name__}"):
        load_image(image)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"got {type(image).__name__}"):
        load_mask(image, (4, 4))  # type: ignore[arg-type]


def test_broken_files_are_named(tmp_path: Path) -> None:
    whole = saved(picture(200, 200), tmp_path / "whole.jpg").read_bytes()
    for name, content in {"cut.jpg": whole[: len(whole) // 2], "text.png": b"not a picture", "empty.jpg": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is not a whole image"):
            load_image(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} is not a whole image"):
            load_mask(tmp_path / name, (200, 200))


def test_missing_files_are_named(tmp_path: Path) -> None:
    for load in (load_image, load_id_map):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
            load(tmp_path / "nowhere.png")


# ---- Masks ----

IDS = np.zeros((6, 8), np.uint8)
IDS[1:3, 1:4] = 1
IDS[4:6, 5:8] = 2
ONE = IDS == 1


def test_palette_ids_and_void(tmp_path: Path) -> None:
    ids = IDS.copy()
    ids[0, 0] = 255
    palette(ids).save(tmp_path / "ids.png")
    for mask in (tmp_path / "ids.png", palette(ids)):
        np.testing.assert_array_equal(load_id_map(mask), IDS)
        np.testing.assert_array_equal(load_mask(mask, (6, 8), object_id=2), IDS == 2)


def in_colors(ids: NDArray[np.uint8], *colors: tuple[int, int, int]) -> PILImage.Image:
    """A colour picture of ids; by default in the colours that video sets show them in."""
    shown = colors or tuple(id_color(number) for number in range(256))
    return PILImage.fromarray(np.array(shown, np.uint8)[ids])


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_mask_in_the_palettes_colours_has_its_ids(mode: str) -> None:
    np.testing.assert_array_equal(load_id_map(in_colors(IDS).convert(mode)), IDS)
    late = np.where(IDS == 2, 2, 0).astype(np.uint8)  # a later mask names the new object alone
    np.testing.assert_array_equal(load_id_map(in_colors(late).convert(mode)), late)
    void = np.where(IDS == 0, 255, IDS).astype(np.uint8)
    np.testing.assert_array_equal(load_id_map(in_colors(void).convert(mode)), IDS)


def test_a_mask_in_one_other_colour_is_binary_and_one_in_several_is_refused() -> None:
    red = in_colors(ONE.astype(np.uint8), (0, 0, 0), (255, 0, 0))
    np.testing.assert_array_equal(load_id_map(red), ONE)
    with pytest.raises(ValueError, match="no object's in PASCAL-VOC's palette; save the ids"):
        load_id_map(in_colors(IDS, (0, 0, 0), (255, 0, 0), (0, 0, 255)))


def test_palette_of_0_and_255_is_binary() -> None:
    np.testing.assert_array_equal(load_mask(palette(np.where(ONE, 255, 0).astype(np.uint8)), (6, 8)), ONE)


BINARY: dict[str, Callable[[Path], object]] = {
    "grey 0/255 file": lambda folder: saved(np.where(ONE, 255, 0).astype(np.uint8), folder / "m.png"),
    "grey 0/1 file": lambda folder: saved(ONE.astype(np.uint8), folder / "m.png"),
    "bilevel file": lambda folder: saved(ONE, folder / "m.png"),
    "RGB file": lambda folder: saved(
        np.repeat(np.where(ONE, 255, 0)[..., None], 3, 2).astype(np.uint8), folder / "m.png"
    ),
    "lossy file": lambda folder: saved(np.where(ONE, 250, 4).astype(np.uint8), folder / "m.png"),
    "bool": lambda _: ONE,
    "uint8 0/255": lambda _: np.where(ONE, 255, 0).astype(np.uint8),
    "uint8 0/1": lambda _: ONE.astype(np.uint8),
    "int32": lambda _: ONE.astype(np.int32),
    "float 0-1": lambda _: np.where(ONE, 0.7, 0.3),
    "float 0-255": lambda _: np.where(ONE, 255.0, 0.0).astype(np.float32),
    "with channel": lambda _: ONE[..., None],
    "torch bool": lambda _: torch.from_numpy(ONE),
    "torch with channel": lambda _: torch.from_numpy(ONE)[None].float(),
    "torch bfloat16": lambda _: torch.from_numpy(ONE).bfloat16(),
}


@pytest.mark.parametrize("kind", BINARY)
def test_every_kind_of_binary_mask(kind: str, tmp_path: Path) -> None:
    mask = load_mask(BINARY[kind](tmp_path), (6, 8))  # type: ignore[arg-type]
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, ONE)


@pytest.mark.parametrize("ids", [IDS, IDS.astype(np.int64), torch.from_numpy(IDS)])
def test_maps_of_several_objects(ids: NDArray | torch.Tensor) -> None:
    np.testing.assert_array_equal(load_mask(ids, (6, 8), object_id=2), IDS == 2)
    with pytest.raises(ValueError, match=r"objects \[1, 2\]; say which one with object_id="):
        load_mask(ids, (6, 8))
    with pytest.raises(ValueError, match=r"no object 3, it has \[1, 2\]"):
        load_mask(ids, (6, 8), object_id=3)


def test_a_single_id_needs_no_name() -> None:
    np.testing.assert_array_equal(load_mask(ONE.astype(np.int64) * 7, (6, 8)), ONE)


def test_empty_masks_are_refused_by_name(tmp_path: Path) -> None:
    path = saved(np.zeros((6, 8), np.uint8), tmp_path / "blank.png")
    with pytest.raises(ValueError, match=r"blank\.png is empty"):
        load_mask(path, (6, 8))
    for mask in (np.zeros((6, 8), bool), np.zeros((6, 8)), torch.zeros(6, 8)):
        with pytest.raises(ValueError, match="the mask is empty"):
            load_mask(mask, (6, 8))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((4, 4), np.nan), "finite"),
        (torch.full((4, 4), torch.inf), "finite"),
        (np.zeros((4, 4, 3), np.uint8), r"must be \(H, W\), got \(4, 4, 3\)"),
        (np.zeros(4), r"must be \(H, W\)"),
        (np.zeros((0, 4)), r"must be \(H, W\)"),
    ],
)
def test_bad_masks_are_refused(mask: NDArray | torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_mask(mask, (4, 4))


@pytest.mark.parametrize("size", [(7, 8), (6, 9), (8, 6), (4, 10), (4, 9)])
def test_masks_a_little_off_are_mended_with_a_warning(
    size: tuple[int, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(np.where(ONE, 255, 0).astype(np.uint8), tmp_path / "off.png")
    with caplog.at_level(logging.WARNING, logger="sam_uniref.images"):
        mask = load_mask(path, size)
    assert mask.shape == size
    assert f"off.png is 8x6, its image {size[1]}x{size[0]}" in caplog.text
    wanted = PILImage.fromarray(ONE).resize(size[::-1], PILImage.Resampling.NEAREST)
    np.testing.assert_array_equal(mask, np.asarray(wanted))


def test_masks_of_the_right_size_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="sam_uniref.images"):
        load_mask(ONE, (6, 8))
    assert caplog.text == ""


@pytest.mark.parametrize("size", [(9, 8), (6, 5), (12, 16)])
def test_masks_of_another_size_are_refused(size: tuple[int, int], tmp_path: Path) -> None:
    path = saved(np.where(ONE, 255, 0).astype(np.uint8), tmp_path / "other.png")
    with pytest.raises(ValueError, match=rf"other\.png is 8x6 but its image is {size[1]}x{size[0]}"):
        load_mask(path, size)


@settings(max_examples=50, deadline=None)
@given(
    height=st.integers(3, 40),
    width=st.integers(3, 40),
    rows=st.integers(-2, 2),
    columns=st.integers(-2, 2),
    seed=st.integers(0, 1000),
)
def test_mending_moves_no_pixel_by_more_than_its_error(
    height: int, width: int, rows: int, columns: int, seed: int
) -> None:
    ids = np.random.default_rng(seed).integers(0, 9, (height, width))
    size = (height + rows, width + columns)
    assume(min(size) > 0)
    fitted = fit_to_image(ids, size)
    assert fitted.shape == size
    row, column = np.random.default_rng(seed).integers(0, size)
    near = ids[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
    assert fitted[row, column] in near


# ---- Segmentation ----


def segmentation(mask: NDArray[np.bool_]) -> Segmentation:
    logits = np.where(mask, 1.0, -1.0).astype(np.float32)
    return Segmentation(mask, 0.9, logits, logits[None, ::4, ::4])


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 30), width=st.integers(1, 30), seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_rle_and_box_round_trip(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    found = segmentation(mask)
    rle = json.loads(json.dumps(found.to_rle()))
    assert rle["size"] == [height, width]
    np.testing.assert_array_equal(coco.decode(rle).astype(bool), mask)
    if found.box is None:
        assert not mask.any()
        return
    x0, y0, x1, y1 = found.box
    inside = mask[y0:y1, x0:x1]
    assert inside.sum() == mask.sum()
    assert inside[0].any()
    assert inside[-1].any()
    assert inside[:, 0].any()
    assert inside[:, -1].any()


def test_box_is_exclusive_and_none_when_empty() -> None:
    assert bounding_box(ONE) == (1, 1, 4, 3)
    assert bounding_box(np.zeros((3, 3), bool)) is None


def test_rle_is_column_major() -> None:
    assert encode_rle(ONE)["counts"] == coco.encode(np.asfortranarray(ONE.astype(np.uint8)))["counts"].decode()


def test_overlay_tints_inside_draws_the_border_and_leaves_the_rest() -> None:
    image, mask = picture(40, 50), disc(40, 50)
    before = image.copy()
    painted = segmentation(mask).overlay(image, color=(10, 20, 30), alpha=0.25)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(painted[~mask], image[~mask])
    np.testing.assert_array_equal(painted[20, 25], np.round(0.75 * image[20, 25] + 0.25 * np.array([10, 20, 30])))
    top = np.flatnonzero(mask[:, 25])[0]
    np.testing.assert_array_equal(painted[top, 25], [10, 20, 30])
    np.testing.assert_array_equal(painted[top, 25], overlay_mask(image, mask, (10, 20, 30))[top, 25])


def test_overlay_borders_touch_the_pictures_edge() -> None:
    painted = overlay_mask(np.zeros((5, 5, 3), np.uint8), np.ones((5, 5), bool), (200, 100, 50), alpha=0.0)
    border = (painted == (200, 100, 50)).all(axis=2)
    assert border.sum() == 16
    assert not border[1:-1, 1:-1].any()


def test_overlay_of_nothing_is_the_picture() -> None:
    np.testing.assert_array_equal(segmentation(np.zeros((6, 8), bool)).overlay(RGB), RGB)


def test_overlay_refuses_another_size() -> None:
    with pytest.raises(ValueError, match=r"\(6, 8\), the mask \(8, 6\)"):
        segmentation(np.ones((8, 6), bool)).overlay(RGB)


def test_voc_colours() -> None:
    colors = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
    assert [id_color(i) for i in range(5)] == colors
    assert id_color(8) == (64, 0, 0)
    assert len({id_color(i) for i in range(256)}) == 256


# ---- The way through the input square ----

SIDES = st.tuples(st.integers(1, 400), st.integers(1, 400))


@settings(max_examples=100, deadline=None)
@given(size=SIDES)
def test_content_fills_the_longest_side(size: tuple[int, int]) -> None:
    height, width = TRANSFORM.input_size(size)
    assert max(height, width) == 128
    assert min(height, width) >= 1
    scale = 128 / max(size)
    assert abs(height - size[0] * scale) <= max(0.5, 1 - size[0] * scale)
    assert abs(width - size[1] * scale) <= max(0.5, 1 - size[1] * scale)


@settings(max_examples=30, deadline=None)
@given(size=SIDES, seed=st.integers(0, 100))
def test_images_are_normalised_and_padded_with_zeros(size: tuple[int, int], seed: int) -> None:
    value = np.random.default_rng(seed).integers(0, 256, 3, dtype=np.uint8)
    pixels, (height, width) = TRANSFORM.image(np.broadcast_to(value, (*size, 3)).copy())
    assert pixels.shape == (3, 128, 128)
    assert pixels.dtype == torch.float32
    wanted = (torch.tensor(value.astype(np.float32)) - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_STD)
    torch.testing.assert_close(pixels[:, :height, :width], wanted.view(3, 1, 1).expand(3, height, width))
    assert not pixels[:, height:].any()
    assert not pixels[:, :, width:].any()


@settings(max_examples=150, deadline=None)
@given(size=SIDES, data=st.data())
def test_no_target_gets_lost_in_the_square(size: tuple[int, int], data: st.DataObject) -> None:
    mask = np.zeros(size, bool)
    for _ in range(data.draw(st.integers(1, 3))):
        mask[data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))] = True
    scaled = TRANSFORM.mask(mask)
    height, width = TRANSFORM.input_size(size)
    assert scaled.shape == (128, 128)
    assert scaled.any()
    assert set(scaled.unique().tolist()) <= {0.0, 1.0}
    assert not scaled[height:].any()
    assert not scaled[:, width:].any()


def test_an_empty_mask_stays_empty() -> None:
    assert not TRANSFORM.mask(np.zeros((30, 40), bool)).any()


def test_masks_fall_where_their_pixels_do() -> None:
    mask = disc(90, 120, center=(0.3, 0.7))
    as_image, _ = TRANSFORM.image(np.repeat(np.where(mask, 255, 0)[..., None], 3, 2).astype(np.uint8))
    bright = as_image[0] * PIXEL_STD[0] + PIXEL_MEAN[0] > 127
    bright[96:] = False
    scaled = TRANSFORM.mask(mask).bool()
    assert (scaled & bright).sum() / (scaled | bright).sum() > 0.97


@settings(max_examples=60, deadline=None)
@given(size=SIDES, data=st.data())
def test_points_go_where_their_pixels_go(size: tuple[int, int], data: st.DataObject) -> None:
    x = data.draw(st.floats(0, size[1]))
    y = data.draw(st.floats(0, size[0]))
    height, width = TRANSFORM.input_size(size)
    ((mapped_x, mapped_y),) = TRANSFORM.points(np.array([[x, y]]), size).tolist()
    assert mapped_x == pytest.approx(x * width / size[1], rel=1e-5, abs=1e-5)
    assert mapped_y == pytest.approx(y * height / size[0], rel=1e-5, abs=1e-5)
    corner = TRANSFORM.points(np.array([[size[1], size[0]]], float), size)[0].tolist()
    assert corner == pytest.approx([width, height])


@settings(max_examples=40, deadline=None)
@given(size=SIDES, rows=st.integers(1, 2), count=st.integers(1, 3))
def test_logits_come_back_at_the_pictures_size(size: tuple[int, int], rows: int, count: int) -> None:
    low_res = torch.arange(rows * count, dtype=torch.float32).view(rows, count, 1, 1).expand(-1, -1, 32, 32)
    logits = TRANSFORM.logits(low_res, TRANSFORM.input_size(size), size)
    assert logits.shape == (rows, count, *size)
    torch.testing.assert_close(logits, low_res[..., :1, :1].expand(-1, -1, *size))


def test_logits_follow_a_mask_there_and_back() -> None:
    mask = disc(90, 120, center=(0.4, 0.6))
    low_res = torch.nn.functional.adaptive_avg_pool2d(TRANSFORM.mask(mask)[None, None], 32) - 0.5
    back = TRANSFORM.logits(low_res, TRANSFORM.input_size((90, 120)), (90, 120))[0, 0].numpy() > 0
    assert (back & mask).sum() / (back | mask).sum() > 0.9


def test_content_mask_counts_partly_filled_cells() -> None:
    cells = content_mask([(17, 128), (128, 8), (128, 128)], (16, 16), 8, torch.device("cpu"))
    assert cells[0].sum(0).tolist() == [3] * 16
    assert cells[1].sum(1).tolist() == [1] * 16
    assert cells[2].all()


def test_grey_picture_of_ids_keeps_them(tmp_path: Path) -> None:
    ids = np.zeros((6, 8), np.uint8)
    ids[1:3, 1:3], ids[4:6, 4:8] = 1, 3
    PILImage.fromarray(ids).save(tmp_path / "ids.png")
    np.testing.assert_array_equal(load_id_map(tmp_path / "ids.png"), ids)
    np.testing.assert_array_equal(load_mask(tmp_path / "ids.png", (6, 8), object_id=3), ids == 3)


def test_negative_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative, got -2"):
        load_id_map(np.array([[0, -2], [1, 0]]))

"""Polygons: without loss unless simplified, as pycocotools draws them, and bad ones refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from masks import RING, any_mask
from numpy.typing import NDArray
from pycocotools import mask as coco
from scipy.ndimage import label

from sam_uniref.exchange import LabelledMask, Polygon, decode_polygons, encode_polygons, encode_yolo, polygon_iou
from sam_uniref.exchange.polygons import fill_rings, join_rings
from sam_uniref.segmentation import Segmentation

SQUARE = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], float)


@settings(deadline=None)
@given(any_mask())
def test_nothing_is_lost(mask: NDArray[np.bool_]) -> None:
    polygons = encode_polygons(mask)
    assert len(polygons) == label(mask)[1]
    assert (decode_polygons(polygons, mask.shape) == mask).all()
    assert polygon_iou(mask, polygons) == 1
    if polygons:
        joined = join_rings(polygons)
        assert (fill_rings([joined], mask.shape) == mask).all()
        drawn = coco.decode(coco.merge(coco.frPyObjects([joined.ravel().tolist()], *mask.shape)))
        assert (drawn.astype(bool) == mask).all(), "pycocotools sees another mask"


def test_a_ring_has_an_outline_and_a_hole() -> None:
    (polygon,) = encode_polygons(RING)
    assert len(polygon.holes) == 1
    assert polygon.outline.min() >= 0
    assert polygon.outline[:, 0].max() - polygon.outline[:, 0].min() == RING.any(0).sum()


def test_coordinates_are_of_the_pixels_edges() -> None:
    mask = np.zeros((5, 7), bool)
    mask[1:3, 2:6] = True
    (polygon,) = encode_polygons(mask)
    assert {tuple(corner) for corner in polygon.outline} == {(2, 1), (6, 1), (6, 3), (2, 3)}
    assert not polygon.holes


def test_simplified_polygons_lose_what_is_measured() -> None:
    exact, simple = encode_polygons(RING), encode_polygons(RING, tolerance=1.5)
    corners = [sum(len(ring) for p in polygons for ring in (p.outline, *p.holes)) for polygons in (exact, simple)]
    assert corners[1] < corners[0] / 3
    assert 0.9 < polygon_iou(RING, simple) < 1
    pixel = np.eye(1, 5, 2, dtype=bool)
    assert encode_polygons(pixel, tolerance=50), "an outline is never simplified away"


def test_a_large_mask_with_many_parts() -> None:
    mask = np.zeros((2000, 1500), bool)
    mask[::50, ::50] = True
    polygons = encode_polygons(mask)
    assert len(polygons) == 40 * 30
    assert (decode_polygons(polygons, mask.shape) == mask).all()


def test_what_a_segmentation_offers() -> None:
    found = Segmentation(RING, 0.75, np.where(RING, 1, -1).astype(np.float32), np.zeros((1, 4, 4), np.float32))
    assert (decode_polygons(found.polygons(), RING.shape) == RING).all()
    said = found.to_coco(polygons=True)
    assert said["score"] == 0.75
    assert said["area"] == RING.sum()
    assert found.labelled("ring").label == "ring"
    assert found.to_coco()["segmentation"] == found.to_rle()


@pytest.mark.parametrize(
    ("ring", "message"),
    [
        (SQUARE[:2], "three corners"),
        (np.array([[0, 0], [np.nan, 1], [2, 2]]), "no point near"),
        (SQUARE * 1e9, "no point near"),
        (np.zeros((4, 3)), "three corners"),
        ([["a", "b"]] * 3, "are numbers"),
        ([[0, 0], [1], [2, 2]], "are numbers"),
    ],
)
def test_broken_rings(ring: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_polygons([Polygon(ring)], (8, 8))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"numpy array \(H, W\) of bool"):
        encode_polygons(RING.astype(np.uint8))
    with pytest.raises(ValueError, match="tolerance"):
        encode_polygons(RING, tolerance=-1)
    with pytest.raises(ValueError, match="has no polygon"):
        join_rings([])
    with pytest.raises(ValueError, match=r"178,956,970 pixels"):
        decode_polygons([], (10**6, 10**6))
    with pytest.raises(ValueError, match="is no class"):
        encode_yolo([LabelledMask(RING, "ring")], ["other"])

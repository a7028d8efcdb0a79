"""The whole SamRef against recorded outputs of the published ``UniRef_Sam`` (FoundationVision/UniRef at 16442cf).

Case ``uniref_sam`` of tests/fixtures/sam: a small SAM at 1024 px, six task modes. Converted by
`convert_official`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from parity import assert_matches, blob_mask, recorded
from published import SIZE, encoded, published_model, sentences

from sam_uniref.adapters import ReferenceFeatures, concat
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.samref import SamRef

SPARSE = (slice(None), slice(None, None, 8), slice(None, None, 9), slice(None, None, 9))


@pytest.fixture(scope="module")
def model() -> SamRef:
    return published_model()


@pytest.fixture(scope="module")
def images(model: SamRef) -> dict[str, ImageFeatures]:
    return {name: encoded(model, name) for name in ("image", "support", "first", "prev")}


@pytest.fixture(scope="module")
def references(model: SamRef, images: dict[str, ImageFeatures]) -> dict[str, ReferenceFeatures]:
    rows = torch.arange(2)
    known = {"text": sentences(model)}
    with torch.no_grad():
        for name in ("support", "first", "prev"):
            masks = torch.stack([blob_mask(f"uniref_sam.{name}_mask.{i}", 1024, 1024) for i in range(2)])
            known[name] = model.encode_mask(images[name], masks, rows)
    both_shots = [known["support"].select(torch.tensor([k])) for k in range(2)]
    known["two shots"] = concat(both_shots).about(torch.tensor([0]))
    known["vos"] = concat([known["first"], known["prev"]])
    return known


TASKS = {
    "grounding": ("image", ["text"]),
    "fss_1shot": ("image", ["support"]),
    "fss_2shot": ("image", ["two shots"]),
    "vos": ("image", ["vos"]),
    "rvos": ("image", ["text", "vos"]),
    "rvos_text": ("first", ["text"]),
}


def test_image_embedding(images: dict[str, ImageFeatures]) -> None:
    part = (slice(None), slice(None, None, 4), slice(None, None, 9), slice(None, None, 9))
    assert_matches(images["image"].levels[0], recorded("uniref_sam"), "image_embedding", part)


def test_references(references: dict[str, ReferenceFeatures]) -> None:
    expected = recorded("uniref_sam.intermediate")
    tokens = (slice(None), slice(7, None, 61), slice(None, None, 4))
    assert_matches(references["text"].keys[0], expected, "text.refs", (slice(None), slice(None), slice(None, None, 2)))
    assert_matches(references["text"].pooled[0], expected, "text.ref_embeds")
    assert_matches(references["support"].keys[0], expected, "support.refs", tokens)
    assert_matches(references["support"].values[0], expected, "support.ref_values", tokens)
    assert_matches(references["support"].pooled[0], expected, "support.ref_embeds")
    assert_matches(references["two shots"].pooled[0], expected, "fss_2shot.ref_embeds")
    assert_matches(references["vos"].pooled[0], expected, "vos.ref_embeds")


@pytest.mark.parametrize("task", TASKS)
def test_task(
    task: str, model: SamRef, images: dict[str, ImageFeatures], references: dict[str, ReferenceFeatures]
) -> None:
    image, kinds = TASKS[task]
    given = [references[kind] for kind in kinds]
    expected = recorded("uniref_sam")
    with torch.no_grad():
        (fused,) = model.fusion(images[image].levels, given)
        prediction = model.predict(images[image], given)
        masks = model.transform.logits(prediction.logits, SIZE, SIZE)
    assert_matches(fused, recorded("uniref_sam.intermediate"), f"{task}.fused", SPARSE)
    assert_matches(prediction.logits, expected, f"{task}.low_res", (..., slice(None, None, 5), slice(None, None, 5)))
    assert_matches(masks, expected, f"{task}.pred_mask", (..., slice(None, None, 31), slice(None, None, 31)))
    assert_matches(prediction.scores[:, 0], expected, f"{task}.iou")


def test_every_recorded_array_is_compared() -> None:
    arrays = {name for name in recorded("uniref_sam") if not name.endswith(".stats")}
    compared = {f"{task}.{what}" for task in TASKS for what in ("low_res", "pred_mask", "iou")} | {"image_embedding"}
    assert arrays == compared
    np.testing.assert_equal(len(compared), 19)

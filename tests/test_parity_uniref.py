"""UniRef against recorded outputs of the published code (FoundationVision/UniRef, ``projects/UniRef``).

Cases ``transformer`` and ``uniref_r50_<task>`` of the shared reference folder, all arrays. Tolerances are the folder's
README's: 1e-4, masks 1e-3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from parity import tensor
from published_uniref import ORIGINAL, blobs, encoded, joined, published_uniref, words
from torch import Tensor
from torch.nn import functional as F
from uniref_parity import assert_within, uniref_recorded

from sam_uniref.adapters import FrameReferences, ReferenceFeatures
from sam_uniref.detr.output import DetrOutput
from sam_uniref.detr.positions import sine_positions
from sam_uniref.interfaces import ImageFeatures, MaskPrediction
from sam_uniref.transforms import Size, content_mask

TASKS = ("grounding", "fss", "vos", "rvos")
SEEDS = {"grounding": 65, "fss": 12, "vos": 73, "rvos": 15}
SIZES: dict[str, Size] = {"grounding": (250, 310), "fss": (256, 320), "vos": (250, 310), "rvos": (256, 320)}
GRIDS = {8: (32, 40), 16: (16, 20), 32: (8, 10), 64: (4, 5)}
MASKS = 1e-3
EVERY_8 = np.s_[:, ::8]


# ---- The transformer alone ----


@torch.no_grad()
def test_transformer() -> None:
    expected = uniref_recorded("transformer")
    levels = [
        torch.stack([tensor(f"uniref.transformer.src{level}.{seed}", (256, *grid)) for seed in (2, 1)])
        for level, grid in enumerate(GRIDS.values())
    ]
    sizes = [(256, 320), (208, 248)]
    padding = [~content_mask(sizes, grid, stride, torch.device("cpu")) for stride, grid in GRIDS.items()]
    np.testing.assert_array_equal(padding[0].numpy(), expected["mask0"])
    np.testing.assert_array_equal(padding[3].numpy(), expected["mask3"])
    assert_within(sine_positions(padding[0], 256), expected, "pos0", np.s_[:, ::8, ::4, ::4])
    assert_within(sine_positions(padding[3], 256), expected, "pos3", EVERY_8)
    found = published_uniref().transformer(levels, padding)
    memory = torch.cat([level.flatten(2).transpose(1, 2) for level in found.memory], dim=1)
    assert_within(memory, expected, "memory", np.s_[:, ::17, ::8])
    assert_within(found.encoder_logits, expected, "enc_class")
    coordinates = torch.from_numpy(expected["enc_coord_unact"])
    torch.testing.assert_close(found.encoder_boxes[:, ::10], coordinates.sigmoid(), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found.chosen.numpy(), expected["topk"])
    assert_within(found.references[0], expected, "init_reference")
    # What a layer makes of its reference is the next one's; the last layer's is no one's, and its box.
    refined = torch.cat([found.references[1:], found.boxes[-1:]])
    assert_within(refined, expected, "inter_references", np.s_[:, :, ::6])
    assert_within(found.hidden, expected, "hs", np.s_[:, :, ::20, ::8])
    assert_within(found.logits, expected, "logits")
    assert_within(found.boxes, expected, "boxes", np.s_[:, :, ::3])


# ---- Whole tasks ----


@dataclass(frozen=True)
class Answered:
    """A recorded task, and what ours makes of it.

    Attributes:
        expected: The recorded arrays.
        features: Of the target image.
        text: Of the sentence, or None.
        annotated: Of the annotated images as one row, or None.
        output: Of the network.
        answer: The best query's.
    """

    expected: dict[str, np.ndarray]
    features: ImageFeatures
    text: ReferenceFeatures | None
    annotated: ReferenceFeatures | None
    output: DetrOutput
    answer: MaskPrediction


def annotated_images(task: str) -> tuple[ImageFeatures, Tensor] | None:
    """The support images or frames of a task, and their masks."""
    if task == "grounding":
        return None
    shown = ("support.0", "support.1") if task == "fss" else ("init", "prev")
    masks = ("support_mask.0", "support_mask.1") if task == "fss" else ("init_mask", "prev_mask")
    sizes = [(256, 320), (240, 300)] if task == "fss" else [SIZES[task]] * 2
    features = encoded([f"uniref.{task}.{name}" for name in shown], sizes)
    return features, blobs([f"uniref.{task}.{name}" for name in masks], sizes, features.canvas)


@pytest.fixture(scope="module", params=TASKS)
def answered(request: pytest.FixtureRequest) -> Answered:
    task = request.param
    expected, model = uniref_recorded(f"uniref_r50_{task}"), published_uniref()
    references: list[ReferenceFeatures | FrameReferences] = []
    text = annotated = None
    with torch.no_grad():
        features = encoded([f"uniref.{task}.image.{SEEDS[task]}"], [SIZES[task]])
        if task in ("grounding", "rvos"):
            text = words(f"uniref.{task}.text")
            references.append(text)
        shown = annotated_images(task)
        if shown is not None:
            annotated = joined(model.encode_mask(*shown, torch.arange(2)))
            if task == "fss":
                references.append(annotated)
            else:
                images, masks = shown
                frames = [model.encode_frame(images.select([k]), masks[k : k + 1])[0] for k in range(2)]
                references.append(FrameReferences((tuple(frames),), annotated.image_index))
        output, _ = model.run(features, references)
        return Answered(expected, features, text, annotated, output, model.predict(features, references))


@torch.no_grad()
def test_references_and_fusion(answered: Answered) -> None:
    expected, levels = answered.expected, answered.features.levels
    if answered.text is not None:
        assert_within(answered.text.keys[0], expected, "text_refs", np.s_[:, :, ::8])
        assert_within(answered.text.pooled[0], expected, "text_embed")
    if answered.annotated is not None:
        for level in range(4):
            keys, values, padding, pooled = answered.annotated.level(level)
            some = np.s_[:, :: max(1, keys.shape[1] // 80), ::16]
            assert_within(keys, expected, f"ref_key{level}", some)
            assert_within(values, expected, f"ref_value{level}", some)
            assert_within(pooled, expected, f"ref_embed{level}")
            np.testing.assert_array_equal(padding.numpy(), expected[f"ref_padding{level}"])
    given = [reference for reference in (answered.text, answered.annotated) if reference is not None]
    fused = published_uniref().fusion(levels, given)
    parts = (np.s_[:, ::8, ::4, ::4], np.s_[:, ::8, ::2, ::2], EVERY_8, EVERY_8)
    for level, part in enumerate(parts):
        assert_within(levels[level], expected, f"src{level}", part)
        assert_within(fused[level] - levels[level], expected, f"fused_minus_src{level}", part)


@torch.no_grad()
def test_network(answered: Answered) -> None:
    expected, output = answered.expected, answered.output
    memory = torch.cat([level.flatten(2).transpose(1, 2) for level in output.memory], dim=1)
    assert_within(memory, expected, "memory", np.s_[:, ::17, ::8])
    assert_within(output.encoder_logits, expected, "enc_class")
    np.testing.assert_array_equal(output.chosen.numpy(), expected["topk"])
    assert_within(output.references[0], expected, "init_reference")
    assert_within(output.references[5], expected, "reference5", np.s_[:, ::4])
    assert_within(output.hidden[5], expected, "hs5", np.s_[:, ::10, ::8])
    assert_within(output.logits[5], expected, "pred_logits")
    assert_within(output.boxes[5], expected, "pred_boxes")


@torch.no_grad()
def test_masks(answered: Answered, request: pytest.FixtureRequest) -> None:
    expected, output, model = answered.expected, answered.output, published_uniref()
    assert_within(model.mask_head.branch(output.memory), expected, "mask_head", np.s_[:, :, ::2, ::2])
    assert_within(output.mask_features, expected, "mask_feat", np.s_[:, :, ::4, ::4])
    scores, queries = output.logits[5, 0, :, 0].sigmoid().topk(5)
    np.testing.assert_array_equal(queries.numpy(), expected["top5"])
    assert_within(scores, expected, "top5_scores")
    assert_within(output.boxes[5, 0, queries], expected, "top5_boxes")
    is_followed = "[vos]" in request.node.name
    step = 8 if is_followed else 2
    masks = model.build_masks(
        output,
        torch.zeros(5, dtype=torch.int64),
        queries,
        answered.features.input_sizes,
        upsample=4 if is_followed else 1,
    )
    assert_within(masks, expected, "top5_masks", np.s_[:, ::step, ::step], atol=MASKS)
    torch.testing.assert_close(answered.answer.logits[0, 0], masks[0], rtol=0, atol=MASKS)


@torch.no_grad()
def test_answer(answered: Answered) -> None:
    """The published steps give the recorded mask, and the house's own are next to it.

    An image's mask is thresholded and resized by nearest neighbour there, a frame's probabilities bilinearly; here
    logits are, bilinearly, and then thresholded, which leaves smoother borders.
    """
    expected, answer, features = answered.expected, answered.answer, answered.features
    height, width = features.input_sizes[0]
    whole = F.interpolate(answer.logits, features.canvas, mode="bilinear", align_corners=False)[..., :height, :width]
    ours = published_uniref().transform.logits(answer.logits, (height, width), ORIGINAL, features.canvas)[0, 0]
    if "final_prob" in expected:
        published = F.interpolate(whole.sigmoid(), ORIGINAL, mode="bilinear", align_corners=False)[0, 0]
        assert_within(published, expected, "final_prob", np.s_[::6, ::6])
        np.testing.assert_allclose(ours.sigmoid()[::6, ::6], expected["final_prob"], rtol=0, atol=1e-3)
        return
    assert answer.boxes is not None
    assert_within(answer.scores[0], expected, "final_score")
    scale = torch.tensor([ORIGINAL[1] / width, ORIGINAL[0] / height] * 2)
    assert_within(answer.boxes[0] * scale, expected, "final_box", atol=MASKS)
    pixels = ORIGINAL[0] * ORIGINAL[1]
    recorded = np.unpackbits(expected["final_mask"])[:pixels].reshape(ORIGINAL).astype(bool)
    assert recorded.sum() == expected["final_mask.area"]
    published_mask = F.interpolate((whole > 0).float(), ORIGINAL, mode="nearest")[0, 0].numpy() > 0
    assert (published_mask != recorded).sum() <= 20
    assert ((ours > 0).numpy() != recorded).sum() <= 0.002 * pixels

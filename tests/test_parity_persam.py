"""PerSAM and PerSAM-F on pictures against recorded outputs of ZrrSkywalker/Personalize-SAM at a7e8724.

Arrays of tests/fixtures/baselines: a small SAM at 1024 px with random weights, one annotated picture, one test picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from persam_support import (
    NOTES,
    Listener,
    recorded_arrays,
    recorded_host,
    recorded_mask,
    recorded_picture,
)

from sam_uniref import MaskReference
from sam_uniref.eval.baselines import Persam, PersamF
from sam_uniref.eval.baselines.guidance import guided_decoder
from sam_uniref.eval.baselines.mask_weights import IMAGE_SCHEDULE, Lesson, MaskWeights, Schedule
from sam_uniref.eval.baselines.prompting import Prompt, PromptedSam, inclusive_box
from sam_uniref.eval.baselines.target import (
    IMAGE_BRIGHTNESS,
    attention_prior,
    cosine,
    location_prompt,
    mean_and_max_embedding,
    mean_embedding,
    object_cells,
    object_features,
    similarity,
)
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.segmentation import Segmentation

TOLERANCE = 1e-4
PIXELS = 0.999
GRID = (64, 64)
STEPS = 20

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def persam() -> Arrays:
    return recorded_arrays("persam")


@pytest.fixture(scope="module")
def persam_f() -> Arrays:
    return recorded_arrays("persam_f")


@pytest.fixture(scope="module")
def sam() -> PromptedSam:
    return PromptedSam(recorded_host())


@pytest.fixture(scope="module")
def example(sam: PromptedSam) -> ImageFeatures:
    return sam.encode(recorded_picture("ref"))


@pytest.fixture(scope="module")
def query(sam: PromptedSam) -> ImageFeatures:
    return sam.encode(recorded_picture("test"))


@pytest.fixture(scope="module")
def target(sam: PromptedSam, example: ImageFeatures) -> torch.Tensor:
    return mean_embedding(object_features(example, recorded_mask(), sam.host.transform, IMAGE_BRIGHTNESS))


@pytest.fixture(scope="module")
def found(sam: PromptedSam, target: torch.Tensor, query: ImageFeatures) -> torch.Tensor:
    return similarity(target, query, sam.host.transform)


def assert_close(got: Any, expected: NDArray[Any]) -> None:
    """Within the stated tolerance, whatever the number of leading axes of length 1."""
    np.testing.assert_allclose(np.squeeze(np.asarray(got)), np.squeeze(expected), rtol=0, atol=TOLERANCE)


def assert_answers(got: list[Segmentation], expected: Arrays, step: str) -> None:
    """Logits and scores of one step's candidates, and the areas of their masks."""
    assert_close(np.stack([s.low_res_logits[0] for s in got])[:, ::8, ::8], expected[f"{step}_low_res_logits_s8"])
    assert_close([s.score for s in got], expected[f"{step}_scores"])
    if f"{step}_mask_area" in expected:
        areas = [int(s.mask.sum()) for s in got]
        np.testing.assert_allclose(areas, expected[f"{step}_mask_area"].ravel(), atol=(1 - PIXELS) * got[0].mask.size)


def assert_mask(got: Segmentation, expected: Arrays) -> None:
    """The final mask."""
    recorded = np.unpackbits(expected["final_mask_packed"])[: got.mask.size].reshape(got.mask.shape).astype(bool)
    assert np.mean(got.mask == recorded) >= PIXELS


@pytest.mark.parametrize(("brightness", "told"), [(128, "mask value 128 (as PerSeg)"), (255, "mask value 255")])
def test_the_objects_cells(sam: PromptedSam, persam: Arrays, brightness: int, told: str) -> None:
    cells = object_cells(recorded_mask(), sam.host.transform, GRID, brightness)
    assert int(cells.sum()) == NOTES["ref_mask_64_positive_count"][told]
    if brightness == IMAGE_BRIGHTNESS:
        np.testing.assert_array_equal(np.packbits(cells.numpy()), persam["ref_mask_64_positive"])


def test_features_and_similarity(
    persam: Arrays, example: ImageFeatures, query: ImageFeatures, target: torch.Tensor, found: torch.Tensor
) -> None:
    assert_close(example.levels[0][0, ::4, ::8, ::8].permute(1, 2, 0), persam["ref_feat_s8"])
    assert_close(query.levels[0][0, ::4, ::8, ::8].permute(1, 2, 0), persam["test_feat_s8"])
    assert_close(target, persam["target_embedding"])
    assert_close(cosine(target, query), persam["sim_64"])
    assert_close(found[::8, ::8], persam["sim_full_s8"])


def test_points_and_attention(persam: Arrays, found: torch.Tensor) -> None:
    prompt = location_prompt(found, 1, negative=True)
    assert prompt.points is not None
    assert prompt.labels is not None
    np.testing.assert_array_equal(prompt.points, persam["points_xy"])
    np.testing.assert_array_equal(prompt.labels, persam["point_labels"])
    assert_close(attention_prior(found, GRID).reshape(GRID)[::4, ::4], persam["attn_sim_s4"].reshape(16, 16))


@pytest.mark.parametrize(
    ("step", "guides"),
    [
        ("step0_without_guidance", ()),
        ("step1_only_attention", ("attention",)),
        ("step1_only_semantic", ("target",)),
        ("step1", ("attention", "target")),
    ],
)
def test_guidance(
    step: str,
    guides: tuple[str, ...],
    persam: Arrays,
    sam: PromptedSam,
    query: ImageFeatures,
    target: torch.Tensor,
    found: torch.Tensor,
) -> None:
    before = {name: value.clone() for name, value in sam.host.mask_decoder.state_dict().items()}
    told = {name: {"attention": attention_prior(found, GRID), "target": target}[name] for name in guides}
    decoder = guided_decoder(sam.host.mask_decoder, **told)
    prompt = location_prompt(found, 1, negative=True)
    assert_answers(sam.candidates(query, prompt, multimask=False, decoder=decoder), persam, step)
    after = sam.host.mask_decoder.state_dict()
    assert all(after[name].equal(value) for name, value in before.items())
    if guides:
        plain = sam.candidates(query, prompt, multimask=False)
        assert_answers(plain, persam, "step0_without_guidance")


def test_boxes(persam: Arrays, sam: PromptedSam, query: ImageFeatures, found: torch.Tensor) -> None:
    points = location_prompt(found, 1, negative=True)
    box = (100.0, 60.0, 300.0, 200.0)
    assert_answers(sam.candidates(query, Prompt(points.points, points.labels, box)), persam, "explicit_box")
    assert_answers(sam.candidates(query, Prompt(box=box)), persam, "explicit_box_only")


def test_persam_from_end_to_end(persam: Arrays, sam: PromptedSam, query: ImageFeatures) -> None:
    method = Persam(sam.host)
    heard = Listener(method.sam)
    answer = method.segment(query, examples=[MaskReference(recorded_picture("ref"), recorded_mask())])
    assert len(heard.answers) == 3
    for number, answers in enumerate(heard.answers, start=1):
        assert_answers(answers, persam, f"step{number}")
    assert heard.asked[1].box is None
    np.testing.assert_array_equal(heard.asked[2].box, persam["box_xyxy"].ravel())
    assert answer is heard.answers[2][NOTES["final_best"]]
    assert_mask(answer, persam)


@pytest.fixture(scope="module")
def target_f(sam: PromptedSam, example: ImageFeatures) -> torch.Tensor:
    return mean_and_max_embedding(object_features(example, recorded_mask(), sam.host.transform, IMAGE_BRIGHTNESS))


def test_what_persam_f_learns(
    persam_f: Arrays, sam: PromptedSam, example: ImageFeatures, target_f: torch.Tensor
) -> None:
    """20 steps of a schedule of 1000."""
    assert_close(target_f, persam_f["target_feat"])
    prompt = location_prompt(similarity(target_f, example, sam.host.transform), 1)
    assert prompt.points is not None
    np.testing.assert_array_equal(prompt.points, persam_f["ref_point_xy"].reshape(1, 2))
    candidates = sam.candidates(example, prompt)
    assert_answers(candidates, persam_f, "ref")
    logits = torch.from_numpy(np.stack([c.logits for c in candidates]))
    learner = MaskWeights([Lesson(logits, torch.from_numpy(recorded_mask()))], IMAGE_SCHEDULE)
    for step in range(STEPS):
        assert learner.learning_rate == pytest.approx(float(persam_f["lr_used"][step]), abs=1e-9)
        losses = learner.step()
        assert_close(losses, persam_f["dice_focal_per_step"][step])
        assert_close(learner.learned.detach(), persam_f["weights_after_step"][step])
        if step == 0:
            assert_close(learner.learned.grad, persam_f["first_grad"])
    assert_close(learner.weights.detach(), persam_f["mask_weights"])


def test_persam_f_from_end_to_end(persam_f: Arrays, sam: PromptedSam, query: ImageFeatures) -> None:
    """The recorded weights are those of 20 of 1000 steps, and stand in for learned ones here."""
    method = PersamF(sam.host, image_schedule=Schedule(0.0, 1))
    heard = Listener(method.sam)
    weights = torch.from_numpy(persam_f["mask_weights"].astype(np.float32)).flatten()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sam_uniref.eval.baselines.persam_f.learn_mask_weights", lambda *_: weights)
        answer = method.segment(query, examples=[MaskReference(recorded_picture("ref"), recorded_mask())])
    assert_answers(heard.answers[0], persam_f, "ref")
    np.testing.assert_array_equal(heard.asked[1].points, persam_f["test_point_xy"].reshape(1, 2))
    for number, answers in enumerate(heard.answers[1:], start=1):
        assert_answers(answers, persam_f, f"step{number}")
    assert heard.asked[2].mask_logits is not None
    assert_close(heard.asked[2].mask_logits[0, ::8, ::8], persam_f["step1_weighted_logit_s8"])
    np.testing.assert_array_equal(heard.asked[2].box, persam_f["step2_box_xyxy"].ravel())
    np.testing.assert_array_equal(heard.asked[3].box, persam_f["step3_box_xyxy"].ravel())
    second = heard.answers[2][NOTES["persam_f"]["step2_best"]]
    assert heard.asked[3].box == inclusive_box(second.mask)
    assert answer is heard.answers[3][NOTES["persam_f"]["step3_best"]]
    assert_mask(answer, persam_f)


def test_persam_f_similarity(persam_f: Arrays, sam: PromptedSam, query: ImageFeatures, target_f: torch.Tensor) -> None:
    assert_close(similarity(target_f, query, sam.host.transform)[::8, ::8], persam_f["sim_full_s8"])

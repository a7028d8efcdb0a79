"""SamRef: plugged in it is still SAM; batches, references and prompts; and what is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from tiny import disc, picture, tiny_model
from torch import Tensor, nn

from sam_uniref.adapters import ReferenceFeatures, concat
from sam_uniref.config import LoraConfig, SamRefConfig
from sam_uniref.data.batch import AnnotatedImage, ReferenceBatch, Sample, collate
from sam_uniref.interfaces import ImageBackbone, ImageFeatures, MaskDecoder, Prompts, ReferenceSegmenter, Targets
from sam_uniref.reference import MaskReference, Reference
from sam_uniref.sam.build import PIXEL_MEAN, PIXEL_STD
from sam_uniref.samref import SamRef
from sam_uniref.segmentation import Segmentation

NOISE = 0.05
EXAMPLE = MaskReference(picture(80, 100, seed=3), disc(80, 100, center=(0.4, 0.6)))
EXAMPLES = [EXAMPLE, MaskReference(picture(128, 60, seed=4), disc(128, 60)), MaskReference(picture(seed=5), disc())]


@pytest.fixture(scope="module")
def model() -> SamRef:
    """As if trained. Tests leave it as it is."""
    return tiny_model(noise=NOISE)


@pytest.fixture(scope="module")
def images(model: SamRef) -> ImageFeatures:
    """Three pictures of different shapes."""
    return model.encode_image([picture(90, 120, seed=0), picture(128, 128, seed=1), picture(120, 70, seed=2)])


def assert_same(got: Segmentation, wanted: Segmentation) -> None:
    np.testing.assert_array_equal(got.logits, wanted.logits)
    np.testing.assert_array_equal(got.low_res_logits, wanted.low_res_logits)
    assert got.score == wanted.score


def differs(got: Segmentation, other: Segmentation) -> bool:
    return bool(np.abs(got.logits - other.logits).max() > 1e-3)


# ---- Plugged in, it is still SAM ----


def prompts_for(height: int, width: int, low_res: int) -> dict[str, dict[str, Any]]:
    """All kinds of prompts, as keyword arguments of `segment`."""
    points = {"points": [[0.3 * width, 0.6 * height], [0.8 * width + 0.25, 3.0]], "labels": [1, 0]}
    box = {"box": [0.1 * width, 0.2 * height, 0.7 * width, 0.9 * height]}
    logits = 4 * np.random.default_rng(0).standard_normal((1, low_res, low_res)).astype(np.float32)
    return {
        "points": points,
        "one point": {"points": [[width / 2, height / 2]]},
        "box": box,
        "points and box": {**points, **box},
        "mask logits": {"mask_logits": logits},
        "all": {**points, **box, "mask_logits": logits},
        "candidates": {**points, "multimask": True},
    }


def ask_sam(predictor: SamPredictor, asked: dict[str, Any]) -> Segmentation:
    """The same question to segment-anything."""
    points, labels = asked.get("points"), asked.get("labels")
    masks, scores, low_res = predictor.predict(
        point_coords=None if points is None else np.array(points),
        point_labels=None if points is None else np.array(labels or [1] * len(points)),
        box=np.array(asked["box"]) if "box" in asked else None,
        mask_input=asked.get("mask_logits"),
        multimask_output=asked.get("multimask", False),
        return_logits=True,
    )
    best = int(scores.argmax())
    return Segmentation(masks[best] > 0, float(scores[best]), masks[best], low_res[best : best + 1])


def sam_of(model: SamRef) -> Sam:
    """The frozen SAM inside a model, as segment-anything's own class."""
    host = model.sam
    return Sam(host.image_encoder, host.prompt_encoder, host.mask_decoder, list(PIXEL_MEAN), list(PIXEL_STD)).eval()


class Encoded(nn.Module):
    """The image encoder of a SAM, which has seen its one input already: 1024 px take many seconds."""

    def __init__(self, features: ImageFeatures) -> None:
        super().__init__()
        self.features = features
        self.img_size = features.pixels.shape[-1]

    def forward(self, pixels: Tensor) -> Tensor:
        assert torch.equal(pixels, self.features.pixels)
        return self.features.levels[0]


@pytest.mark.slow
def test_vit_b_prompts_are_segment_anythings_bit_for_bit() -> None:
    torch.manual_seed(0)
    model = SamRef.from_sam("vit_b", checkpoint=None)
    image = picture(300, 411, seed=7)
    features = model.encode_image(image)
    sam = sam_of(model)
    sam.image_encoder = Encoded(features)
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    for name, asked in prompts_for(300, 411, 256).items():
        got, wanted = model.segment(features, **asked), ask_sam(predictor, asked)
        assert np.array_equal(got.logits, wanted.logits), name
        assert np.array_equal(got.low_res_logits, wanted.low_res_logits), name
        assert got.score == wanted.score, name
        assert np.array_equal(got.mask, wanted.mask), name


@pytest.mark.parametrize("size", [(90, 120), (200, 131), (128, 128), (40, 30)])
@pytest.mark.parametrize("name", prompts_for(1, 1, 1))
def test_trained_adapters_leave_prompts_alone(model: SamRef, size: tuple[int, int], name: str) -> None:
    image, asked = picture(*size, seed=8), prompts_for(*size, 64)[name]
    predictor = SamPredictor(sam_of(model))
    predictor.set_image(image)
    wanted = ask_sam(predictor, asked)
    features = model.encode_image(image)
    assert_same(model.segment(features, **asked), wanted)
    assert_same(model.segment(features, decoder="sam", **asked), wanted)
    assert differs(model.segment(features, decoder="trained", **asked), wanted)


def test_fresh_adapters_add_a_token_and_nothing_else() -> None:
    """With fresh weights a reference reaches the decoder as the prompt token only; both decoders are SAM's."""
    model = tiny_model()
    features = model.encode_image(picture())
    reference = model.encode_reference(text="a dog")
    fused = model.fusion(features.levels, reference.kinds())
    assert torch.equal(fused[0], features.levels[0])
    asked = {"reference": reference, "points": [[30.0, 40.0]]}
    assert_same(model.segment(features, decoder="trained", **asked), model.segment(features, decoder="sam", **asked))


def test_candidates_are_the_last_three_of_four(model: SamRef, images: ImageFeatures) -> None:
    reference = [model.encode_text(["a dog"] * 3)]
    single, several = model.predict(images, reference), model.predict(images, reference, multimask=True)
    assert single.logits.shape == (3, 1, 64, 64)
    assert several.logits.shape == (3, 3, 64, 64)
    assert several.scores.shape == (3, 3)
    found = model.segment(images.select([0]), text="a dog", multimask=True)
    assert found.score == pytest.approx(several.scores[0].max().item(), abs=1e-5)


def test_hosts_keep_their_contracts(model: SamRef) -> None:
    assert isinstance(model.sam, ImageBackbone)
    assert isinstance(model.sam, MaskDecoder)
    assert isinstance(model, ReferenceSegmenter)
    assert (model.sam.strides, model.sam.channels, model.sam.low_res_stride) == ((8,), 128, 2)


# ---- Batches of rows ----

INDEX = torch.tensor([2, 0, 2, 1, 0])
WORDS = ["a dog", "the man on the left", "red", "two cats on a sofa by the window", "bus"]


def kinds_of(model: SamRef, images: ImageFeatures) -> dict[str, list[ReferenceFeatures]]:
    """Five rows about three images, shuffled: sentences, masks, or both."""
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(5, 8, 8, generator=generator) > 0.5).float()
    masks = torch.nn.functional.interpolate(masks[None], 128)[0]
    text = model.encode_text(WORDS).about(INDEX)
    annotated = model.encode_mask(images, masks, torch.tensor([0, 1, 1, 2, 0])).about(INDEX)
    return {"text": [text], "masks": [annotated], "both": [text, annotated]}


def boxes_of_rows() -> Prompts:
    corners = torch.tensor([[5.0 + i, 6.0, 60.0 + 9 * i, 70.0 + 3 * i] for i in range(5)])
    return Prompts(INDEX, boxes=corners)


@torch.no_grad()
@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("prompted", [False, True])
@pytest.mark.parametrize("kind", ["text", "masks", "both"])
def test_a_batch_is_its_rows_one_by_one(
    model: SamRef, images: ImageFeatures, kind: str, prompted: bool, multimask: bool
) -> None:
    references = kinds_of(model, images)[kind]
    prompts = boxes_of_rows() if prompted else None
    together = model.predict(images, references, prompts, multimask=multimask)
    assert torch.equal(together.image_index, INDEX)
    zero = torch.zeros(1, dtype=torch.int64)
    for row in range(5):
        at = torch.tensor([row])
        alone = model.predict(
            images.select([int(INDEX[row])]),
            [reference.select(at).about(zero) for reference in references],
            None if prompts is None else prompts.select(at),
            multimask=multimask,
        )
        torch.testing.assert_close(together.logits[row], alone.logits[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.scores[row], alone.scores[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_images_encoded_together_are_those_encoded_alone(model: SamRef, images: ImageFeatures) -> None:
    for position, (size, seed) in enumerate([((90, 120), 0), ((128, 128), 1), ((120, 70), 2)]):
        alone, chosen = model.encode_image(picture(*size, seed=seed)), images.select([position])
        torch.testing.assert_close(alone.levels[0], chosen.levels[0], rtol=1e-4, atol=1e-5)
        assert torch.equal(alone.padding[0], chosen.padding[0])
        assert torch.equal(alone.pixels, chosen.pixels)
        assert alone.original_sizes == chosen.original_sizes == (size,)
    assert len(images) == len(images.select(slice(0, 2))) + 1


@torch.no_grad()
@pytest.mark.parametrize("prompted", [False, True])
def test_rows_with_and_without_references_mix(model: SamRef, images: ImageFeatures, prompted: bool) -> None:
    present = torch.tensor([True, False, True, False, False])
    references = [replace(reference, present=present) for reference in kinds_of(model, images)["both"]]
    prompts = boxes_of_rows() if prompted else None
    mixed = model.predict(images, references, prompts)
    some = None if prompts is None else prompts.select(present)
    referred = model.predict(images, [r.select(present) for r in references], some)
    torch.testing.assert_close(mixed.logits[present], referred.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed.scores[present], referred.scores, rtol=1e-4, atol=1e-5)
    plain = model.predict(images, [], prompts or Prompts(INDEX), decoder="sam")
    torch.testing.assert_close(mixed.logits[~present], plain.logits[~present], rtol=1e-4, atol=1e-5)
    trained = model.predict(images, [], prompts or Prompts(INDEX), decoder="trained")
    assert not torch.allclose(mixed.logits[~present], trained.logits[~present], atol=1e-2)


@torch.no_grad()
def test_the_first_present_kind_gives_the_prompt_token(model: SamRef, images: ImageFeatures) -> None:
    text, masks = kinds_of(model, images)["both"]
    partly = replace(text, present=torch.tensor([True, True, False, False, True]))
    other = replace(partly, pooled=(torch.where(partly.present[:, None], partly.pooled[0], 7.0),))
    tokens: list[Tensor] = []
    handle = model.mask_decoder.transformer.register_forward_pre_hook(lambda _m, given: tokens.append(given[2][:, -1]))
    try:
        got = model.predict(images, [partly, masks])
        again = model.predict(images, [other, masks])
    finally:
        handle.remove()
    wanted = torch.where(partly.present[:, None], text.pooled[0], masks.pooled[0])
    assert torch.equal(tokens[0], wanted)
    assert torch.equal(got.logits, again.logits)


def test_rows_must_agree(model: SamRef, images: ImageFeatures) -> None:
    references = kinds_of(model, images)["text"]
    for prompts in (boxes_of_rows().select(torch.tensor([0])), boxes_of_rows().select(torch.arange(3))):
        with pytest.raises(ValueError, match="same number of rows, got"):
            model.predict(images, references, prompts)
    with pytest.raises(ValueError, match=r"same number of rows, got \[5, 2\]"):
        model.predict(images, [references[0], references[0].select(torch.arange(2))])


def test_nothing_asked_and_unknown_decoders_are_refused(model: SamRef, images: ImageFeatures) -> None:
    with pytest.raises(ValueError, match="at least one reference or prompt"):
        model.predict(images, [])
    with pytest.raises(ValueError, match=r"decoder must be one of .*, got 'best'"):
        model.predict(images, [], Prompts(INDEX), decoder="best")


# ---- segment and its references ----


def test_encode_image_takes_a_list_of_anything(model: SamRef, tmp_path: Path) -> None:
    from PIL import Image as PILImage

    image = picture()
    PILImage.fromarray(image).save(tmp_path / "a.png")
    given = [image, PILImage.fromarray(image), tmp_path / "a.png", torch.from_numpy(image).permute(2, 0, 1)]
    features = model.encode_image(given)
    assert len(features) == 4
    assert all(torch.equal(features.pixels[0], pixels) for pixels in features.pixels)
    with pytest.raises(ValueError, match="at least one image"):
        model.encode_image([])


def count_encodings(model: SamRef, run: Callable[[], object]) -> list[int]:
    """Batch sizes of the image encoder's calls during ``run``."""
    batches: list[int] = []
    handle = model.sam.image_encoder.register_forward_hook(lambda _m, given, _o: batches.append(len(given[0])))
    try:
        run()
    finally:
        handle.remove()
    return batches


def test_images_are_encoded_once(model: SamRef) -> None:
    image = picture()
    features = model.encode_image(image)
    assert_same(model.segment(features, text="a dog"), model.segment(image, text="a dog"))
    assert count_encodings(model, lambda: model.segment(image, text="a dog")) == [1]
    assert count_encodings(model, lambda: model.segment(features, text="a dog", box=[1, 2, 30, 40])) == []
    assert count_encodings(model, lambda: model.segment(features, examples=EXAMPLES)) == [3]
    reference = model.encode_reference(text="a dog", examples=EXAMPLES)
    assert count_encodings(model, lambda: model.segment(features, reference=reference)) == []


def test_text_and_examples_count_together(model: SamRef) -> None:
    features = model.encode_image(picture())
    both = model.segment(features, text="a dog", examples=[EXAMPLE])
    assert both.mask.shape == both.logits.shape == (90, 120)
    for alone in ({"text": "a dog"}, {"examples": [EXAMPLE]}, {"text": "a cat", "examples": [EXAMPLE]}):
        assert differs(both, model.segment(features, **alone))
    prompted = model.segment(features, text="a dog", examples=[EXAMPLE], points=[[10, 10]])
    assert differs(both, prompted)


def test_examples_count_all_and_in_any_order(model: SamRef) -> None:
    features = model.encode_image(picture())
    three = model.segment(features, examples=EXAMPLES)
    np.testing.assert_allclose(three.logits, model.segment(features, examples=EXAMPLES[::-1]).logits, atol=1e-3)
    for k in (1, 2):
        assert differs(three, model.segment(features, examples=EXAMPLES[:k]))
    each = [model.encode_reference(examples=[example]).examples for example in EXAMPLES]
    joined, wanted = model.encode_reference(examples=EXAMPLES).examples, concat([e for e in each if e is not None])
    assert joined is not None
    assert len(joined) == 1
    for name in ("keys", "values", "pooled"):
        torch.testing.assert_close(getattr(joined, name)[0], getattr(wanted, name)[0], rtol=1e-3, atol=1e-4)
    assert torch.equal(joined.padding[0], wanted.padding[0])


def test_object_id_chooses_the_object(model: SamRef) -> None:
    ids = disc(center=(0.3, 0.3)).astype(np.int64) + 2 * disc(center=(0.7, 0.75))
    features, image = model.encode_image(picture()), picture(seed=9)
    found = [model.segment(features, examples=[MaskReference(image, ids, object_id=i)]) for i in (1, 2)]
    assert differs(found[0], found[1])
    assert_same(found[1], model.segment(features, examples=[MaskReference(image, ids == 2)]))


def test_references_survive_a_file(model: SamRef, tmp_path: Path) -> None:
    features = model.encode_image(picture())
    for kinds in ({"text": "a dog"}, {"examples": EXAMPLES}, {"text": "a dog", "examples": EXAMPLES}):
        reference = model.encode_reference(**kinds)  # type: ignore[arg-type]
        reference.save(tmp_path / "dog.safetensors")
        loaded = Reference.load(tmp_path / "dog.safetensors")
        assert [kind is None for kind in (loaded.text, loaded.examples)] == [
            k not in kinds for k in ("text", "examples")
        ]
        wanted = model.segment(features, **kinds)  # type: ignore[arg-type]
        assert_same(model.segment(features, reference=reference), wanted)
        assert_same(model.segment(features, reference=loaded), wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["dog.safetensors"]


def test_references_of_another_model_are_refused(model: SamRef, tmp_path: Path) -> None:
    tiny_model().encode_reference(text="a dog").save(tmp_path / "fresh.safetensors")
    reference = Reference.load(tmp_path / "fresh.safetensors")
    with pytest.raises(ValueError, match=f"another model .{reference.fingerprint}.*encode it again"):
        model.segment(picture(), reference=reference)
    assert tiny_model().fingerprint() == reference.fingerprint


def test_files_that_hold_no_reference_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match="nowhere"):
        Reference.load(tmp_path / "nowhere")
    (tmp_path / "text").write_text("no tensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "plain")
    for name in ("text", "plain"):
        with pytest.raises(ValueError, match="holds no reference"):
            Reference.load(tmp_path / name)


def test_masks_at_the_pictures_size(model: SamRef) -> None:
    found = model.segment(picture(77, 201), text="a dog")
    assert found.mask.shape == found.logits.shape == (77, 201)
    assert found.mask.dtype == bool
    np.testing.assert_array_equal(found.mask, found.logits > 0)
    assert found.low_res_logits.shape == (1, 64, 64)
    again = model.segment(picture(77, 201), text="a dog", mask_logits=found.low_res_logits)
    assert differs(found, again)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "at least one reference or prompt"),
        ({"examples": []}, "at least one reference or prompt"),
        ({"labels": [1]}, "labels= come with points="),
        ({"points": [[1, 2]], "labels": [1, 0]}, "one 0 or 1 for each of the 1 points"),
        ({"points": [[1, 2]], "labels": [2]}, "one 0 or 1"),
        ({"points": []}, r"points must be \(x, y\) pairs"),
        ({"points": [[1, 2, 3], [4, 5, 6]]}, r"points must be \(x, y\) pairs"),
        ({"points": [3.0, 4.0]}, r"points must be \(x, y\) pairs"),
        ({"points": [[1, np.nan]]}, "finite"),
        ({"box": [1, 2, 3]}, "two corners"),
        ({"box": [1, 2, 3, np.inf]}, "finite"),
        ({"mask_logits": np.zeros((1, 32, 32))}, r"mask_logits must be \(1, 64, 64\), got \(1, 32, 32\)"),
        ({"mask_logits": np.zeros((2, 64, 64))}, "mask_logits must be"),
        ({"mask_logits": np.full((1, 64, 64), np.nan)}, "finite"),
        ({"text": ""}, "empty"),
        ({"text": "a dog", "decoder": "best"}, "decoder must be one of"),
        ({"examples": [MaskReference(picture(), np.zeros((90, 120), bool))]}, "empty"),
        ({"examples": [MaskReference(picture(), disc(50, 50))]}, "its image is 120x90"),
    ],
)
def test_bad_questions_are_refused(model: SamRef, images: ImageFeatures, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.segment(images.select([0]), **asked)


def test_a_reference_and_its_parts_are_not_given_together(model: SamRef, images: ImageFeatures) -> None:
    reference = model.encode_reference(text="a dog")
    for more in ({"text": "a cat"}, {"examples": [EXAMPLE]}):
        with pytest.raises(ValueError, match="not both"):
            model.segment(images.select([0]), reference=reference, **more)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a sentence"):
        model.encode_reference()


def test_segment_is_for_one_image(model: SamRef, images: ImageFeatures) -> None:
    with pytest.raises(ValueError, match="one image, got 3"):
        model.segment(images, text="a dog")


def test_without_a_text_encoder_sentences_are_refused() -> None:
    model = tiny_model(text=False)
    with pytest.raises(ValueError, match="no text encoder"):
        model.segment(picture(), text="a dog")
    assert model.segment(picture(), examples=[EXAMPLE]).mask.shape == (90, 120)


# ---- Pooling and padding of annotated images ----


def left_half(share: float = 0.5) -> Tensor:
    mask = torch.zeros(1, 128, 128)
    mask[:, :96, : int(128 * share)] = 1
    return mask


@torch.no_grad()
def test_object_pooling_is_the_mean_over_the_object() -> None:
    model = tiny_model(text=False)
    features = model.encode_image(picture())
    (level,), zero = features.levels, torch.zeros(1, dtype=torch.int64)
    pooled = model.encode_mask(features, left_half(), zero).pooled[0][0]
    torch.testing.assert_close(pooled, level[0, :, :12, :8].mean((1, 2)), rtol=1e-4, atol=1e-5)
    # 12 of 128 pixels are one cell and a half: a cell counts by its share of the object.
    pooled = model.encode_mask(features, left_half(12 / 128), zero).pooled[0][0]
    columns = level[0, :, :12, :2].mean(1)
    torch.testing.assert_close(pooled, (columns[:, 0] + 0.5 * columns[:, 1]) / 1.5, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_image_pooling_is_the_mean_over_the_content() -> None:
    config = SamRefConfig.for_size("tiny")
    config.pooling = "image"
    model = tiny_model(text=False, config=config)
    features = model.encode_image(picture())
    zero = torch.zeros(1, dtype=torch.int64)
    pooled = [model.encode_mask(features, left_half(share), zero).pooled[0][0] for share in (0.2, 0.9)]
    assert torch.equal(pooled[0], pooled[1])
    torch.testing.assert_close(pooled[0], features.levels[0][0, :, :12].mean((1, 2)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["object", "image"])
def test_what_lies_in_a_references_padding_does_not_matter(pooling: str) -> None:
    config = SamRefConfig.for_size("tiny")
    config.pooling = pooling
    model = tiny_model(text=False, config=config, noise=NOISE)
    features, zero = model.encode_image(picture(60, 128)), torch.zeros(1, dtype=torch.int64)
    padding = features.padding[0]
    assert padding[0, 8:].all()
    assert not padding[0, :8].any()  # the last row of cells holds some content
    mask = model.transform.mask(disc(60, 128, center=(0.8, 0.5)))[None]
    reference = model.encode_mask(features, mask, zero)
    changed = replace(features, levels=(torch.where(padding[:, None], 50.0, features.levels[0]),))
    again = model.encode_mask(changed, mask, zero)
    torch.testing.assert_close(again.pooled[0], reference.pooled[0])
    hidden = reference.padding[0][..., None]
    assert torch.equal(again.keys[0][~reference.padding[0]], reference.keys[0][~reference.padding[0]])
    disturbed = replace(
        reference,
        keys=(torch.where(hidden, 50.0, reference.keys[0]),),
        values=(torch.where(hidden, -50.0, reference.values[0]),),
    )
    query = model.encode_image(picture(seed=1))
    wanted = model.predict(query, [reference]).logits
    torch.testing.assert_close(model.predict(query, [disturbed]).logits, wanted, rtol=1e-4, atol=1e-5)
    shown = replace(disturbed, padding=(torch.zeros_like(disturbed.padding[0]),))
    assert not torch.allclose(model.predict(query, [shown]).logits, wanted, atol=1e-2)


@torch.no_grad()
def test_a_reference_with_an_empty_mask_is_absent(model: SamRef, images: ImageFeatures) -> None:
    masks = torch.cat([left_half(), torch.zeros(1, 128, 128), left_half(0.1)])
    encoded = model.encode_mask(images, masks, torch.arange(3))
    assert encoded.present.tolist() == [True, False, True]
    assert all(torch.isfinite(t).all() for t in (*encoded.keys, *encoded.values, *encoded.pooled))
    fused = model.fusion(images.levels, [encoded])[0]
    assert torch.equal(fused[1], images.levels[0][1])
    assert not torch.equal(fused[0], images.levels[0][0])


# ---- What is trained ----


def sample(seed: int, *, sentence: str | None = None, shots: int = 0) -> Sample:
    references = tuple(AnnotatedImage(picture(seed=50 + seed + k), disc()) for k in range(shots))
    mask = disc(center=(0.4, 0.5))
    return Sample(f"sample {seed}", "fss" if shots else "ris", picture(seed=seed), mask, sentence, references)


def batch_of(model: SamRef, kind: str) -> ReferenceBatch:
    if kind == "text":
        return collate([sample(0, sentence="a dog"), sample(1, sentence="the red cat")], model.transform)
    return collate([sample(2, shots=2), sample(3, shots=2)], model.transform)


def with_gradients(model: SamRef, kind: str) -> dict[str, bool]:
    """Per trained parameter, whether a batch's losses reach it."""
    model.zero_grad(set_to_none=True)
    losses = model(batch_of(model, kind))
    assert set(losses) == {"bce", "dice", "iou"}
    sum(losses.values()).backward()
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad and p.grad is not None]
    assert frozen == []
    return {n: p.grad is not None and bool(p.grad.any()) for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("train_text", [False, True])
def test_nothing_trained_is_dead_over_a_stage(train_text: bool) -> None:
    model = tiny_model(noise=NOISE)
    model.train_text_encoder(train_text)
    model.train()
    text, masks = with_gradients(model, "text"), with_gradients(model, "masks")
    assert [name for name in text if not text[name] and not masks[name]] == []
    assert any(name.startswith("text_encoder.model.") for name in text) == train_text


def test_a_batch_leaves_alone_what_it_does_not_use() -> None:
    model = tiny_model(noise=NOISE)
    model(batch_of(model, "text"))["bce"].backward()
    assert all(p.grad is None for p in model.mask_encoder.parameters())
    assert all(p.grad is not None for p in model.fusion.parameters())
    model.zero_grad(set_to_none=True)
    model(batch_of(model, "masks"))["bce"].backward()
    assert model.text_encoder is not None
    assert all(p.grad is None for p in model.text_encoder.parameters())
    assert all(p.grad is not None for p in model.mask_encoder.parameters())


def test_frozen_are_sam_and_the_unused_hypernetworks() -> None:
    model = tiny_model()
    assert not any(p.requires_grad for p in model.sam.parameters())
    networks = model.mask_decoder.output_hypernetworks_mlps
    assert [all(p.requires_grad for p in network.parameters()) for network in networks] == [True, False, False, False]
    rest = [n for n, p in model.mask_decoder.named_parameters() if not p.requires_grad]
    assert all(name.startswith("output_hypernetworks_mlps.") for name in rest)
    assert all(p.requires_grad for part in (model.fusion, model.mask_encoder) for p in part.parameters())
    assert model.text_encoder is not None
    assert not any(p.requires_grad for p in model.text_encoder.model.parameters())
    assert all(p.requires_grad for p in model.text_encoder.resizer.parameters())


def test_training_the_decoder_does_not_move_sams_own() -> None:
    model = tiny_model(text=False)
    own = {id(p) for p in model.sam.parameters()}
    assert not own & {id(p) for p in model.mask_decoder.parameters()}
    for (name, trained), kept in zip(
        model.mask_decoder.named_parameters(), model.sam.mask_decoder.parameters(), strict=True
    ):
        assert torch.equal(trained, kept), name


def test_parts_hold_every_parameter_once() -> None:
    model = tiny_model()
    parts = model.parts()
    held = [id(p) for part in parts for p in part.module.parameters()]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert [part.name for part in parts if part.lr_group == "text"] == ["text encoder"]


def test_frozen_parts_stay_in_evaluation_mode() -> None:
    model = tiny_model().train()
    assert model.text_encoder is not None
    assert model.fusion.training
    assert model.text_encoder.resizer.training
    frozen = (*model.sam.children(), model.text_encoder.model)
    assert not any(m.training for part in frozen for m in part.modules())
    model.train_text_encoder(True)
    assert model.train().text_encoder.model.training  # type: ignore[union-attr]
    assert not any(m.training for m in model.eval().modules())


def test_padding_of_the_query_counts_in_no_loss() -> None:
    model = tiny_model(noise=NOISE)
    batch = batch_of(model, "text")
    flipped = batch.masks.clone()
    flipped[:, 96:] = 1  # 90 x 120 fills 96 of 128 rows
    for name, loss in model(batch).items():
        assert torch.equal(loss, model(replace(batch, masks=flipped))[name])
    features = model.encode_pixels(batch.pixels, batch.input_sizes, batch.original_sizes)
    targets = Targets(torch.zeros_like(batch.masks))
    empty = model.losses(features, model.references_of(batch, features), targets)
    assert all(torch.isfinite(loss) for loss in empty.values())


def test_samples_that_share_pictures_are_answered_as_alone() -> None:
    model = tiny_model(noise=NOISE)
    first, second = sample(2, shots=2), sample(3, shots=2)
    second = replace(second, image=first.image, references=(first.references[1], second.references[1]))
    joined = collate([first, second], model.transform)
    assert len(joined.pixels) == 4
    alone = [collate([one], model.transform) for one in (first, second)]
    logits = [model.predict(*_asked(model, batch)).logits for batch in (joined, *alone)]
    torch.testing.assert_close(logits[0], torch.cat(logits[1:]), atol=1e-4, rtol=1e-4)


def _asked(model: SamRef, batch: ReferenceBatch) -> tuple[ImageFeatures, list[ReferenceFeatures]]:
    features = model.encode_pixels(batch.pixels, batch.input_sizes, batch.original_sizes)
    return features, model.references_of(batch, features)


def test_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    model = tiny_model()
    batch = batch_of(model, "masks")
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    history = []
    for _ in range(8):
        losses = model(batch)
        loss = 2 * losses["bce"] + 0.5 * losses["dice"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < 0.8 * history[0]


# ---- LoRA in the encoders ----


def lora_model() -> SamRef:
    config = SamRefConfig.for_size("tiny")
    config.lora = LoraConfig(image_targets=["qkv"], text_targets=["query", "value"], rank=2)
    return tiny_model(config=config, noise=NOISE)


def test_lora_trains_itself_and_the_adapters_only() -> None:
    model = lora_model()
    assert model.text_encoder is not None
    for encoder in (model.sam.image_encoder, model.text_encoder.model):
        trained = [name for name, p in encoder.named_parameters() if p.requires_grad]
        assert trained
        assert all("lora_" in name for name in trained)
    model.train_text_encoder(True)
    assert all("lora_" in name for name, p in model.text_encoder.model.named_parameters() if p.requires_grad)
    assert not model.config.text_encoder.trained
    text, masks = with_gradients(model, "text"), with_gradients(model, "masks")
    assert [name for name in text if not text[name] and not masks[name]] == []


def test_lora_leaves_prompts_alone() -> None:
    plain, model = tiny_model(), lora_model()
    image = picture()
    asked: dict[str, Any] = {"points": [[40.0, 30.0]], "box": [5.0, 5.0, 90.0, 80.0]}
    assert_same(model.segment(image, **asked), plain.segment(image, **asked))
    assert not torch.equal(model.encode_image(image).levels[0], plain.encode_image(image).levels[0])
    with model.without_lora():
        assert torch.equal(model.encode_image(image).levels[0], plain.encode_image(image).levels[0])

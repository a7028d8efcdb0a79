"""RefSam: what it is made of and trains, sentences of unequal length, frames, files, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published import HiddenStates
from refsam_support import SENTENCES, TEXT_CHANNELS, sentence_batch, tiny_refsam
from tiny import disc, picture, tiny_model
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.adapters import SentenceEncoder
from sam_uniref.data.batch import ReferenceBatch
from sam_uniref.eval.baselines.refsam import load_refsam
from sam_uniref.interfaces import ImageFeatures, Prompts, Targets
from sam_uniref.reference import MaskReference
from sam_uniref.refsam import RefSam, RefSamConfig, RefSamTracker
from sam_uniref.sam import SamHost, build_sam
from sam_uniref.sam.two_way import two_way
from sam_uniref.samref import SamRef

NOISE = 0.05
CLIP = [picture(seed=seed) for seed in range(3)]
EXAMPLE = MaskReference(picture(), disc())


@pytest.fixture(scope="module")
def model() -> RefSam:
    """As if trained. Tests leave it as it is."""
    return tiny_refsam(noise=NOISE)


def asked(model: RefSam, batch: ReferenceBatch) -> Tensor:
    """Logits of a batch as validation asks for them."""
    features = model.encode_pixels(batch.pixels, batch.input_sizes, batch.original_sizes)
    return model.predict(features, model.references_of(batch, features)).logits


def with_options(**options: Any) -> RefSamConfig:
    """A configuration of the tiny size with some adapters' options changed."""
    config = RefSamConfig.for_size("tiny")
    for name, value in options.items():
        setattr(config.adapters, name, value)
    return config


# ---- The parts ----


@torch.no_grad()
def test_image_features_have_unit_length(model: RefSam) -> None:
    (level,) = model.encode_image([picture(), picture(seed=1)]).levels
    torch.testing.assert_close(level.norm(dim=1), torch.ones(2, 16, 16))


@torch.no_grad()
def test_adapters_that_start_at_zero_leave_the_encoder_as_it_is() -> None:
    plain, fresh = tiny_refsam(config=with_options(enabled=False)), tiny_refsam(config=with_options(zero_start=True))
    random = tiny_refsam()
    wanted = F.normalize(plain.sam.image_encoder(plain.transform.image(picture())[0][None]), dim=1)
    torch.testing.assert_close(plain.encode_image(picture()).levels[0], wanted)
    torch.testing.assert_close(fresh.encode_image(picture()).levels[0], wanted, rtol=1e-5, atol=1e-5)
    # As published, they start as layers do.
    assert not torch.allclose(random.encode_image(picture()).levels[0], wanted, atol=1e-3)


def test_adapters_sit_in_the_second_half_and_leave_sam_alone(model: RefSam) -> None:
    adapters = model.encoder_adapters
    assert adapters is not None
    assert (adapters.first, len(adapters.after_attention), len(adapters.beside_mlp)) == (3, 3, 3)
    assert model.sam.state_dict().keys() == {n for n in build_sam("tiny").state_dict() if not n.startswith("pixel_")}


@torch.no_grad()
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), lengths=st.lists(st.integers(0, 6), min_size=1, max_size=3))
def test_padded_tokens_are_seen_by_nobody(seed: int, lengths: list[int]) -> None:
    transformer = build_sam("tiny").mask_decoder.transformer
    generator = torch.Generator().manual_seed(seed)
    rows, longest = len(lengths), 5 + max(lengths)

    def draw(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=generator)

    image, places, tokens = draw(128, 4, 4), draw(128, 4, 4), draw(longest, 128)
    padding = torch.arange(longest) >= torch.tensor([5 + length for length in lengths])[:, None]
    states, keys = two_way(transformer, image, places, tokens, padding)
    for row, length in enumerate(lengths):
        one = slice(row, row + 1)
        wanted_states, wanted_keys = transformer(image[one], places[one], tokens[one, : 5 + length])
        torch.testing.assert_close(states[one, : 5 + length], wanted_states, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(keys[one], wanted_keys, rtol=1e-4, atol=1e-4)


def test_every_parameter_is_in_one_part_with_its_rate() -> None:
    model = tiny_refsam()
    seen = [id(parameter) for part in model.parts() for parameter in part.module.parameters()]
    assert sorted(seen) == sorted(id(parameter) for parameter in model.parameters())
    trained = {
        part.name: part.lr_group
        for part in model.parts()
        if any(parameter.requires_grad for parameter in part.module.parameters())
    }
    assert trained == {
        "mask decoder": "decoder",
        "cross-modal MLP": "mlp",
        "dense attention": "dense",
        "encoder adapters": "base",
        "tracking module": "base",
    }


@pytest.mark.parametrize(("size", "published"), [("vit_b", 9.9e6), ("vit_l", 19.1e6), ("vit_h", 33.0e6)])
def test_as_much_is_trained_as_published(size: str, published: float) -> None:
    """With T5-3b's width; the published count has all of the mask decoder, also what no loss reaches."""
    with torch.device("meta"):
        text = SentenceEncoder(HiddenStates(TEXT_CHANNELS), None)
        model = RefSam(SamHost(build_sam(size)), text, RefSamConfig.for_size(size))
    model.mask_decoder.requires_grad_(True)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained == pytest.approx(published, rel=0.01)


@torch.no_grad()
def test_half_precision_answers_nearly_the_same(model: RefSam) -> None:
    batch = sentence_batch(model, SENTENCES, earlier=True)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch)
    for name, loss in model(batch).items():
        assert losses[name].dtype == torch.float32
        assert losses[name].item() == pytest.approx(loss.item(), rel=0.05)


@pytest.mark.parametrize("earlier", [False, True])
def test_what_is_trained_gets_a_gradient(earlier: bool) -> None:
    model = tiny_refsam().train()
    sum(model(sentence_batch(model, SENTENCES, earlier=earlier)).values()).backward()  # type: ignore[union-attr]
    dead = {name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    waiting = {name for name in dead if name.startswith("track_token.")}
    assert dead == waiting
    assert bool(waiting) is not earlier  # a picture by itself hands nothing on


def test_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    model = RefSam.from_sam("tiny", "tiny", "tiny").train()
    batch = sentence_batch(model, SENTENCES, earlier=True)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    history = []
    for _ in range(8):
        losses = model(batch)
        assert losses.keys() == {"dice", "focal"}
        loss = losses["dice"] + losses["focal"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < 0.7 * history[0]


@torch.no_grad()
def test_losses_are_the_mean_over_frames(model: RefSam) -> None:
    batch = sentence_batch(model, SENTENCES, earlier=True)
    features = model.encode_pixels(batch.pixels, batch.input_sizes, batch.original_sizes)
    sentence, track = model.references_of(batch, features)
    last = model.losses(features, [sentence, track], Targets(batch.masks))
    first = model.losses(features, [sentence.about(batch.reference_index[0])], Targets(batch.reference_masks[0]))
    for name, value in model(batch).items():
        torch.testing.assert_close(value, (first[name] + last[name]) / 2)


# ---- Sentences of unequal length ----


@torch.no_grad()
@pytest.mark.parametrize("earlier", [False, True])
def test_a_sentence_alone_is_the_sentence_in_a_batch(model: RefSam, earlier: bool) -> None:
    together = asked(model, sentence_batch(model, SENTENCES, earlier=earlier))
    batch = sentence_batch(model, SENTENCES, earlier=earlier)
    for row, sentence in enumerate(SENTENCES):
        alone = replace(
            batch,
            names=batch.names[row : row + 1],
            query_index=batch.query_index[row : row + 1],
            masks=batch.masks[row : row + 1],
            reference_index=batch.reference_index[:, row : row + 1],
            reference_masks=batch.reference_masks[:, row : row + 1],
            sentences=(sentence,),
        )
        torch.testing.assert_close(together[row : row + 1], asked(model, alone), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("mask_padding", [True, False])
def test_published_padding_is_read_as_words(mask_padding: bool) -> None:
    config = with_options()
    config.mask_padding = mask_padding
    model = tiny_refsam(config=config, noise=NOISE)
    batch = sentence_batch(model, SENTENCES)
    features = model.encode_pixels(batch.pixels, batch.input_sizes, batch.original_sizes)
    together = model.predict(features, [model.encode_text(SENTENCES).about(batch.query_index)]).logits[0]
    alone = model.predict(features, [model.encode_text(SENTENCES[:1]).about(batch.query_index[:1])]).logits[0]
    assert torch.allclose(together, alone, rtol=1e-3, atol=1e-3) is mask_padding


# ---- Frames ----


def test_a_token_is_handed_on(model: RefSam) -> None:
    handed = list(model.track(CLIP, texts={1: SENTENCES[0]}))
    alone = list(model.track(CLIP, texts={1: SENTENCES[0]}, frame_references="none"))
    assert [r.index for r in handed] == [0, 1, 2]
    assert handed[0].scores == alone[0].scores
    assert all(a.scores != b.scores for a, b in zip(handed[1:], alone[1:], strict=True))
    by_itself = model.segment(CLIP[2], text=SENTENCES[0])
    assert alone[2].scores[1] == pytest.approx(by_itself.score, abs=1e-5)
    np.testing.assert_array_equal(alone[2].masks[1], by_itself.logits > 0.1)


def test_an_object_does_not_depend_on_the_others(model: RefSam) -> None:
    tracker = RefSamTracker(model, exclusive=False)
    tracker.add(7, text=SENTENCES[0])
    together = [tracker.step(CLIP[0])]
    tracker.add(3, text=SENTENCES[1])
    together += [tracker.step(frame) for frame in CLIP[1:]]
    assert tracker.object_ids == [7, 3]
    for object_id, sentence, first in ((7, SENTENCES[0], 0), (3, SENTENCES[1], 1)):
        alone = RefSamTracker(model, exclusive=False)
        alone.add(object_id, text=sentence)
        for shared, frame in zip(together[first:], CLIP[first:], strict=True):
            own = alone.step(frame)
            assert shared.scores[object_id] == pytest.approx(own.scores[object_id], abs=1e-4)
            assert (shared.masks[object_id] == own.masks[object_id]).mean() > 0.999


def test_objects_compete_or_overlap(model: RefSam) -> None:
    texts = dict(enumerate(SENTENCES, start=1))
    for result in model.track(CLIP, texts=texts):
        for object_id, mask in result.masks.items():
            np.testing.assert_array_equal(mask, result.labels == object_id)
            assert result.visible[object_id] is bool(mask.any())
        assert result.labels.dtype == np.int32
    both = RefSamTracker(model, exclusive=False)
    for object_id in (1, 2):
        both.add(object_id, text=SENTENCES[0])
    result = both.step(CLIP[0])
    np.testing.assert_array_equal(result.masks[1], result.masks[2])


def test_nothing_to_look_for_is_background(model: RefSam) -> None:
    result = RefSamTracker(model).step(CLIP[0])
    assert (result.labels.any(), result.masks) == (False, {})


def test_the_same_question_has_the_same_answer(model: RefSam) -> None:
    first = model.segment(picture(), text=SENTENCES[1])
    list(model.track(CLIP, texts={1: SENTENCES[2]}))
    again = model.segment(model.encode_image(picture()), text=SENTENCES[1])
    np.testing.assert_array_equal(first.logits, again.logits)
    reference = model.encode_reference(text=SENTENCES[1])
    np.testing.assert_array_equal(first.logits, model.segment(picture(), reference=reference).logits)


# ---- Files ----


@pytest.mark.parametrize("trained_text", [False, True])
def test_round_trip(trained_text: bool, tmp_path: Path) -> None:
    config = with_options(enabled=not trained_text)
    config.dense = "sentence" if trained_text else "attention"
    model = tiny_refsam(config=config)
    model.train_text_encoder(trained_text)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=NOISE)
    model.save_pretrained(tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"README.md", "config.json", "adapters.safetensors", "base_sam.safetensors", "text_encoder"}
    loaded = RefSam.from_pretrained(tmp_path / "model")
    assert loaded.config == model.config
    assert not loaded.training
    for seed in range(2):
        got, wanted = (m.segment(picture(seed=seed), text=SENTENCES[1]).logits for m in (loaded, model))
        np.testing.assert_array_equal(got, wanted)


def test_only_what_is_trained_is_saved_with_a_base_checkpoint(tmp_path: Path) -> None:
    model = RefSam.from_sam("tiny", "tiny", "tiny")
    model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / "base_sam.safetensors").exists()
    roots = {name.split(".")[0] for name in model.trained_state_dict()}
    assert roots == {"mask_decoder", "mlp", "dense_attention", "encoder_adapters", "track_token"}
    got = RefSam.from_pretrained(tmp_path / "model").segment(picture(), text="a dog")
    np.testing.assert_array_equal(got.logits, model.segment(picture(), text="a dog").logits)


def test_another_kind_of_model_is_said_to_be_one(tmp_path: Path) -> None:
    tiny_refsam().save_pretrained(tmp_path / "refsam")
    tiny_model().save_pretrained(tmp_path / "samref")
    with pytest.raises(ValueError, match=r"config\.json: this is a refsam, not a samref"):
        SamRef.from_pretrained(tmp_path / "refsam")
    with pytest.raises(ValueError, match=r"config\.json: this is a samref, not a refsam"):
        RefSam.from_pretrained(tmp_path / "samref")


def test_as_a_method(tmp_path: Path, model: RefSam) -> None:
    model.save_pretrained(tmp_path / "model")
    method = load_refsam(tmp_path / "model", None, torch.device("cpu"))
    encoded = method.encode_image(picture())
    np.testing.assert_array_equal(
        method.segment(encoded, text="a dog").mask, model.segment(picture(), text="a dog").mask
    )
    (result,) = method.track(CLIP[:1], texts={4: "a dog"})
    assert result.masks.keys() == {4}


# ---- What is refused ----


def rows(model: RefSam) -> tuple[ImageFeatures, Any]:
    """A picture and a sentence about it."""
    return model.encode_image(picture()), model.encode_text(["a dog"])


REFUSED: dict[str, tuple[Callable[[RefSam], object], str]] = {
    "examples": (lambda m: m.segment(picture(), examples=[EXAMPLE]), "can't be asked with an annotated image"),
    "points": (lambda m: m.segment(picture(), text="a dog", points=[[3.0, 4.0]]), "points, a box or a mask"),
    "nothing": (lambda m: m.segment(picture()), "asked with a sentence, and in later frames a track token, got 0"),
    "SAM's decoder": (lambda m: m.segment(picture(), text="a dog", decoder="sam"), "has the one decoder.*'sam'"),
    "empty sentence": (lambda m: m.segment(picture(), text=" "), "must name something"),
    "masks": (lambda m: m.track(CLIP, masks={1: disc()}), "can't be asked with masks"),
    "masks and texts": (lambda m: m.track(CLIP, masks={1: disc()}, texts={1: "a dog"}), "can't be asked with masks"),
    "new masks": (lambda m: m.track(CLIP, texts={1: "a dog"}, new_masks={1: {2: disc()}}), "asked with masks"),
    "video examples": (lambda m: m.track(CLIP, examples={1: [EXAMPLE]}), "can't be asked with annotated images"),
    "nothing to track": (lambda m: m.track(CLIP), "nothing to track"),
    "no frame": (lambda m: m.track([], texts={1: "a dog"}), "not a single frame"),
    "threshold": (lambda m: m.track(CLIP, texts={1: "a dog"}, score_threshold=0.4), "score_threshold= means nothing"),
    "first frame": (lambda m: m.track(CLIP, texts={1: "a dog"}, frame_references="first"), "got 'first'"),
    "id 0": (lambda m: m.track(CLIP, texts={0: "a dog"}), "positive integer"),
    "sizes": (lambda m: list(m.track([CLIP[0], picture(40, 60)], texts={1: "a dog"})), "frame 1 is 60x40"),
    "twice": (lambda m: [(t := RefSamTracker(m)).add(1, text="a"), t.add(1, text="b")], "tracked already"),
    "no words": (lambda m: RefSamTracker(m).add(1), "object 1 needs a sentence"),
    "three kinds": (lambda m: m.predict(rows(m)[0], [rows(m)[1]] * 3), "got 3"),
    "prompts": (
        lambda m: m.predict(rows(m)[0], [rows(m)[1]], Prompts(torch.zeros(1, dtype=torch.int64))),
        "points, a box or a mask",
    ),
    "batch of masks": (lambda m: m(replace(sentence_batch(m, ["a"]), sentences=None, task="vos")), "a batch of vos"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_a_sentence_is_refused(name: str, model: RefSam) -> None:
    question, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        question(model)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dense": "conv"}, r"dense must be one of \('attention', 'sentence'\), got 'conv'"),
        ({"mlp": {"hidden_layers": -1}}, "mlp.hidden_layers at least 0, got 512, -1"),
        ({"adapters": {"reduction": 0}}, "adapters.reduction must be at least 1, got 0"),
        ({"mlp": {"widht": 3}}, r"'mlp\.widht'; did you mean 'width'"),
        ({"kind": "samref"}, "this is a samref, not a refsam"),
    ],
)
def test_bad_configurations_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RefSamConfig.from_dict({"kind": "refsam", **values})


def test_a_model_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="asked in words: give a text_encoder"):
        RefSam.from_sam("tiny")

"""RefSAM against recorded outputs of the public code (LancasterLi/RefSAM at 41c763e, made to run).

Case ``refsam`` of tests/fixtures/baselines: a small SAM at 1024 px, the text encoder's hidden states given; the MLP
without its middle layer (``l0_``), the sentence alone as dense prompt (``nofusion_``), adapters in the encoder
(``adapter_``); and the module that makes track tokens.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from parity import assert_matches, blob_mask, recorded, tensor
from refsam_support import CASE, FOLDER, TEXT_CHANNELS, published_refsam

from sam_uniref.adapters import ReferenceFeatures
from sam_uniref.refsam import RefSam

RECORDED = recorded(CASE, FOLDER)
SIZE = (480, 640)
EVERY_FOURTH = (..., slice(None, None, 4), slice(None, None, 4))
EVERY_EIGHTH = (..., slice(None, None, 8), slice(None, None, 8))
CHANNELS_TOO = (slice(None), slice(None, None, 4), *EVERY_EIGHTH[1:])
# What the variants were recorded of.
VARIANTS = {
    "": {"image_embedding_normalised_s8", "dense_embeddings_s8", "low_res_logits_s4", "iou"},
    "l0_": {"dense_embeddings_s8", "low_res_logits_s4", "iou"},
    "nofusion_": {"dense_embeddings_s8", "low_res_logits_s4", "iou"},
    "adapter_": {"image_embedding_normalised_s8", "dense_embeddings_s8", "low_res_logits_s4", "iou"},
}
WORDS = {f"{variant}{name}" for variant in ("", "l0_") for name in ("sentence_before_norm", "word_s4_before_norm")}
ONLY_ONCE = {"sparse_embeddings", "multimask_low_res_logits_s8", "multimask_iou", "high_res_logits_s8"}
TRACKS = {f"track_{tokens}_frame{frame}" for tokens in (1, 3) for frame in (1, 2)}


def recorded_picture() -> NDArray[np.uint8]:
    """The picture that was asked about, drawn by its recipe."""
    noise = np.kron(tensor("persam/test/image", (30, 40, 3)).double().numpy(), np.ones((16, 16, 1)))
    ellipse = blob_mask("persam/test/mask", *SIZE).double().numpy()[..., None]
    drawn = np.rint(110 + 30 * noise + ellipse * [90, -60, 40]).clip(0, 255).astype(np.uint8)
    assert hashlib.sha256(drawn.tobytes()).hexdigest().startswith("efab2f07a2adc3e3adaf6e2af821a575")
    return drawn


def hidden_states() -> torch.Tensor:
    """Those of nine words."""
    return tensor("refsam/text", (1, 9, TEXT_CHANNELS))


@torch.no_grad()
def asked(model: RefSam) -> ReferenceFeatures:
    """The sentence, encoded."""
    return model.mlp(hidden_states(), torch.zeros(1, 9, dtype=torch.bool))


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant: str) -> None:
    model = published_refsam(variant)
    features, sentence = model.encode_image(recorded_picture()), asked(model)
    answer = model.predict(features, [sentence])
    got = {
        "image_embedding_normalised_s8": features.levels[0][CHANNELS_TOO],
        "dense_embeddings_s8": model.dense_prompt(features.levels[0], sentence)[CHANNELS_TOO],
        "low_res_logits_s4": answer.logits[EVERY_FOURTH],
        "iou": answer.scores,
    }
    for name in VARIANTS[variant]:
        assert_matches(got[name].reshape(RECORDED[f"{variant}{name}"].shape), RECORDED, f"{variant}{name}")


@torch.no_grad()
@pytest.mark.parametrize("variant", ["", "l0_"])
def test_words(variant: str) -> None:
    model = published_refsam(variant)
    hidden = hidden_states()
    sentence, words = model.mlp.layers(hidden.mean(1)), model.mlp.layers(hidden)[..., ::4]
    for name, got in (("sentence_before_norm", sentence), ("word_s4_before_norm", words)):
        assert_matches(got.reshape(RECORDED[f"{variant}{name}"].shape), RECORDED, f"{variant}{name}")


@torch.no_grad()
def test_candidates_and_the_pictures_own_size() -> None:
    model = published_refsam()
    features, sentence = model.encode_image(recorded_picture()), asked(model)
    three = model.predict(features, [sentence], multimask=True)
    single = model.predict(features, [sentence])
    enlarged = model.transform.logits(single.logits, features.input_sizes[0], SIZE)
    got = {
        "sparse_embeddings": sentence.keys[0],
        "multimask_low_res_logits_s8": three.logits[EVERY_EIGHTH],
        "multimask_iou": three.scores,
        "high_res_logits_s8": enlarged[EVERY_EIGHTH],
    }
    for name in ONLY_ONCE:
        assert_matches(got[name].reshape(RECORDED[name].shape), RECORDED, name)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 3])
def test_track_tokens(tokens: int) -> None:
    module = published_refsam().track_token
    first, second = (tensor(f"refsam/object_token/{tokens}/{frame}", (tokens, 1, 256)) for frame in (1, 2))
    track = module(first)
    assert_matches(track.reshape(RECORDED[f"track_{tokens}_frame1"].shape), RECORDED, f"track_{tokens}_frame1")
    track = module(second, track)
    assert_matches(track.reshape(RECORDED[f"track_{tokens}_frame2"].shape), RECORDED, f"track_{tokens}_frame2")


def test_every_recorded_array_is_compared() -> None:
    compared = {f"{variant}{name}" for variant, names in VARIANTS.items() for name in names}
    assert RECORDED.keys() == compared | WORDS | ONLY_ONCE | TRACKS

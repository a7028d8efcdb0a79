"""UniFusion's options: multiplied instead of added, and modules of their own for levels and kinds of reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import perturb, random_features, random_references, tiny_model
from torch import Tensor

from sam_uniref.adapters import FrameReferences, ReferenceFeatures, SeparateUniFusion, UniFusion, build_fusion
from sam_uniref.adapters.references import KINDS, concat, stack_rows
from sam_uniref.adapters.unifusion import INJECTIONS, ORDERS, ReferenceFusion
from sam_uniref.config import SamRefConfig

CHANNELS = 16
SIZES = ((4, 5), (2, 3))
LENGTHS = (9, 5)
OPTIONS = {"heads": 2, "head_width": 8, "dropout": 0.0}


def fusion(*, trained: bool = True, **options: object) -> ReferenceFusion:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build_fusion(CHANNELS, len(SIZES), **OPTIONS, **options).eval()
    if trained:
        perturb(module, 0.3)
    return module


def both_kinds(rows: int = 2) -> list[ReferenceFeatures]:
    """A sentence and annotated frames."""
    sentence = random_references(rows, seed=1).of_kind("sentence")
    return [sentence, random_references(rows, LENGTHS, seed=2).of_kind("frames")]


def as_frames(module: ReferenceFusion, annotated: ReferenceFeatures) -> FrameReferences:
    """Each row's own picture, as the tracker keeps it."""
    rows = [module.frame_references(annotated.select(torch.tensor([row])))[0] for row in range(len(annotated))]
    return FrameReferences(tuple((row,) for row in rows), annotated.image_index)


def assert_levels_close(got: list[Tensor], wanted: list[Tensor]) -> None:
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


SHARING = [
    pytest.param({"shared_levels": False}, 2, id="a level"),
    pytest.param({"shared_kinds": False}, 3, id="a kind"),
    pytest.param({"shared_levels": False, "shared_kinds": False}, 6, id="a level and kind"),
]


# ---- Multiplied ----


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("injection", INJECTIONS)
def test_fresh_modules_are_the_identity(order: str, injection: str) -> None:
    features = random_features(2, SIZES)
    fused = fusion(trained=False, order=order, injection=injection)(features, both_kinds())
    assert all(torch.equal(a, b) for a, b in zip(fused, features, strict=True))


def test_multiplied_kinds_are_the_product_of_their_factors() -> None:
    module, features, kinds = fusion(injection="multiply"), random_features(2, SIZES), both_kinds()
    fused = module(features, kinds)
    each = [module(features, [kind]) for kind in kinds]
    for level, feature in enumerate(features):
        torch.testing.assert_close(fused[level] * feature, each[0][level] * each[1][level], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(fused[level], fusion()(features, kinds)[level], atol=1e-2)


def test_a_gate_of_one_and_a_shift_of_minus_one_are_the_bare_product() -> None:
    """What the first UniRef did, without modulation: features times what was attended to."""
    module = fusion(injection="multiply")
    assert isinstance(module, UniFusion)
    (feature,), reference = random_features(1, SIZES[:1]), random_references(1)
    torch.nn.init.zeros_(module.modulation[1].weight)
    module.modulation[1].bias.data = torch.cat([-torch.ones(16), torch.zeros(16), torch.ones(16)])
    tokens = feature.flatten(2).transpose(1, 2)
    queries = module.attention.project_queries(module.query_norm(tokens))
    keys, values, padding, _ = reference.level(0)
    attended = module.attention(queries, module.key_norm(keys), values, padding)
    (fused,) = module([feature], [reference])
    torch.testing.assert_close(fused.flatten(2).transpose(1, 2), tokens * attended, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("options", [{}, {"shared_kinds": False}])
def test_absent_rows_stay_as_they_are(injection: str, options: dict[str, bool]) -> None:
    module, features = fusion(injection=injection, **options), random_features(2, SIZES)
    sentence, frames = both_kinds()
    absent = torch.tensor([True, False])
    given = [
        ReferenceFeatures(r.keys, r.values, r.padding, r.pooled, absent, r.image_index, r.kind)
        for r in (sentence, frames)
    ]
    for fused, whole, feature in zip(module(features, given), module(features, both_kinds()), features, strict=True):
        assert torch.equal(fused[1], feature[1])
        assert torch.equal(fused[0], whole[0])
        assert not torch.equal(fused[0], feature[0])


# ---- Modules of their own ----


@pytest.mark.parametrize(("options", "modules"), SHARING)
def test_each_level_or_kind_has_a_module_of_its_own(options: dict[str, bool], modules: int) -> None:
    module = fusion(**options)
    assert isinstance(module, SeparateUniFusion)
    parts = {(kind, level): module.part(kind, level) for kind in KINDS for level in range(2)}
    assert len(set(parts.values())) == modules == len(module.parts)
    features, kinds = random_features(2, SIZES), both_kinds()
    fused = module(features, kinds)
    for level, feature in enumerate(features):
        # In parallel each kind adds to the same features, so what one module adds can be taken alone.
        alone = feature.clone()
        for kind in kinds:
            keys, values, padding, pooled = ((part,) for part in kind.level(level))
            only = ReferenceFeatures(keys, values, padding, pooled, kind.present, kind.image_index)
            alone = alone + parts[kind.kind, level]([feature], [only])[0] - feature
        torch.testing.assert_close(fused[level], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("options", "modules"), SHARING)
def test_only_modules_of_what_is_there_get_gradients(options: dict[str, bool], modules: int) -> None:
    module = fusion(**options)
    frames = both_kinds()[1]
    sum(level.square().sum() for level in module(random_features(2, SIZES), [frames])).backward()
    used = {module.part("frames", level) for level in range(2)}
    for part in module.parts.values():
        got = [parameter.grad is not None and bool(parameter.grad.any()) for parameter in part.parameters()]
        # The keys' bias moves all attention logits of a query alike.
        assert sum(got) >= len(got) - 1 if part in used else not any(got)


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("options", [{}, {"shared_levels": False}, {"shared_kinds": False}])
def test_kept_frames_give_what_references_give(options: dict[str, bool], order: str, injection: str) -> None:
    module, features = fusion(order=order, injection=injection, **options), random_features(2, SIZES)
    sentence, frames = both_kinds()
    with torch.no_grad():
        kept = module(features, [sentence, as_frames(module, frames)])
        assert_levels_close(kept, module(features, [sentence, frames]))


def test_rows_about_one_image_may_share_a_picture() -> None:
    module, features = fusion(shared_levels=False, shared_kinds=False), random_features(1, SIZES)
    frames = both_kinds(rows=1)[1]
    twice = frames.select(torch.tensor([0, 0]))
    with torch.no_grad():
        kept = FrameReferences(tuple((row,) for row in module.frame_references(twice)), twice.image_index)
        assert kept.share
        assert_levels_close(module(features, [kept]), module(features, [twice]))


def test_one_head_and_eight() -> None:
    for heads in (1, 8):
        module = build_fusion(CHANNELS, 2, heads=heads, head_width=4)
        assert module.part("frames", 1).attention.query.out_features == 4 * heads


# ---- Kinds ----


def test_a_reference_keeps_its_kind() -> None:
    frames = random_references(2).of_kind("frames")
    same = [
        frames.select(torch.tensor([1])),
        frames.about(torch.tensor([0, 0])),
        frames.to("cpu", torch.float64),
        concat([frames, frames]),
        stack_rows([frames, frames]),
    ]
    assert {reference.kind for reference in same} == {"frames"} == {FrameReferences.kind}
    with pytest.raises(ValueError, match="kind must be one of"):
        frames.of_kind("video")


def test_sentences_and_examples_say_what_they_are() -> None:
    model = tiny_model()
    reference = model.encode_reference(text="the red one")
    assert [kind.kind for kind in reference.kinds()] == ["sentence"]
    assert random_references(1).kind == "examples"


# ---- Configuration ----


def test_a_model_is_built_with_the_options_and_loads_what_it_saved(tmp_path: Path) -> None:
    config = SamRefConfig.for_size("tiny")
    config.fusion.injection, config.fusion.shared_kinds = "multiply", False
    model = tiny_model(config=config, noise=0.05)
    assert isinstance(model.fusion, SeparateUniFusion)
    assert model.fusion.injection == "multiply"
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.config == model.config
    for name, tensor in model.fusion.state_dict().items():
        assert torch.equal(tensor, again.fusion.state_dict()[name])


def test_names_of_the_shared_module_are_as_they_were() -> None:
    assert {name.split(".")[0] for name in UniFusion(CHANNELS, **OPTIONS).state_dict()} == {
        "query_norm",
        "key_norm",
        "attention",
        "modulation",
    }


def test_an_unknown_injection_is_refused() -> None:
    with pytest.raises(ValueError, match=r"injection must be one of \('add', 'multiply'\), got 'mul'"):
        SamRefConfig.from_dict({"fusion": {"injection": "mul"}})
    with pytest.raises(ValueError, match="injection must be one of"):
        fusion(injection="mul")
    with pytest.raises(ValueError, match="injection must be one of"):
        fusion(injection="mul", shared_levels=False)

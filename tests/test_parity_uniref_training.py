"""UniRef's training path against recorded losses, matches and gradients of the published code (FoundationVision/UniRef,
``DDETRsegm.coco_forward`` and ``SetCriterion``): cases ``train_grounding`` and ``train_vos`` of the shared reference
folder, whose README says how they were made.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from parity import tensor
from published_uniref import blobs, on_canvas, published_uniref
from torch import Tensor
from uniref_parity import uniref_recorded

from sam_uniref.detr import UniRef
from sam_uniref.detr.criterion import box_terms, class_term, mask_terms, matches_of, proposal_terms
from sam_uniref.detr.loss_options import LossOptions
from sam_uniref.detr.matching import assign_several
from sam_uniref.detr.official_names import published_parts
from sam_uniref.detr.output import DetrOutput
from sam_uniref.detr.set_targets import SetTargets, set_targets
from sam_uniref.interfaces import ImageFeatures, Targets

LAYERS = 6
SIZES = [(250, 310), (256, 288)]
CANVAS = (256, 320)
ROWS = torch.arange(2)
# What the published code calls our losses, and their weights in the video stage.
PUBLISHED = {
    "class": ("ce", 2),
    "box": ("bbox", 5),
    "giou": ("giou", 2),
    "mask": ("mask", 2),
    "dice": ("dice", 5),
    "bootstrap": ("mask_cls", 1),
    "mask_iou": ("mask_iou", 1),
}
# The released code counts padding.
OPTIONS = LossOptions(video_terms=True, full_resolution=True, padding=True)


@dataclass
class Run:
    """One forward and backward pass of a case."""

    expected: dict[str, np.ndarray]
    model: UniRef
    output: DetrOutput
    targets: SetTargets
    upsample: int
    total: float

    def losses(self, layer: int) -> dict[str, Tensor]:
        """Of one decoder layer."""
        output, at = self.output, slice(layer, layer + 1)
        assigned = assign_several(output.logits[at], output.boxes[at], self.targets)
        matches = matches_of(assigned)

        def build(_: Any) -> Tensor:
            return self.model.build_masks(
                output, matches.row, matches.query, SIZES, layers=layer, upsample=self.upsample
            )

        valid = torch.ones(2, *CANVAS, dtype=torch.bool)
        return {
            "class": class_term(output.logits[at], assigned, self.targets.labels),
            **box_terms(output.boxes[at], matches, self.targets),
            **mask_terms(matches, self.targets, build, valid, OPTIONS),
        }

    def gradient(self, name: str) -> Tensor:
        """By the published name."""
        own = next(part.names[name] for part in published_parts("r50").values() if name in part.names)
        named = dict(self.model.named_parameters())
        gradients = [named[source].grad for source in own]
        assert all(gradient is not None for gradient in gradients), name
        return torch.cat([gradient for gradient in gradients if gradient is not None])


def images(case: str, seeds: list[int]) -> Tensor:
    """Two normalised images on one canvas."""
    names = [f"uniref.train_{case}.image.{row}.{seed}" for row, seed in enumerate(seeds)]
    return torch.stack([on_canvas(tensor(n, (3, *size)), CANVAS) for n, size in zip(names, SIZES, strict=True)])


def encoded(model: UniRef, pixels: Tensor) -> ImageFeatures:
    return model.encode_pixels(pixels, SIZES, SIZES)


@pytest.fixture(scope="module", params=["grounding", "vos"])
def run(request: pytest.FixtureRequest) -> Run:
    case = request.param
    expected = uniref_recorded(f"train_{case}")
    model = copy.deepcopy(published_uniref()).requires_grad_(True)
    model.loss_options = OPTIONS
    # The recorded modules were in evaluation mode. The model itself, in training mode, gives the batch one canvas.
    model.training = True
    features = encoded(model, images(case, expected["seed"].tolist()))
    if case == "grounding":
        assert model.text_encoder is not None
        references = [words_of(model, "uniref.train_grounding.text", (13, 9))]
    else:
        shown = [tensor(f"uniref.train_vos.ref.{row}", (3, *size)) for row, size in enumerate(SIZES)]
        pictures = encoded(model, torch.stack([on_canvas(image, CANVAS) for image in shown]))
        masks = blobs([f"uniref.train_vos.ref_mask.{row}" for row in range(2)], SIZES, CANVAS)
        references = [model.encode_mask(pictures, masks, ROWS).of_kind("frames")]
    masks = blobs([f"uniref.train_{case}.mask.{row}" for row in range(2)], SIZES, CANVAS)
    outputs: list[DetrOutput] = []
    forward = model.run

    def kept(*given: Any) -> Any:
        found = forward(*given)
        outputs.append(found[0])
        return found

    model.run = kept  # type: ignore[method-assign]
    losses = model.losses(features, references, Targets(masks))
    total = torch.stack([PUBLISHED[name][1] * loss for name, loss in losses.items()]).sum()
    total.backward()
    targets = set_targets(Targets(masks), SIZES, CANVAS, torch.device("cpu"))
    return Run(expected, model, outputs[0], targets, 4 if case == "vos" else 1, total.item())


def words_of(model: UniRef, name: str, lengths: tuple[int, ...]) -> Any:
    """As `words`, by this copy of the model."""
    hidden = torch.stack([tensor(f"{name}.{row}", (20, 768)) for row in range(len(lengths))])
    padding = torch.arange(20)[None] >= torch.tensor(lengths)[:, None]
    assert model.text_encoder is not None
    return model.text_encoder.resize(hidden, padding)


@torch.no_grad()
def test_losses(run: Run) -> None:
    values = dict(zip(run.expected["names"].tolist(), run.expected["values"].tolist(), strict=True))
    got: dict[str, float] = {}
    for layer in range(LAYERS):
        suffix = "" if layer == LAYERS - 1 else f"_{layer}"
        got |= {f"loss_{PUBLISHED[name][0]}{suffix}": loss.item() for name, loss in run.losses(layer).items()}
    proposals = proposal_terms(run.output, run.targets)
    got |= {f"loss_{PUBLISHED[name][0]}_enc": loss.item() for name, loss in proposals.items()}
    assert got == pytest.approx(values, rel=1e-4)
    assert run.total == pytest.approx(run.expected["total"].item(), rel=1e-4)


@torch.no_grad()
def test_matches_and_predictions(run: Run) -> None:
    assert torch.equal(run.output.chosen, torch.from_numpy(run.expected["topk"]))
    assigned = assign_several(run.output.logits, run.output.boxes, run.targets)
    for layer in range(LAYERS):
        for row in range(2):
            queries = (assigned[layer, row] >= 0).nonzero()[:, 0].tolist()
            assert queries == run.expected[f"match.{layer}.{row}.query"].tolist()
    last = run.output.logits[-1], run.output.boxes[-1][:, ::3]
    for got, name in zip(last, ("pred_logits", "pred_boxes"), strict=True):
        torch.testing.assert_close(got, torch.from_numpy(run.expected[name]), rtol=0, atol=1e-4)
    queries = (assigned[-1, 0] >= 0).nonzero()[:, 0]
    rows = torch.zeros_like(queries)
    masks = run.model.build_masks(run.output, rows, queries, SIZES, upsample=run.upsample)
    step = 4 if run.upsample == 1 else 8
    wanted = torch.from_numpy(run.expected["pred_masks.0"])
    torch.testing.assert_close(masks[:, ::step, ::step], wanted, rtol=0, atol=1e-3)


def test_gradients(run: Run) -> None:
    # Recorded with PyTorch 2.15, whose clamp has no gradient at its bounds; saturated masks have many values there.
    names = [name.removeprefix("grad.") for name in run.expected if name.startswith("grad.")]
    assert len(names) > 25
    for name in names:
        gradient, norm = run.gradient(name), run.expected[f"gradnorm.{name}"][0]
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-3), name
        flat = gradient.reshape(len(gradient), -1) if gradient.ndim > 1 else gradient[None]
        wanted = torch.from_numpy(run.expected[f"grad.{name}"])
        torch.testing.assert_close(flat[:8, :8], wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()), msg=name)


def test_norm_of_the_whole_gradient(run: Run) -> None:
    squares = [
        parameter.grad.double().square().sum() for parameter in run.model.parameters() if parameter.grad is not None
    ]
    # Convolutions of the published mask encoder have biases before their norms; ours are in the stored means.
    named, buffers = dict(run.model.named_parameters()), dict(run.model.named_buffers())
    part = published_parts("r50")["mask encoder"]
    for mean in part.biases.values():
        norm = part.names[mean][0].removesuffix(".running_mean")
        shift = named[f"{norm}.bias"].grad
        if shift is not None:
            deviation = (buffers[f"{norm}.running_var"] + 1e-5).sqrt()
            squares.append((named[f"{norm}.weight"] / deviation * shift).double().square().sum())
    assert torch.stack(squares).sum().sqrt().item() == pytest.approx(run.expected["gradnorm"].item(), rel=1e-3)

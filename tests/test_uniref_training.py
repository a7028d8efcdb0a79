"""UniRef's training path: what learns in which stage, which masks are built, and that it is repeatable."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from runs import ROOT
from tiny import disc, perturb, picture
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.data import ReferenceBatch, Sample, collate
from sam_uniref.data.batch import AnnotatedImage, PictureObjects
from sam_uniref.detr import training
from sam_uniref.detr.canvases import canvas_groups
from sam_uniref.detr.criterion import Matches
from sam_uniref.detr.loss_options import LossOptions
from sam_uniref.detr.matching import assign_several
from sam_uniref.detr.set_targets import set_targets
from sam_uniref.detr.uniref import UniRef
from sam_uniref.interfaces import Instances, Targets
from sam_uniref.train.build import fit_to_stage, model_config
from sam_uniref.train.settings import RunSettings, load_settings
from sam_uniref.train.summary import count_parts

HEIGHT, WIDTH = 60, 80
VIDEO = LossOptions(video_terms=True, full_resolution=True)
_BUILT: list[UniRef] = []


def tiny_uniref() -> UniRef:
    """A fresh one of its own, in training mode."""
    if not _BUILT:
        torch.manual_seed(0)
        _BUILT.append(UniRef.fresh("tiny", text_encoder="tiny", image_size=64))
    return copy.deepcopy(_BUILT[0]).train()


def centers(count: int) -> list[tuple[float, float]]:
    return [(0.35 + 0.1 * k, 0.6 - 0.08 * k) for k in range(count)]


def reference_batch(task: Any, model: UniRef, count: int = 3) -> ReferenceBatch:
    """Samples with one target each; the last one's target is not there."""
    samples = []
    for k, center in enumerate(centers(count)):
        mask = disc(HEIGHT, WIDTH, center=center) & (k < count - 1)
        shown = AnnotatedImage(picture(HEIGHT, WIDTH, 10 + k), disc(HEIGHT, WIDTH, center=center[::-1]))
        samples.append(
            Sample(
                name=f"{task} {k}",
                task=task,
                image=picture(HEIGHT, WIDTH - 9 * k, k),
                mask=mask[:, : WIDTH - 9 * k],
                sentence="the round thing" if task in ("ris", "rvos") else None,
                references=() if task == "ris" else (shown,),
            )
        )
    return collate(samples, model.transform)


def detection_batch(model: UniRef, *, masks: bool) -> ReferenceBatch:
    """Pictures with two, one and no objects."""
    samples = []
    for k, count in enumerate((2, 1, 0)):
        drawn = [disc(HEIGHT, WIDTH, center=center) for center in centers(count)]
        boxes = [[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in (mask.nonzero() for mask in drawn)]
        shapes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4).numpy()
        labels = torch.zeros(count, dtype=torch.int64).numpy()
        known = torch.tensor([mask.tolist() for mask in drawn]).bool().reshape(-1, HEIGHT, WIDTH).numpy()
        objects = PictureObjects(shapes, labels, known if masks else None)
        empty = disc(HEIGHT, WIDTH) & False
        samples.append(Sample(f"detection {k}", "detection", picture(HEIGHT, WIDTH, k), empty, objects=objects))
    return collate(samples, model.transform)


def losses_of(model: UniRef, batch: ReferenceBatch) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return model(batch)


# ---- What learns ----

CONFIGS = ROOT / "configs"
# What a detector has no use for; and what sentences alone have none for.
OF_REFERENCES = {"UniFusion", "mask encoder", "text resizer", "text encoder"}
OF_MASKS = {"mask encoder"}
EXAMPLES, FRAMES = "UniFusion, examples", "UniFusion, frames"
OF_REFERENCES_APART = {"UniFusion, sentence", EXAMPLES, FRAMES, *OF_REFERENCES} - {"UniFusion"}
# By configuration and stage, the parts that are frozen.
FROZEN = {
    "uniref_r50_objects365": [OF_REFERENCES],
    "uniref_r50_visual_genome": [OF_MASKS],
    "uniref_r50_image": [OF_MASKS, set()],
    "uniref_r50_video": [{"text encoder"}],
    "uniref_tiny_stages": [
        OF_REFERENCES_APART,
        {"text encoder", "mask encoder", EXAMPLES, FRAMES},
        {"text encoder"},
    ],
}


def stage_model(stages: list[RunSettings], settings: RunSettings) -> UniRef:
    """A tiny model as a configuration has it, in one of its stages."""
    fusion = {name: value for name, value in stages[0].model.options.items() if name == "fusion"}
    config = model_config(replace(stages[0].model, size="tiny", options=fusion))
    torch.manual_seed(0)
    model = UniRef.fresh("tiny", text_encoder="tiny", image_size=64, config=config)
    fit_to_stage(settings, model)
    model.choose_losses(settings.loss_options)
    return model.train()


def stage_batches(settings: RunSettings, model: UniRef) -> list[ReferenceBatch]:
    """A batch of every kind that a stage draws; of Objects365 nobody drew the masks."""
    drawn = {(entry.task, entry.boxes or name == "objects365") for name, entry in settings.data.items()}
    batches = []
    for task, boxes in sorted(drawn):
        batch = detection_batch(model, masks=not boxes) if task == "detection" else reference_batch(task, model)
        known = Instances(torch.tensor([[10.0, 12, 40, 44]]), torch.zeros(1, dtype=torch.int64))
        batches.append(replace(batch, instances=(known,) * 3) if task == "ris" and boxes else batch)
    return batches


@pytest.mark.parametrize(("name", "number"), [(name, k) for name in FROZEN for k in range(len(FROZEN[name]))])
def test_nothing_trainable_is_dead_over_a_stage(name: str, number: int) -> None:
    stages = load_settings(CONFIGS / f"{name}.yaml").stages()
    settings = stages[number]
    model = stage_model(stages, settings)
    weights = settings.loss.weights()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    moved: set[str] = set()
    for batch in 3 * stage_batches(settings, model):
        optimizer.zero_grad(set_to_none=True)
        losses = losses_of(model, batch)
        torch.stack([weights[name] * loss for name, loss in losses.items()]).sum().backward()
        for parameter_name, parameter in model.named_parameters():
            if parameter.grad is not None:
                assert torch.isfinite(parameter.grad).all(), parameter_name
                if parameter.grad.any():
                    moved.add(parameter_name)
        optimizer.step()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == moved, sorted(trained ^ moved)[:5]
    assert {part.name for part in count_parts(model)[:-1] if not part.trained} == FROZEN[name][number]


def test_it_learns() -> None:
    model = tiny_uniref()
    batch = reference_batch("ris", model, count=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    first: dict[str, float] = {}
    for _ in range(25):
        losses = losses_of(model, batch)
        first = first or {name: loss.item() for name, loss in losses.items()}
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    for name in ("box", "mask", "dice"):
        assert losses[name].item() < 0.8 * first[name], name


# ---- Which masks are built ----


@pytest.mark.parametrize("task", ["ris", "vos", "detection"])
def test_masks_are_built_for_matched_queries_alone(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_uniref()
    batch = detection_batch(model, masks=True) if task == "detection" else reference_batch(task, model)
    built: list[tuple[Tensor, int]] = []
    build = model.mask_head.build

    def counted(*given: Any, **options: Any) -> Tensor:
        masks = build(*given, **options)
        built.append((given[3], len(masks)))
        return masks

    outputs = []
    run = model.run

    def kept(*given: Any) -> Any:
        outputs.append(run(*given))
        return outputs[-1]

    monkeypatch.setattr(model, "run", kept)
    monkeypatch.setattr(model.mask_head, "build", counted)
    losses_of(model, batch)
    ((output, image_index),) = outputs
    sizes = [batch.input_sizes[image] for image in image_index.tolist()]
    targets = set_targets(Targets(batch.masks, batch.instances), sizes, tuple(batch.pixels.shape[-2:]), model.device)
    assigned = assign_several(output.logits, output.boxes, targets)
    ((rows, count),) = built
    assert count == int((assigned >= 0).sum()) < assigned.numel() / 2
    assert not (rows == 2).any()  # the last row has no target


@pytest.mark.parametrize(
    ("task", "options", "upsample"),
    [
        ("vos", VIDEO, 4),
        ("vos", LossOptions(), 1),
        ("rvos", VIDEO, 1),
        ("fss", VIDEO, 1),
        ("detection", VIDEO, 1),
    ],
)
def test_which_masks_are_compared_at_every_pixel(
    task: str, options: LossOptions, upsample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_uniref()
    model.loss_options = options
    batch = detection_batch(model, masks=True) if task == "detection" else reference_batch(task, model)
    shapes = []
    build = model.build_masks

    def noted(*given: Any, **given_options: Any) -> Tensor:
        masks = build(*given, **given_options)
        shapes.append(masks.shape)
        return masks

    monkeypatch.setattr(model, "build_masks", noted)
    losses_of(model, batch)
    height, width = batch.pixels.shape[-2:]
    assert {tuple(shape[1:]) for shape in shapes} == {(height * upsample // 4, width * upsample // 4)}


# ---- Repeatable ----


@pytest.mark.parametrize("task", ["rvos", "boxes"])
def test_the_same_again(task: str) -> None:
    results = []
    for _ in range(2):
        model = tiny_uniref()
        batch = detection_batch(model, masks=False) if task == "boxes" else reference_batch(task, model)
        losses = losses_of(model, batch)
        torch.stack(list(losses.values())).sum().backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append((losses, gradients))
    (first, first_gradients), (second, second_gradients) = results
    assert {name: loss.item() for name, loss in first.items()} == {name: loss.item() for name, loss in second.items()}
    assert first_gradients.keys() == second_gradients.keys()
    assert all(torch.equal(gradient, second_gradients[name]) for name, gradient in first_gradients.items())


def test_training_differs_from_evaluation_by_dropout_alone() -> None:
    model = tiny_uniref()
    # Pictures of one size, since in evaluation each has a canvas of its own.
    batch = collate(
        [
            Sample(f"{k}", "ris", picture(64, 64, k), disc(64, 64, center=center), "the round thing")
            for k, center in enumerate(centers(2))
        ],
        model.transform,
    )
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    trained = losses_of(model, batch)
    evaluated = losses_of(model.eval(), batch)
    assert {n: v.item() for n, v in trained.items()} == pytest.approx({n: v.item() for n, v in evaluated.items()})


# ---- Padding ----


def own_canvases(own: bool) -> UniRef:
    """One in training mode that has nothing left to chance."""
    model = tiny_uniref()
    perturb(model, 0.03)  # a fresh one samples exactly at cells' centres, where gradients jump
    model.config.own_canvases = own
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model


def on_a_larger_canvas(batch: ReferenceBatch) -> ReferenceBatch:
    """The same batch as if a larger picture were in it."""

    def larger(maps: Tensor) -> Tensor:
        return F.pad(maps, (0, 96, 0, 32))

    instances = batch.instances and tuple(known.map_masks(larger) for known in batch.instances)
    return replace(
        batch,
        pixels=larger(batch.pixels),
        masks=larger(batch.masks),
        reference_masks=larger(batch.reference_masks),
        instances=instances,
    )


@pytest.mark.parametrize("task", ["ris", "fss", "vos", "rvos", "detection", "boxes"])
def test_padding_changes_no_loss_and_no_gradient_where_pictures_have_canvases_of_their_own(task: str) -> None:
    results = []
    for change in (lambda batch: batch, on_a_larger_canvas):
        model = own_canvases(own=True)
        model.loss_options = VIDEO
        plain = task in ("detection", "boxes")
        batch = detection_batch(model, masks=task == "detection") if plain else reference_batch(task, model)
        losses = losses_of(model, change(batch))
        torch.stack(list(losses.values())).sum().backward()
        results.append((losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (alone, gradients), (padded, others) = results
    for name, loss in alone.items():
        torch.testing.assert_close(padded[name], loss, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
    assert gradients.keys() == others.keys()
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert all((others[name] - gradient).norm() < 1e-3 * norm for name, gradient in gradients.items())


def test_as_published_padding_counts_in_training() -> None:
    model = own_canvases(own=False)
    batch = reference_batch("ris", model)
    alone, padded = losses_of(model, batch), losses_of(model, on_a_larger_canvas(batch))
    assert abs(padded["class"] - alone["class"]) > 1e-3


# ---- What comes in ----


def test_a_picture_that_was_drawn_twice_has_its_objects_twice() -> None:
    model = tiny_uniref()
    batch = detection_batch(model, masks=True)
    assert batch.instances is not None
    first, last = batch.instances[0], batch.instances[2]
    twice = replace(
        batch, names=("a", "b", "c", "d"), query_index=torch.tensor([0, 1, 2, 0]), instances=(*batch.instances, first)
    )
    losses = losses_of(model, twice)
    assert losses["mask"] > 0
    with pytest.raises(ValueError, match="each of 3 rows needs its instances, got those of 2"):
        losses_of(model, replace(batch, instances=(first, last)))


def test_a_sentences_object_of_which_only_the_box_is_known() -> None:
    model = tiny_uniref()
    batch = reference_batch("ris", model)
    known = Instances(torch.tensor([[10.0, 12, 40, 44]]), torch.zeros(1, dtype=torch.int64))
    losses = losses_of(model, replace(batch, instances=(known,) * 3))
    assert losses["projection"] > 0
    assert losses["pairwise"] > 0
    assert losses["mask"] == 0


def test_colours_are_compared_only_where_a_mask_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_uniref()
    compared = []
    compare = training.colour_similarity
    monkeypatch.setattr(training, "colour_similarity", lambda *given: compared.append(given) or compare(*given))
    known = losses_of(model, detection_batch(model, masks=True))
    assert not compared
    boxed = losses_of(model, detection_batch(model, masks=False))
    assert len(compared) == 1
    assert list(known) == list(boxed)


def test_pictures_of_one_canvas_are_not_copied() -> None:
    maps = torch.randn(2, 3, 8, 12)
    (whole,) = canvas_groups([(60, 90), (64, 96)], maps.device)
    assert torch.equal(whole.cut(maps, 8), maps)
    assert whole.cut(maps, 8).data_ptr() == maps.data_ptr()
    first, second = canvas_groups([(60, 90), (64, 33)], maps.device)
    assert torch.equal(first.cut(maps, 8), maps[:1])
    assert torch.equal(second.cut(maps, 8), maps[1:, ..., :8])


def test_objects_one_pixel_high_and_nothing_at_all() -> None:
    model = tiny_uniref()
    batch = reference_batch("ris", model)
    masks = torch.zeros_like(batch.masks)
    masks[0, 31, 3:60] = 1
    masks[1, 5, 7] = 1
    losses = losses_of(model, replace(batch, masks=masks))
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    silent = losses_of(model, replace(batch, masks=masks * 0))
    assert {name for name, loss in silent.items() if loss != 0} == {"class"}
    silent["class"].backward()


def test_a_label_beyond_the_classes_is_refused() -> None:
    model = tiny_uniref()
    batch = detection_batch(model, masks=True)
    assert batch.instances is not None
    wrong = replace(batch.instances[0], labels=torch.tensor([0, 7]))
    with pytest.raises(ValueError, match=r"labels must be from 0 to 0 .* got 7"):
        losses_of(model, replace(batch, instances=(wrong, *batch.instances[1:])))


def test_pictures_come_back_from_what_was_normalised() -> None:
    model = tiny_uniref()
    shown = picture(64, 64, 5)
    pixels, _ = model.transform.batch([shown])
    assert torch.equal(training.pictures(model, pixels)[0], torch.from_numpy(shown).permute(2, 0, 1).float())


def test_matches_add_up_by_layer() -> None:
    at = torch.tensor([0, 0, 2])
    matches = Matches(at, at, at, at, layers=3)
    values = torch.tensor([1.0, 2, 5])
    assert matches.per_layer(values).tolist() == [3, 0, 5]
    assert matches.mean(values) == 1.5 + 5
    assert matches.select(torch.tensor([1, 2])).layer.tolist() == [0, 2]

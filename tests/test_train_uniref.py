"""Whole runs of ``train/finetune.py`` with ``model.kind: uniref``: stages, resuming, processes, what is refused."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from runs import finetune, losses, stop_after
from safetensors.torch import load_file, save_file
from tiny import picture
from torchvision.models import resnet18

from sam_uniref.data import TrainingBatches
from sam_uniref.data.refshapes import VOCABULARY
from sam_uniref.detr.uniref import UniRef
from sam_uniref.train.build import build_datasets, build_model, build_optimizer, check_classes
from sam_uniref.train.make_text_encoder import make_text_encoder
from sam_uniref.train.settings import DataSettings, ModelSettings, RunSettings, load_settings
from sam_uniref.train.step import take_step
from sam_uniref.train.validation import found_shares

OPTIONS = {"fusion": {"dropout": 0.0}, "text_encoder": {"dropout": 0.0}, "image": {"short": 64, "longest": 64}}
DETECTION = {"reader": "refshapes", "task": "detection", "one_class": True}


def write(path: Path, output: Path, **changes: Any) -> Path:
    """A small run over RefShapes: objects and sentences."""
    config = {
        "stage": "image",
        "output": str(output),
        "steps": 6,
        "batch_size": 4,
        "workers": 0,
        "save_every": 2,
        "validate_most": 2,
        "tracker": "none",
        "model": {"kind": "uniref", "size": "tiny", "text_encoder": "tiny", "options": OPTIONS},
        "data": {"detection": DETECTION, "ris": {"reader": "refshapes", "task": "ris"}},
        "optimiser": {"lr": 1e-3, "clip": 1.0},
        **changes,
    }
    path.write_text(yaml.safe_dump(config))
    return path


def assert_same_runs(got: Path, expected: Path, tolerance: float) -> None:
    mine, theirs = losses(got / "log.jsonl"), losses(expected / "log.jsonl")
    assert [entry[:2] for entry in mine] == [entry[:2] for entry in theirs]
    np.testing.assert_allclose([e[2] for e in mine], [e[2] for e in theirs], rtol=tolerance)
    weights, other = (load_file(out / "model" / "model.safetensors") for out in (got, expected))
    assert weights.keys() == other.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(
            tensor, other[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run of 6 steps of 4 samples, with nothing in its way."""
    place = tmp_path_factory.mktemp("unbroken")
    done = finetune(write(place / "run.yaml", place / "out"))
    assert done.returncode == 0, done.stderr
    assert "image backbone" in done.stdout
    return place / "out"


def test_a_run_leaves_a_model_and_a_log(unbroken: Path) -> None:
    entries = [json.loads(line) for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert {entry["task"] for entry in entries} == {"detection", "ris"}
    for entry in entries:
        weights = {"class": 2, "box": 5, "giou": 2, "mask": 2, "dice": 5, "projection": 1, "pairwise": 0}
        total = sum(weight * entry.get(name, 0) for name, weight in weights.items())
        assert entry["loss"] == pytest.approx(total, rel=1e-4)
    validation = json.loads((unbroken / "validation.json").read_text())
    assert set(validation) == {"detection/validation_found", "ris/validation_iou", "ris/validation_iou_swapped"}
    model = UniRef.from_pretrained(unbroken / "model")
    assert model.segment(np.zeros((40, 60, 3), np.uint8), text="a red disc").mask.shape == (40, 60)


def test_a_stopped_run_resumes_as_if_unbroken(unbroken: Path, tmp_path: Path) -> None:
    config = write(tmp_path / "run.yaml", tmp_path / "out")
    stopped = stop_after(config, 3, signal.SIGTERM)
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stdout
    resumed = finetune(config, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after step" in resumed.stderr
    assert_same_runs(tmp_path / "out", unbroken, 0.0)


def test_two_processes_take_the_steps_of_two_micro_batches(tmp_path: Path) -> None:
    """Losses are through what is matched in a process's batch, so that these two are alike, not one large batch."""
    processes, accumulated = tmp_path / "processes", tmp_path / "accumulated"
    done = finetune(write(tmp_path / "a.yaml", processes, batch_size=2, validate_at_end=False), processes=2)
    assert done.returncode == 0, done.stderr
    done = finetune(write(tmp_path / "b.yaml", accumulated, batch_size=2, accumulate=2, validate_at_end=False))
    assert done.returncode == 0, done.stderr
    assert_same_runs(processes, accumulated, 2e-4)


def test_stages_from_boxes_of_many_classes_to_videos(tmp_path: Path) -> None:
    """Pretraining without words, then another number of classes and a text encoder, then clips with a frozen one."""
    short = {"short_sides": [64, 96], "longest": 128}
    video = {"vos": {"reader": "refshapes", "task": "vos", **short}, "rvos": {"reader": "refshapes", "task": "rvos"}}
    then = {
        "stage": "image",
        "steps": 3,
        "model": {"text_encoder": "tiny", "options": {"classes": 1}},
        "data": {"ris": {"reader": "refshapes", "task": "ris", "boxes": True}, "detection": DETECTION},
        "then": {"stage": "video", "steps": 4, "data": video},
    }
    model = {"kind": "uniref", "size": "tiny", "options": {**OPTIONS, "classes": 12}}
    data = {"shapes": {"reader": "refshapes", "task": "detection", "boxes": True, **short}}
    loss = {"pairwise_steps": 4}
    changes = {"stage": "detection", "steps": 3, "model": model, "data": data, "loss": loss, "then": then}
    done = finetune(write(tmp_path / "run.yaml", tmp_path / "out", **changes))
    assert done.returncode == 0, done.stderr
    assert "the class heads start anew: of 12 classes before, of 1 now" in done.stderr
    assert "the text encoder tiny is new" in done.stderr
    first = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    for step, entry in enumerate(first):
        assert entry["projection"] > 0
        others = 2 * entry["class"] + 5 * entry["box"] + 2 * entry["giou"] + entry["projection"]
        assert entry["loss"] == pytest.approx(others + (step + 1) / 4 * entry["pairwise"], rel=1e-4)
    last = [json.loads(line) for line in (tmp_path / "out" / "image" / "video" / "log.jsonl").read_text().splitlines()]
    assert all("bootstrap" in entry and "mask_iou" in entry for entry in last)
    before, after = (UniRef.from_pretrained(tmp_path / "out" / p / "model") for p in ("image", "image/video"))
    assert (before.config.classes, before.config.text_encoder.trained) == (1, True)
    assert UniRef.from_pretrained(tmp_path / "out" / "model").text_encoder is None
    for name, tensor in before.text_encoder.model.state_dict().items():
        assert tensor.equal(after.text_encoder.model.state_dict()[name])


def test_three_steps_lower_the_loss(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path / "run.yaml", tmp_path / "out", optimiser={"lr": 1e-3, "clip": 10.0}))
    model = build_model(settings).train()
    optimizer, accelerator = build_optimizer(model, settings.optimiser), Accelerator(cpu=True)
    batch = TrainingBatches(build_datasets(settings), model.transform, 1, 4)[0]
    seen = [take_step(accelerator, model, optimizer, [batch], settings, step)["loss"] for step in range(4)]
    assert seen[3] < 0.9 * seen[0]


def test_groups_of_parameters_have_their_rates(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path / "run.yaml", tmp_path / "out", optimiser={}))
    model = build_model(settings)
    groups = build_optimizer(model, settings.optimiser).param_groups
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == pytest.approx({"base": 2e-4, "backbone": 2e-5, "offsets": 2e-5, "text": 1e-5})
    grouped = sum(p.numel() for group in groups for p in group["params"])
    assert grouped == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.fixture(scope="module", params=["pth", "safetensors"])
def resnet18_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As torchvision has it, with weights of no use."""
    path = tmp_path_factory.mktemp("resnet") / f"resnet18.{request.param}"
    state = resnet18(weights=None).state_dict()
    torch.save(state, path) if request.param == "pth" else save_file(state, path)
    return path


@pytest.mark.parametrize("kind", ["samref", "uniref"])
def test_a_mask_encoder_starts_from_a_resnet18(kind: str, resnet18_file: Path) -> None:
    options = {"mask_encoder": {"norm": "batch", "width": 64}}
    model = ModelSettings(kind, "tiny", mask_encoder=str(resnet18_file), options=options)
    data = {"fss": DataSettings(reader="refshapes", task="fss")}
    trunk = build_model(RunSettings("image", data=data, model=model)).mask_encoder.trunk.state_dict()
    wanted = load_file(resnet18_file) if resnet18_file.suffix != ".pth" else torch.load(resnet18_file)
    assert trunk["conv1.weight"][:, :3].equal(wanted["conv1.weight"])
    for name in trunk.keys() - {"conv1.weight"}:
        assert trunk[name].equal(wanted[name]), name


def test_a_start_of_a_mask_encoder_that_can_not_be(tmp_path: Path, resnet18_file: Path) -> None:
    data = {"ris": DataSettings(reader="refshapes", task="ris")}
    given = {"size": "tiny", "mask_encoder": str(resnet18_file), "text_encoder": "tiny"}
    for settings, error, message in (
        ({"kind": "uniref"}, ValueError, "can't start from .* need norm='batch'"),
        ({"kind": "samref", "mask_encoder": str(tmp_path / "none.pth")}, FileNotFoundError, "there is no checkpoint"),
        ({"kind": "refsam"}, ValueError, "a refsam has no mask encoder"),
        ({"kind": "uniref", "start_from": "runs/before"}, ValueError, "does nothing with model.start_from"),
    ):
        model = ModelSettings(**{**given, **settings})
        with pytest.raises(error, match=message):
            build_model(RunSettings("image", data=data, model=model))


def test_a_roberta_is_trained_saved_and_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "roberta"
    make_text_encoder(folder, VOCABULARY, width=32, layers=1, heads=2, seed=0, kind="roberta")
    model_settings = {"kind": "uniref", "size": "tiny", "text_encoder": str(folder), "options": OPTIONS}
    data = {"ris": {"reader": "refshapes", "task": "ris"}}
    settings = load_settings(write(tmp_path / "run.yaml", tmp_path / "out", model=model_settings, data=data))
    model = build_model(settings).train()
    assert type(model.text_encoder.model).__name__ == "RobertaModel"
    before = {name: tensor.clone() for name, tensor in model.text_encoder.model.state_dict().items()}
    optimizer, accelerator = build_optimizer(model, settings.optimiser), Accelerator(cpu=True)
    batch = TrainingBatches(build_datasets(settings), model.transform, 1, 4)[0]
    for step in range(2):  # in the first one a fresh UniFusion lets no gradient through to the words
        assert np.isfinite(take_step(accelerator, model, optimizer, [batch], settings, step)["loss"])
    moved = [name for name, tensor in model.text_encoder.model.state_dict().items() if not tensor.equal(before[name])]
    assert {"embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"} <= set(moved)
    model.eval().save_pretrained(tmp_path / "model")
    loaded = UniRef.from_pretrained(tmp_path / "model").eval()
    answers = [m.segment(picture(), text="the large red star") for m in (model, loaded)]
    np.testing.assert_array_equal(answers[0].mask, answers[1].mask)
    assert answers[0].score == answers[1].score


def test_what_follows_has_its_own_rates_and_losses(tmp_path: Path) -> None:
    data = {"vos": {"reader": "refshapes", "task": "vos"}}
    then = {"stage": "video", "data": data, "optimiser": {"lr": 1e-4}}
    model = {"kind": "uniref", "size": "tiny", "checkpoint": "a/backbone", "text_encoder": "tiny"}
    config = write(tmp_path / "run.yaml", tmp_path / "out", then=then, model=model)
    image, video = load_settings(config).stages()
    assert "bootstrap" not in image.loss.weights()
    assert (video.loss.weights()["bootstrap"], video.loss.weights()["mask_iou"]) == (1.0, 1.0)
    assert (image.loss_options, video.loss_options) == ({}, {"full_resolution": True, "video_terms": True})
    assert video.optimiser.rates() == pytest.approx({"base": 1e-4, "text": 1e-5, "backbone": 1e-5, "offsets": 1e-5})
    assert (video.model.checkpoint, video.train_text_encoder) == (None, False)


def test_the_pairwise_loss_comes_in() -> None:
    settings = RunSettings(model=load_model_settings())
    assert [settings.loss.weights(step)["pairwise"] for step in (0, 4_999, 9_999, 20_000)] == [1e-4, 0.5, 1.0, 1.0]
    assert settings.loss.weights()["pairwise"] == 1.0
    assert "pairwise_steps" not in settings.loss.weights()


def load_model_settings() -> Any:
    from sam_uniref.train.settings import ModelSettings

    return ModelSettings(kind="uniref", size="tiny")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.kind=samref"], r"data\.detection\.task must be one of .* for a samref, got 'detection'"),
        (["stage=video"], r"must be one of \('vos', 'rvos'\) in stage video, got 'detection'"),
        (["loss.bce=1"], r"loss\.bce does nothing for a uniref"),
        (["optimiser.mlp_lr=1"], r"optimiser\.mlp_lr does nothing for a uniref"),
        (["loss.options={mask: l2}"], r"must be one of \('focal', 'bce'\), got 'l2'"),
        (["loss.options={maks: bce}"], r"did you mean 'mask'"),
        (["loss.options={video_terms: true}"], r"video_terms follows from loss\.bootstrap"),
        (["model.options={clases: 2}"], r"did you mean 'classes'"),
        (["model.start_from=x", "model.options={classes: 1, pooling: image}"], r"leave .*'pooling'.* out"),
        (["data.detection.one_class=false"], r"has 12 classes, and the model 1; set model\.options\.classes=12"),
        (["model.text_encoder=null"], r"data\.ris needs sentences"),
        (["data.ris.task=fss", "data.ris.boxes=true"], "boxes alone serve ris and detection, got 'fss'"),
    ],
)
def test_bad_settings_are_one_clear_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    config = write(tmp_path / "run.yaml", tmp_path / "out")

    def prepare() -> None:
        settings = load_settings(config, overrides)
        datasets = build_datasets(settings)
        check_classes(build_model(settings), datasets)

    with pytest.raises(ValueError, match=message):
        prepare()


def test_boxes_and_losses_of_other_kinds_are_refused(tmp_path: Path) -> None:
    config = write(tmp_path / "run.yaml", tmp_path / "out", model={"size": "tiny"}, optimiser={})
    shapes = "data={ris: {reader: refshapes, task: ris, boxes: true}}"
    with pytest.raises(ValueError, match=r"data\.ris\.boxes: a samref does not learn from boxes"):
        load_settings(config, [shapes, "data.detection.weight=0"])
    settings = load_settings(config, ["data.detection.weight=0", "loss.options={mask: bce}", "model.text_encoder=tiny"])
    with pytest.raises(ValueError, match=r"loss\.options do nothing for a samref"):
        build_model(settings)


def test_the_share_of_objects_that_are_found() -> None:
    class Perfect:
        """Answers with the objects of the picture, and some nonsense."""

        def __init__(self, shift: float) -> None:
            self.shift = shift

        def detect(self, image: np.ndarray, *, most: int) -> Any:
            objects = next(s.objects for s in samples if s.image is image)
            boxes = objects.boxes + self.shift
            return type("Found", (), {"labels": objects.labels[:most], "boxes": boxes[:most]})

    from sam_uniref.data.refshapes import RefShapesDataset

    source = RefShapesDataset("d", "detection", side=64)
    samples = [source.episode(k) for k in range(3)]
    assert found_shares(Perfect(0.0), samples) == [1.0] * 3  # type: ignore[arg-type]
    assert found_shares(Perfect(60.0), samples) == [0.0] * 3  # type: ignore[arg-type]


def test_only_the_number_of_classes_can_change(unbroken: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = UniRef.from_pretrained(unbroken / "model")
    with pytest.raises(ValueError, match=r"the options \['pooling'\] of a uniref can't be changed"):
        model.refit({"pooling": "image"})
    with pytest.raises(ValueError, match="classes must be a whole number of at least 1, got 0"):
        model.refit({"classes": 0})
    with caplog.at_level(logging.INFO):
        model.refit({"classes": 1})
    assert "start anew" not in caplog.text

"""Training and validation from the embedding cache: as without it, to its precision, and without the encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from cached import flip_bit, shards
from command import run
from folders import make_folder
from runs import assert_same_steps, finetune, losses, write_config
from tiny import tiny_model
from tiny_uniref import tiny_uniref

from sam_uniref.cache import BrokenShardError, CacheDescription, CacheWriter, FeatureCache, NotCachedError, open_cache
from sam_uniref.data import TASKS, SampleSource, SourceOptions, Task, TrainingBatches, open_source
from sam_uniref.data.refshapes import RefShapesDataset
from sam_uniref.data.shown import shown_pictures
from sam_uniref.plugged import PluggedSam
from sam_uniref.refsam import RefSam
from sam_uniref.refsam.config import RefSamConfig
from sam_uniref.train.build import open_features
from sam_uniref.train.settings import RunSettings
from sam_uniref.train.validation import validate

# What the losses may differ by, of themselves.
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2, "int8": 3e-2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"))


def sources(folder: Path, tasks: tuple[Task, ...] = TASKS, **options: Any) -> list[SampleSource]:
    """Tasks of the folder, each picture with two crops, and drawn scenes with three samples a picture."""
    given = {"root": str(folder), "views": 2, **options}
    found = [open_source("folder", task, task, SourceOptions(**given)) for task in tasks]
    return [*found, RefShapesDataset("drawn", "ris", side=64, length=6, episodes=2, together=3)]


def filled(folder: Path, model: PluggedSam, data: list[SampleSource], precision: str) -> FeatureCache:
    """The cache of all that some data sets show."""
    backbone = model.frozen_backbone()
    description = CacheDescription.of(backbone, precision)
    CacheWriter(folder, backbone, description, batch_size=4).write(shown_pictures(data), 16)
    return open_cache(folder, backbone)


def no_encoder(model: PluggedSam, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if the model's encoder runs."""

    def refuse(pixels: torch.Tensor) -> None:
        pytest.fail("the encoder ran")

    monkeypatch.setattr(model.sam, "encode", refuse)


def first_losses(model: PluggedSam, batches: TrainingBatches) -> list[float]:
    """The losses of all steps, each taken."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    values = []
    for number in range(len(batches)):
        loss = torch.stack(list(model(batches[number]).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


@pytest.mark.parametrize("precision", list(TOLERANCES))
def test_training_is_as_without_a_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    data = sources(folder)
    cache = filled(tmp_path, tiny_model(), data, precision)
    runs = []
    for features in (None, cache):
        model = tiny_model(noise=0.01)
        if features is not None:
            no_encoder(model, monkeypatch)
        batches = TrainingBatches(data, model.transform, steps=8, batch_size=3, seed=4, features=features)
        runs.append(first_losses(model, batches))
    assert {batches.schedule.at(step)[0] for step in range(8)} == set(range(5))  # every task came up
    np.testing.assert_allclose(runs[1], runs[0], rtol=TOLERANCES[precision])
    assert precision == "float32" or runs[0] != runs[1]


def test_batches_differ_in_nothing_else(folder: Path, tmp_path: Path) -> None:
    data = sources(folder)
    model = tiny_model()
    cache = filled(tmp_path, model, data, "bfloat16")
    plain, cached = (
        TrainingBatches(data, model.transform, steps=6, batch_size=3, seed=2, features=features)
        for features in (None, cache)
    )
    for number in range(len(plain)):
        one, other = plain[number], cached[number]
        assert one.names == other.names
        for name in ("pixels", "masks", "query_index", "reference_index", "reference_masks"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert one.levels is None
        assert other.levels is not None
        assert other.levels[0].dtype == torch.bfloat16
        assert other.levels[0].shape == (len(one.pixels), 128, 16, 16)
        expected = model.encode_levels(one.pixels)[0]
        torch.testing.assert_close(other.levels[0].float(), expected, rtol=2**-7, atol=1e-3)
        assert torch.equal(other.to("cpu").levels[0], other.levels[0])  # type: ignore[index]


def test_refsam_takes_the_same_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its levels are of unit length; what is kept is SAM's own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = RefSamConfig.for_size("tiny")
        config.adapters.enabled = False
        model = RefSam.from_sam("tiny", "tiny", "tiny", config=config)
        adapted = RefSam.from_sam("tiny", "tiny", "tiny")
    data = sources(folder)[:1]
    cache = filled(tmp_path, model, data, "float32")
    batches = [TrainingBatches(data, model.transform, 2, 2, features=features) for features in (None, cache)]
    with torch.no_grad():
        expected = model(batches[0][0])
        no_encoder(model, monkeypatch)
        found = model(batches[1][0])
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="adapters in the image encoder are trained"):
        adapted.frozen_backbone()


def test_validation_is_as_without_a_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = [*sources(folder, ("ris", "vos"), validation=0.4)[:2], *sources(folder)]
    model = tiny_model(noise=0.01)
    cache = filled(tmp_path, model, data, "float32")
    accelerator = Accelerator(cpu=True)
    expected = validate(model, data, accelerator, 3)
    with monkeypatch.context() as patch:
        no_encoder(model, patch)
        found = validate(model, data, accelerator, 3, features=cache)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=1e-3)
    # What is not there is encoded, as without one.
    empty = filled(tmp_path / "empty", model, [], "float32")
    assert len(empty) == 0
    assert validate(model, data[:1], accelerator, 3, features=empty) == pytest.approx(
        validate(model, data[:1], accelerator, 3), abs=1e-6
    )


# ---- What can't be trained from a cache ----


def settings_for(cache: Path) -> RunSettings:
    return RunSettings(cache=str(cache))


def test_free_crops_are_refused(folder: Path, tmp_path: Path) -> None:
    free = [open_source("folder", "mine", "fss", SourceOptions(root=str(folder)))]
    with pytest.raises(ValueError, match=r"data\.mine\.views"):
        open_features(settings_for(tmp_path), tiny_model(), free)


def test_a_model_that_trains_its_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    uniref = tiny_uniref(text=False)
    with pytest.raises(ValueError, match="a UniRef trains its image encoder"):
        open_features(settings_for(tmp_path), uniref, sources(folder))


def test_another_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    data = sources(folder)[:1]
    filled(tmp_path, tiny_model(), data, "int8")
    other = tiny_model()
    with torch.no_grad():
        next(iter(other.sam.image_encoder.parameters())).add_(1e-3)
    with pytest.raises(ValueError, match="is a cache of something else: encoder"):
        open_features(settings_for(tmp_path), other, data)
    with pytest.raises(FileNotFoundError, match="is no cache of features"):
        open_features(settings_for(tmp_path / "elsewhere"), other, data)
    assert open_features(RunSettings(), other, data) is None


def test_other_views_are_named(folder: Path, tmp_path: Path) -> None:
    data = sources(folder)[1:2]
    model = tiny_model()
    cache = filled(tmp_path, model, data, "int8")
    other = sources(folder, views=6)[1:2]
    batches = TrainingBatches(other, model.transform, steps=20, batch_size=2, features=cache)
    with pytest.raises(NotCachedError, match=r"has no features of a picture of fss: .*classes.*\.jpg object 1"):
        [batches[number] for number in range(20)]


# ---- Whole runs ----


@pytest.fixture(scope="module")
def data_settings(folder: Path) -> dict:
    return {task: {"root": str(folder), "task": task, "views": 2} for task in ("fss", "ris")}


def test_a_run_from_the_cache_takes_the_same_steps(folder: Path, tmp_path: Path, data_settings: dict) -> None:
    """The YAML of the run fills the cache; loader processes read it; a broken shard ends the run and is named."""
    plain = write_config(tmp_path / "plain.yaml", folder, tmp_path / "plain", data=data_settings)
    cached = write_config(
        tmp_path / "cached.yaml",
        folder,
        tmp_path / "cached",
        data=data_settings,
        cache=str(tmp_path / "features"),
        workers=2,
    )
    filling = run("cache", "--data", cached, "--precision", "float32", "--json", "--device", "cpu")
    assert filling.exit_code == 0, filling.output
    for config in (plain, cached):
        done = finetune(config)
        assert done.returncode == 0, done.stderr
    assert_same_steps(tmp_path / "cached", tmp_path / "plain", 1e-3)
    assert len(losses(tmp_path / "cached" / "log.jsonl")) == 6

    for path in shards(tmp_path / "features"):
        size = CacheDescription.of(tiny_model().frozen_backbone(), "float32").layout.size
        for last in range(path.stat().st_size - 1, size, -size):  # of every view one
            flip_bit(path, last)
    broken = finetune(cached, f"output={tmp_path / 'broken'}")
    assert broken.returncode != 0
    assert ".features is broken: the checksum of the features of" in broken.stderr
    assert "sam-uniref cache" in broken.stderr


def test_a_broken_shard_ends_training(folder: Path, tmp_path: Path) -> None:
    data = sources(folder)[1:2]
    model = tiny_model()
    filled(tmp_path, model, data, "int8")
    for path in shards(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BrokenShardError, match=r"is broken: it is .* bytes long.*sam-uniref cache"):
        open_features(settings_for(tmp_path), model, data)

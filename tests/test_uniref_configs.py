"""UniRef's configurations: the published numbers, data sets that open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prepared_sets import image_row, video_row, write_prepared
from runs import ROOT

from sam_uniref.data import TrainingBatches
from sam_uniref.eval.ablations import read_table
from sam_uniref.train.build import build_datasets, model_config
from sam_uniref.train.settings import RunSettings, load_settings
from sam_uniref.transforms import ShortSideTransform

CONFIGS = ROOT / "configs"
SIZES = ("r50", "swinl")
PUBLISHED = [f"uniref_{size}_{stage}" for size in SIZES for stage in ("objects365", "image", "video")]
PUBLISHED.append("uniref_r50_visual_genome")
TRANSFORM = ShortSideTransform(800, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 1333)


def stages(name: str) -> list[RunSettings]:
    return load_settings(CONFIGS / f"{name}.yaml").stages()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of prepared sets, which the configurations look for their data in."""
    root, out = tmp_path_factory.mktemp("download"), tmp_path_factory.mktemp("data")
    boxed = [image_row(root, n, boxes_only=True, category=f"class{n}", sentences=("a box",)) for n in range(4)]
    masked = [image_row(root, n, category="thing", sentences=("a box",)) for n in range(4)]
    clips = [video_row(root, "walk", sentences=("the walking box",))]
    for name in ("objects365", "visual_genome"):
        write_prepared(out / name, root, {"train": boxed, "val": boxed[:2]})
    for name in ("coco", "refcoco", "refcoco+", "refcocog", "fss1000"):
        write_prepared(out / name, root, {"train": masked, "val": masked})
    for name in ("youtube_vos_2019", "lvos_v1", "ovis", "ref_youtube_vos"):
        write_prepared(out / name, root, {"train": clips})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAM_UNIREF_DATA", str(out))
        yield out


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_data_set_of_a_configuration_gives_batches(data: Path, name: str) -> None:
    for settings in stages(name):
        sources = build_datasets(settings)
        assert [source.name for source in sources] == list(settings.data)
        for source in sources:
            assert source.episodes
            batch = TrainingBatches([source], TRANSFORM, 1, 2, one_orientation=settings.one_orientation)[0]
            assert source.short_sides is not None
            assert max(max(size) for size in batch.input_sizes) <= source.short_sides.longest
            assert min(min(size) for size in batch.input_sizes) <= source.short_sides.largest
            masks = None if batch.instances is None else batch.instances[0].masks
            assert (batch.instances is not None) == (source.task == "detection" or settings.data[source.name].boxes)
            assert (masks is not None) == (source.name == "coco" and source.task == "detection")


@pytest.mark.parametrize("size", SIZES)
def test_the_published_numbers(size: str) -> None:
    """Stages as recorded in the reference's table "Training stages"."""
    (pretrain,), images, (video,) = (stages(f"uniref_{size}_{name}") for name in ("objects365", "image", "video"))
    first, second = images
    every = (pretrain, first, second, video)
    assert [s.steps for s in every] == [340741, 90000, 30000, 90000]
    assert [s.optimiser.milestones for s in every] == [[312346], [75000], [], [75000]]
    assert [s.optimiser.lr for s in every] == [2e-4, 2e-4, 2e-5, 1e-4]
    assert [s.batch_size * s.accumulate * 16 for s in every] == [64, 32, 32, 32]
    assert [s.train_text_encoder for s in every] == [False, True, True, False]
    assert [model_config(s.model).to_dict()["classes"] for s in every] == [365, 1, 1, 1]
    for settings in every:
        optimiser, rates = settings.optimiser, settings.optimiser.rates()
        assert (optimiser.weight_decay, optimiser.clip, optimiser.gamma) == (0.05, 0.1, 0.1)
        assert (optimiser.warmup_steps, optimiser.warmup_factor) == (200, 1.0)
        assert [rates[name] / rates["base"] for name in ("backbone", "offsets")] == pytest.approx([0.1, 0.1])
        weights = settings.loss.weights()
        assert [weights[name] for name in ("class", "box", "giou", "mask", "dice")] == [2, 5, 2, 2, 5]
        assert settings.precision == "no"
    assert first.optimiser.text_lr == second.optimiser.text_lr == 1e-5
    shares = [{name: entry.weight for name, entry in settings.data.items()} for settings in every]
    referring = sum(shares[1][name] for name in ("refcoco", "refcoco_plus", "refcocog"))
    assert (shares[1]["coco"], referring) == (1.0, pytest.approx(1.0, abs=1e-3))
    assert shares[2] == {**shares[1], "fss1000": 0.05}
    assert [shares[3][name] for name in ("coco", "ytvos19", "lvos", "ovis", "ref_ytvos")] == [0.8, 0.6, 0.4, 0.2, 1.0]
    assert (second.data["fss1000"].short_sides, second.data["fss1000"].longest) == ([320, 640], 768)
    assert {tuple(s.short_sides) for s in first.data.values()} == {(480, 800)}
    assert {name for name, s in video.data.items() if s.longest == 1333} == {"refcoco", "refcoco_plus", "refcocog"}
    assert {name: s.language_only for name, s in video.data.items() if s.task == "rvos"} == {
        "refcoco": 1.0,
        "refcoco_plus": 1.0,
        "refcocog": 1.0,
        "ref_ytvos": 0.4,
    }


def test_a_backbone_of_imagenet_is_frozen_where_it_was() -> None:
    settings = stages("uniref_r50_objects365")[0]
    config = model_config(settings.model).to_dict()
    assert (config["backbone"]["name"], config["backbone"]["frozen_stages"]) == ("resnet50", 2)
    assert model_config(stages("uniref_swinl_image")[0].model).to_dict()["backbone"]["drop_path"] == 0.3


def test_every_row_of_the_ablations_is_a_run_that_loads() -> None:
    folder = CONFIGS / "ablations"
    table = read_table(folder / "uniref_rows.yaml")
    assert len(table.seeds) >= 3
    seen = set()
    for row in table.rows:
        settings = load_settings(folder / table.base, row.train)
        model_config(settings.model)
        assert settings.loss_options["video_terms"]
        assert settings.loss.classes == 10.0  # with less the meant object is not learned at this length
        assert any(entry.weight for entry in settings.data.values())
        seen.add((tuple(row.train), tuple(row.evaluate), tuple(row.tasks)))
    assert len(seen) == len(table.rows)

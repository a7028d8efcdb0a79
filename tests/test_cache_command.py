"""``sam-uniref cache``: whole runs as people type them, what they write, say and refuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from cached import QuickBackbone, flip_bit, shards
from command import answer, assert_refused, run
from folders import make_folder
from PIL import Image
from runs import ENVIRONMENT, write_config

from sam_uniref.cache import CacheDescription, CacheWriter, FeatureCache, broken_shards, open_cache
from sam_uniref.cache.description import read_description
from sam_uniref.commands.cache import _choose_computation
from sam_uniref.sam import SamHost
from sam_uniref.samref import SamRef

PICTURES = 9  # of the made-up folder: six of classes, two frames, a still


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"))


def arguments(folder: Path, out: Path, *more: object) -> list[object]:
    return ["cache", "--data", folder, "--model", "tiny", "--out", out, "--device", "cpu", *more, "crop=0"]


def described(out: Path) -> CacheDescription:
    return read_description(out)


def test_it_says_what_it_takes_and_fills_the_cache(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    planned = run(*arguments(folder, out, "--plan"))
    assert planned.exit_code == 0, planned.output
    assert "9 pictures, at most 18 views, 0.0625 MiB each in bfloat16: 0.00118 GB" in planned.stdout
    assert "at most 18 are missing: 0.00118 GB in about 1 files" in planned.stdout
    assert not out.exists()

    filled = run(*arguments(folder, out, "--shard-views", 8))
    assert filled.exit_code == 0, filled.output
    assert f"in a run:\n  cache: {out}" in filled.stdout
    assert "views a second: about" in filled.stdout
    description = described(out)
    assert description.precision == "bfloat16"
    assert description == CacheDescription.of(SamRef.from_pretrained("tiny").frozen_backbone(), "bfloat16")
    assert len(FeatureCache(out, description)) == 2 * PICTURES

    before = {path: path.stat().st_mtime_ns for path in shards(out)}
    assert len(before) > 2
    again = answer(*arguments(folder, out, "--shard-views", 8, "--json"))
    assert {path: path.stat().st_mtime_ns for path in shards(out)} == before
    assert again["record_bytes"] == 2**16


def test_broken_shards_are_named_and_made_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    assert run(*arguments(folder, out, "--task", "fss", "--shard-views", 4)).exit_code == 0
    assert run(*arguments(folder, out, "--check")).stdout == "all is as it was written\n"
    cut, flipped, *sound = shards(out)
    contents = {path: path.read_bytes() for path in shards(out)}
    cut.write_bytes(contents[cut][:-1])
    flip_bit(flipped, len(contents[flipped]) - 1)
    times = {path: path.stat().st_mtime_ns for path in sound}

    checked = run(*arguments(folder, out, "--check"))
    assert checked.exit_code == 1
    for path in (cut, flipped):
        assert f"{path} is broken" in checked.stdout
    assert "2 broken shard(s)" in checked.stdout
    as_json = json.loads(run(*arguments(folder, out, "--check", "--json")).stdout)
    assert set(as_json["broken"]) == {str(cut), str(flipped)}

    assert run(*arguments(folder, out, "--plan")).exit_code == 0
    assert cut.exists()  # a plan changes nothing
    mended = run(*arguments(folder, out, "--task", "fss", "--shard-views", 4))
    assert mended.exit_code == 0, mended.output
    assert mended.stderr.count("removed, to be made again") == 2
    assert {path: path.read_bytes() for path in shards(out)} == contents
    assert {path: path.stat().st_mtime_ns for path in sound} == times


def test_a_killed_writer_loses_one_shard_at_most(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    command = [
        *(sys.executable, "-c", "from sam_uniref.cli import main; main()"),
        *map(str, arguments(folder, out, "--shard-views", 2)),
    ]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end and not (out.is_dir() and len(shards(out)) >= 2):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    whole = {path: path.stat().st_mtime_ns for path in shards(out)}
    assert 2 <= len(whole) < PICTURES
    assert not broken_shards(out, described(out))

    resumed = run(*arguments(folder, out, "--shard-views", 2))
    assert resumed.exit_code == 0, resumed.output
    assert len(FeatureCache(out, described(out))) == 2 * PICTURES
    assert whole.items() <= {path: path.stat().st_mtime_ns for path in shards(out)}.items()


def test_a_run_s_settings_name_everything(folder: Path, tmp_path: Path) -> None:
    data = {task: {"root": str(folder), "task": task, "views": 1} for task in ("fss", "ris")}
    then = {"stage": "joint", "data": {"vos": {"root": str(folder), "task": "vos", "views": 1}}}
    config = write_config(
        tmp_path / "run.yaml", folder, tmp_path / "out", data=data, then=then, cache=str(tmp_path / "features")
    )
    done = run("cache", "--data", config, "--precision", "int8", "--device", "cpu", "data.ris.weight=0")
    assert done.exit_code == 0, done.output
    cache = FeatureCache(tmp_path / "features", described(tmp_path / "features"))
    assert cache.description.precision == "int8"
    assert 4 * PICTURES - 8 <= len(cache) <= 4 * PICTURES  # windows may be the whole picture
    assert not (tmp_path / "out").exists()


def test_an_encoder_held_in_half_precision_is_told_from_others(folder: Path, tmp_path: Path) -> None:
    exact, rounded = (SamRef.from_pretrained("tiny", encoder_precision=name).sam for name in ("float32", "bf16"))
    caches = {}
    for compute in ("float32", "bf16"):
        out = tmp_path / compute
        done = run(*arguments(folder, out, "--compute", compute, "--precision", "float32", "--task", "fss"))
        assert done.exit_code == 0, done.output
        assert described(out).computed_in == compute
        caches[compute] = open_cache(out, exact)
    assert described(tmp_path / "float32").encoder != described(tmp_path / "bf16").encoder
    picture = np.array(Image.open(folder / "classes" / "bar" / "1.jpg").convert("RGB"))
    pixels = exact.transform.image(picture)[0][None]
    for compute, host in (("float32", exact), ("bf16", rounded)):
        with torch.inference_mode():
            wanted = host.encode(pixels)[0][0]
        torch.testing.assert_close(caches[compute].levels([picture], ["1"])[0], wanted, rtol=0, atol=1e-6)

    assert open_cache(tmp_path / "bf16", rounded).description.computed_in == "bf16"
    with pytest.raises(ValueError, match="computed_in float32 instead of bf16"):
        open_cache(tmp_path / "float32", rounded)
    again = run(*arguments(folder, tmp_path / "bf16", "--precision", "float32", "--task", "fss"))
    assert_refused(again, "computed_in bf16 instead of float32")
    with pytest.raises(
        ValueError, match="the encoder is held in float32, and the cache is of one that computes in bf16"
    ):
        CacheWriter(tmp_path / "bf16", exact, described(tmp_path / "bf16"))


def test_another_host_s_encoder_runs_under_autocast() -> None:
    host = QuickBackbone()
    assert _choose_computation(host, "bf16", False) == "bfloat16"
    assert _choose_computation(host, None, False) == "float32"
    with pytest.raises(ValueError, match="--compile is for SAM's own image encoder, not for a QuickBackbone's"):
        _choose_computation(host, None, True)


def test_as_a_run_has_its_encoder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[bool] = []
    speed_up = SamHost.speed_up_encoder

    def watched(self: SamHost, precision: str = "float32", compile: bool = False) -> None:  # noqa: A002
        compiled.append(compile)
        speed_up(self, precision)

    monkeypatch.setattr(SamHost, "speed_up_encoder", watched)
    data = {"fss": {"root": str(folder), "task": "fss", "views": 1}}
    config = write_config(tmp_path / "run.yaml", folder, tmp_path / "out", data=data, cache=str(tmp_path / "features"))
    given = ["cache", "--data", config, "--device", "cpu", "model.encoder_precision=bf16", "model.checkpoint=tiny"]
    done = run(*given, "--compile")
    assert done.exit_code == 0, done.output
    assert described(tmp_path / "features").computed_in == "bf16"
    assert compiled[-1]
    run(*given, "model.compile=true", "--plan")
    assert compiled[-1]
    assert_refused(run(*given, "--compute", "float32"), "--compute float32 is not what the run's")


def test_refshapes_of_a_length(tmp_path: Path) -> None:
    told = answer("cache", "--data", "refshapes", "--model", "tiny", "--out", tmp_path, "--plan", "--json", "length=7")
    # Of each task 7 samples and 200 episodes; of the last three with references, in validation also swapped ones.
    assert told["pictures"] == 4 * 207
    assert told["views"] == 207 + 3 * (7 * 2 + 200 * 3)


# ---- What is refused ----


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--data", "{folder}", "--model", "tiny", "--out", "{out}"], "data.data.views"),
        (["--data", "{folder}", "--model", "tiny"], "say where the features are to be kept"),
        (["--data", "{folder}", "--out", "{out}", "crop=0"], "say whose encoder it is"),
        (["--data", "{folder}", "--out", "{out}", "--model", "vit_b", "crop=0"], "--model vit_b needs --checkpoint"),
        (["--data", "/nowhere", "--out", "{out}", "--model", "tiny", "crop=0"], "there is no folder /nowhere"),
        (["--data", "none.yaml", "--out", "{out}"], "there is no configuration none.yaml"),
        (["--data", "{folder}", "--out", "{out}", "--model", "none", "crop=0"], "none holds no model"),
        (["--data", "{folder}", "--out", "{out}", "--model", "tiny", "krop=0"], "did you mean 'crop'"),
        (["--data", "{folder}", "--out", "{out}", "--model", "tiny", "crop"], "a setting is key=value, got 'crop'"),
        (["--data", "{folder}", "--out", "{out}", "--model", "tiny", "crop=much"], "crop"),
        (["--data", "{folder}", "--out", "{out}", "--model", "tiny", "--task", "all", "crop=0"], "--task must be one"),
        (
            ["--data", "{folder}", "--out", "{out}", "--model", "tiny", "--precision", "int4", "crop=0"],
            "precision must be one of",
        ),
        (
            ["--data", "{folder}", "--out", "{out}", "--model", "tiny", "--compute", "int8", "crop=0"],
            "--compute must be float32 or bf16, got 'int8'",
        ),
        (
            ["--data", "{folder}", "--out", "{out}", "--model", "tiny", "--processes", "0", "crop=0"],
            "--processes must be at least 1, got 0",
        ),
        (["--data", "{folder}", "--out", "{folder}", "--model", "tiny", "crop=0"], "is no cache of features"),
        (["--data", "{folder}", "--out", "{folder}", "--check"], "is no cache of features"),
        (["--data", "{folder}", "--out", "{folder}/expressions.jsonl", "--model", "tiny", "crop=0"], "is a file"),
    ],
)
def test_bad_input_is_one_clear_line(folder: Path, tmp_path: Path, given: list[str], message: str) -> None:
    place = tmp_path / "data"
    place.symlink_to(folder)
    out = tmp_path / "features"
    assert_refused(run("cache", *(part.format(folder=place, out=out) for part in given)), message)
    assert not out.exists()


def test_a_small_disk_is_refused_before_anything_is_done(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("sam_uniref.cache.plan.shutil.disk_usage", lambda _: free)
    refused = run(*arguments(folder, tmp_path / "features"))
    assert refused.exit_code == 2
    assert "GB more, and 1e-06 GB are free" in refused.stderr
    assert not (tmp_path / "features").exists()


def test_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    assert run(*arguments(folder, tmp_path, "--task", "ris")).exit_code == 0
    assert_refused(run(*arguments(folder, tmp_path, "--image-size", 64)), "image_size 128 instead of 64")
    assert_refused(run(*arguments(folder, tmp_path, "--precision", "int8")), "precision bfloat16 instead of int8")


def test_a_missing_picture_is_named(folder: Path, tmp_path: Path) -> None:
    mine = make_folder(tmp_path / "data")
    picture = mine / "classes" / "bar" / "1.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    out = tmp_path / "features"
    refused = run(*arguments(mine, out, "--task", "fss"))
    assert refused.exit_code == 2
    assert str(picture) in refused.stderr
    assert os.listdir(out / "shards") == [] if (out / "shards").is_dir() else True  # noqa: PTH208

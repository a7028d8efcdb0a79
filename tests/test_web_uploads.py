"""What visitors may upload: decided by content, before it is decoded, and refused in one sentence."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import HOSTILE, NAMES, PICTURES, bomb, encoded, gif, mutated, noise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from sam_uniref.video_writing import write_video
from sam_uniref.web.limits import Limits, RefusedError
from sam_uniref.web.uploads import UploadedVideo, checked_ids, checked_mask, checked_picture, checked_video

LIMITS = Limits(upload_megabytes=1, megapixels=0.25, frames=6, seconds=5)
# make test-fuzz asks for all of them.
FUZZED = settings(
    max_examples=int(os.environ.get("SAM_UNIREF_FUZZ", "50")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TOLD = ("/", "\\", "Traceback", "Error(", "site-packages", "\n")


def result_of(call: Callable[..., Any], *arguments: object) -> Any:
    """What it gives, or the sentence that a visitor would be told, as a string. Anything else it raises is an error."""
    try:
        return call(*arguments)
    except RefusedError as error:
        message = str(error)
    assert message.endswith(".")
    assert not any(mark in message for mark in TOLD), message
    return message


def refusal(call: Callable[..., Any], *arguments: object) -> str:
    """What a visitor would be told."""
    message = result_of(call, *arguments)
    assert isinstance(message, str), "it was taken"
    return message


# ---- Pictures ----


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_pictures_are_known_by_their_content(kind: str, tmp_path: Path) -> None:
    (tmp_path / "name.txt").write_bytes(encoded(noise(), kind))
    picture = checked_picture(tmp_path / "name.txt", LIMITS)
    assert (picture.shape, picture.dtype) == ((40, 60, 3), np.uint8)
    if kind in ("PNG", "BMP"):
        assert np.array_equal(picture, noise())


def test_a_turned_photograph_is_set_upright() -> None:
    exif = PILImage.Exif()
    exif[274] = 6
    assert checked_picture(encoded(noise(), "JPEG", exif=exif), LIMITS).shape == (60, 40, 3)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_picture_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(HOSTILE[name])
    refusal(checked_picture, path, LIMITS)
    refusal(checked_picture, HOSTILE[name], LIMITS)


def test_the_reasons_are_told() -> None:
    assert "too many pixels; at most 0.25 million" in refusal(checked_picture, HOSTILE["bomb"], LIMITS)
    assert "5000 x 4000 pixels; at most 0.25 million" in refusal(checked_picture, bomb(5000, 4000), LIMITS)
    assert "as a video" in refusal(checked_picture, HOSTILE["moving"], LIMITS)
    assert "at most 1 MB" in refusal(checked_picture, HOSTILE["too many bytes"], LIMITS)
    assert "empty" in refusal(checked_picture, b"", LIMITS)
    assert "JPEG, PNG" in refusal(checked_picture, HOSTILE["text"], LIMITS)


def test_a_bomb_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    refusal(checked_picture, HOSTILE["bomb"], LIMITS)


@pytest.mark.parametrize("name", ["gone.png", "with\0nul.png", "x" * 5000 + ".png"])
def test_a_file_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    assert "not there" in refusal(checked_picture, tmp_path / name, LIMITS)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(encoded(noise(), "PNG"))
    (tmp_path / "link.png").symlink_to(tmp_path / "picture.png")
    assert "not there" in refusal(checked_picture, tmp_path / "link.png", LIMITS)


# ---- Masks ----


def test_masks() -> None:
    grey = np.zeros((40, 60), np.uint8)
    grey[5:9, 5:9] = 255
    mask = checked_mask(encoded(grey, "PNG"), (40, 60), LIMITS)
    assert np.array_equal(mask, grey > 0)
    assert "empty" in refusal(checked_mask, encoded(grey * 0, "PNG"), (40, 60), LIMITS)
    assert "60x40" in refusal(checked_mask, encoded(grey, "PNG"), (400, 600), LIMITS)
    ids = np.zeros((40, 60), np.uint8)
    ids[:5], ids[20:] = 1, 2
    assert set(np.unique(checked_ids(encoded(ids, "PNG"), (40, 60), LIMITS))) == {0, 1, 2}
    assert "several objects" in refusal(checked_mask, encoded(ids, "PNG"), (40, 60), LIMITS)


# ---- Videos ----


def clip(path: Path, frames: int = 4, side: int = 32) -> Path:
    write_video(path, [np.full((side, side, 3), 40 * n, np.uint8) for n in range(frames)], frames_per_second=5)
    return path


def test_a_video_is_read_once_and_shown_by_frames(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4").rename(tmp_path / "clip.txt")
    (tmp_path / "mine").mkdir()
    video = checked_video(path, tmp_path / "mine", LIMITS)
    assert isinstance(video, UploadedVideo)
    assert (len(video.previews), video.size, video.frames_per_second, video.note) == (4, (32, 32), 5.0, "")
    assert video.path.parent == tmp_path / "mine"
    shades = [np.asarray(PILImage.open(preview)).mean() for preview in video.previews]
    assert np.allclose(shades, [0, 40, 80, 120], atol=8)


def test_a_moving_gif_is_a_video(tmp_path: Path) -> None:
    (tmp_path / "moving.gif").write_bytes(gif(3))
    assert len(checked_video(tmp_path / "moving.gif", tmp_path, LIMITS).previews) == 3


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_video_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(HOSTILE[name])
    if name == "moving":
        checked_video(path, tmp_path, LIMITS)
    else:
        refusal(checked_video, path, tmp_path, LIMITS)


def test_limits_of_videos(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4")
    for limits, word in (
        (Limits(frames=3), "more than 3 frames"),
        (Limits(seconds=0.2), "seconds"),
        (Limits(megapixels=0.0005), "pixels"),
    ):
        folder = tmp_path / word
        folder.mkdir()
        assert word in refusal(checked_video, path, folder, limits)


def test_a_video_that_breaks_off_is_used_up_to_there(tmp_path: Path) -> None:
    noisy = [np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8) for n in range(6)]
    write_video(tmp_path / "whole.mp4", noisy, frames_per_second=5)
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 3 // 4])
    video = checked_video(tmp_path / "cut.mp4", tmp_path, LIMITS)
    assert 0 < len(video.previews) < 6
    assert "breaks off" in video.note


# ---- Whatever else ----


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def seed_clip(work: Path) -> bytes:
    return clip(work / "clip.mp4", side=16).read_bytes()


@FUZZED
@given(data=st.data())
def test_fuzzed_pictures_give_a_picture_or_a_sentence(data: st.DataObject) -> None:
    content = mutated(data, PICTURES[data.draw(st.sampled_from(sorted(PICTURES)))])
    for got in (result_of(checked_picture, content, LIMITS), result_of(checked_ids, content, (16, 24), LIMITS)):
        assert isinstance(got, str) or got.shape[0] * got.shape[1] <= LIMITS.pixels


@FUZZED
@given(data=st.data())
def test_fuzzed_videos_give_a_video_or_a_sentence(data: st.DataObject, seed_clip: bytes, work: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=work))
    (folder / "given").write_bytes(mutated(data, seed_clip))
    (folder / "mine").mkdir()
    video = result_of(checked_video, folder / "given", folder / "mine", LIMITS)
    assert isinstance(video, str) or 0 < len(video.previews) <= LIMITS.frames
    assert sorted(path.name for path in folder.iterdir()) == ["given", "mine"]
    shutil.rmtree(folder)


@FUZZED
@given(NAMES)
def test_no_name_gets_anything_but_a_sentence(name: str) -> None:
    refusal(checked_picture, Path("/nowhere") / name.lstrip("/"), LIMITS)
    refusal(checked_video, Path("/nowhere") / name.lstrip("/"), Path("/nowhere"), LIMITS)

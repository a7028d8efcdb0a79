"""Archives for servers: their layouts byte for byte, and that nothing is written if a mask is missing or odd."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from id_folders import Maps, moving_objects, write_ids
from PIL import Image as PILImage

from sam_uniref.eval.asked_videos import (
    AskedVideo,
    asked_of_folders,
    asked_of_ref_youtube_vos,
    asked_of_youtube_vos,
)
from sam_uniref.eval.id_maps import IdMap
from sam_uniref.eval.submissions import LAYOUTS, check_masks, check_submission, masks_in_folder, write_submission
from sam_uniref.track_files import palette_png

STEMS = ("00000", "00005")
ASKED = [AskedVideo("b-clip", STEMS, frozenset({1, 2})), AskedVideo("a-clip", STEMS, frozenset({1, 2}))]
SENTENCES = [AskedVideo(f"clip/{number}", STEMS, frozenset({1})) for number in (0, 1, 10)]
MAPS = moving_objects(2, 2)


def masks(video: str, stem: str) -> IdMap:
    ids = MAPS[STEMS.index(stem)]
    return ids if "/" not in video else (ids == 1).astype(np.uint8)


def members(path: Path) -> dict[str, PILImage.Image]:
    with zipfile.ZipFile(path) as archive:
        return {name: PILImage.open(io.BytesIO(archive.read(name))) for name in archive.namelist()}


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "ref_youtube_vos"])
def test_palette_layouts(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "results.zip"
    write_submission(path, layout, ASKED, masks)
    folder = "Annotations/" if layout.startswith("youtube") else ""
    found = members(path)
    assert list(found) == [f"{folder}{clip}/{stem}.png" for clip in ("a-clip", "b-clip") for stem in STEMS]
    for picture, ids in zip(found.values(), [*MAPS, *MAPS], strict=True):
        assert picture.mode == "P"
        assert (picture.getpalette() or [])[3:9] == [128, 0, 0, 0, 128, 0]
        np.testing.assert_array_equal(np.array(picture), ids)
    check_submission(path, layout, ASKED)


def test_ref_youtube_vos_is_binary(tmp_path: Path) -> None:
    path = tmp_path / "results.zip"
    write_submission(path, "ref_youtube_vos", SENTENCES, masks)
    found = members(path)
    assert list(found) == [f"Annotations/clip/{number}/{stem}.png" for number in (0, 1, 10) for stem in STEMS]
    for picture, ids in zip(found.values(), [*MAPS] * 3, strict=True):
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.array(picture), 255 * (ids == 1))
    check_submission(path, "ref_youtube_vos", SENTENCES)


def test_the_same_masks_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    write_submission(first, "mose", ASKED, masks)
    for name in ("a-clip", "b-clip"):
        write_ids(tmp_path / "masks" / name, MAPS, STEMS)
    write_submission(second, "mose", ASKED[::-1], masks_in_folder(tmp_path / "masks"))
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.testzip() is None


Odd = Callable[[str, str], IdMap | None]


def odd_at(video: str, stem: str, ids: IdMap | None) -> Odd:
    """All masks are good but one."""
    return lambda v, s: ids if (v, s) == (video, stem) else masks(v, s)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (None, "the mask of a-clip/00005 is missing; the server asks for it"),
        (MAPS[0][:, 1:], "the mask of a-clip/00005 is 39x24, but those of its video are 40x24"),
        (MAPS[0] * 2, r"the mask of a-clip/00005 has the id 4; asked for are \[1, 2\]"),
        (np.full((24, 40), 255, np.uint8), "the mask of a-clip/00005 has the id 255"),
        (MAPS[0][None], r"the mask of a-clip/00005 must be \(H, W\), got \(1, 24, 40\)"),
    ],
)
def test_an_odd_mask_is_named_and_nothing_is_written(tmp_path: Path, ids: IdMap | None, message: str) -> None:
    path = tmp_path / "results.zip"
    path.write_bytes(b"of yesterday")
    with pytest.raises(ValueError, match=message):
        write_submission(path, "mose", ASKED, odd_at("a-clip", "00005", ids))
    assert path.read_bytes() == b"of yesterday"
    assert [file.name for file in tmp_path.iterdir()] == ["results.zip"]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    for name in ("a-clip", "b-clip"):
        write_ids(tmp_path / "masks" / name, MAPS, STEMS)
    broken = tmp_path / "masks" / "b-clip" / "00005.png"
    broken.write_bytes(broken.read_bytes()[:-30])
    with pytest.raises(ValueError, match="the mask of b-clip/00005 is broken: it is not a whole picture"):
        write_submission(tmp_path / "results.zip", "davis", ASKED, masks_in_folder(tmp_path / "masks"))
    assert not (tmp_path / "results.zip").exists()
    with pytest.raises(FileNotFoundError, match="no folder"):
        masks_in_folder(tmp_path / "nowhere")


def test_an_empty_mask_is_a_mask(tmp_path: Path) -> None:
    write_submission(tmp_path / "results.zip", "mose", ASKED, lambda video, stem: MAPS[0] * 0)
    check_submission(tmp_path / "results.zip", "mose", ASKED)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([], "no frame of any video"),
        ([ASKED[0], ASKED[0]], "b-clip/00000 is asked for twice"),
        ([AskedVideo("../clip", STEMS, frozenset({1}))], "leaves the data set's folder"),
        ([AskedVideo("clip", STEMS, frozenset({255}))], "video clip has the id 255; a PNG holds ids up to 254"),
    ],
)
def test_what_no_archive_can_hold(tmp_path: Path, asked: list[AskedVideo], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_submission(tmp_path / "results.zip", "mose", asked, masks)
    with pytest.raises(ValueError, match=r"a layout is one of \['davis', 'lvos', .*got 'moose'"):
        write_submission(tmp_path / "results.zip", "moose", ASKED, masks)


def zipped(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a-clip/", b"")  # a folder's own entry is no odd file
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def png(picture: PILImage.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


GOOD = {
    f"{clip}/{stem}.png": palette_png(ids)
    for clip in ("a-clip", "b-clip")
    for stem, ids in zip(STEMS, MAPS, strict=True)
}
COLOURED = png(PILImage.fromarray(np.zeros((24, 40, 3), np.uint8)))
WHITE = png(PILImage.fromarray(255 * MAPS[0].clip(max=1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a-clip/00005.png": None}, "a-clip/00005.png is missing, as the first of 1"),
        ({"__MACOSX/a-clip/._00005.png": b""}, "__MACOSX/a-clip/._00005.png is not asked for"),
        ({"a-clip/00005.png": b"no picture"}, "the mask of a-clip/00005 is broken: it is no whole PNG"),
        ({"a-clip/00005.png": COLOURED}, "the mask of a-clip/00005 is broken: .* got one of mode RGB"),
        ({"a-clip/00005.png": WHITE}, "the mask of a-clip/00005 has the id 255"),
        ({"a-clip/00005.png": palette_png(MAPS[0][1:])}, "the mask of a-clip/00005 is 40x23"),
    ],
)
def test_an_archive_of_anyone_is_checked(tmp_path: Path, change: dict[str, bytes | None], message: str) -> None:
    check_submission(zipped(tmp_path / "good.zip", GOOD), "mose", ASKED)
    content = {name: data for name, data in {**GOOD, **change}.items() if data is not None}
    with pytest.raises(ValueError, match=message):
        check_submission(zipped(tmp_path / "odd.zip", content), "mose", ASKED)


def test_an_archive_in_another_layout_or_none(tmp_path: Path) -> None:
    path = zipped(tmp_path / "good.zip", GOOD)
    with pytest.raises(ValueError, match=r"Annotations/a-clip/00000.png is missing, as the first of 4"):
        check_submission(path, "youtube_vos_2019", ASKED)
    several = {f"Annotations/clip/{number}/{stem}.png": palette_png(MAPS[0]) for number in (0, 1, 10) for stem in STEMS}
    with pytest.raises(ValueError, match="one value beside 0"):
        check_submission(zipped(tmp_path / "ids.zip", several), "ref_youtube_vos", SENTENCES)
    with pytest.raises(FileNotFoundError, match="no archive"):
        check_submission(tmp_path / "nowhere.zip", "mose", ASKED)
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(ValueError, match="is no zip file that can be read"):
        check_submission(tmp_path / "text.zip", "mose", ASKED)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 8] ^= 0xFF
    (tmp_path / "flipped.zip").write_bytes(data)
    with pytest.raises(ValueError, match="is no zip file that can be read"):
        check_submission(tmp_path / "flipped.zip", "mose", ASKED)


# ---- What is asked for ----


def test_asked_of_youtube_vos(tmp_path: Path) -> None:
    objects = {
        "1": {"category": "cat", "frames": ["00000", "00005"]},
        "3": {"category": "dog", "frames": ["00005", "00010"]},
    }
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"videos": {"clip": {"objects": objects}}}))
    asked = AskedVideo("clip", ("00000", "00005", "00010"), frozenset({1, 3}))
    assert asked_of_youtube_vos(meta) == [asked]
    picture(tmp_path / "JPEGImages" / "clip" / "00000.jpg")
    assert asked_of_youtube_vos(meta) == [replace(asked, size=(24, 40))]
    write_ids(tmp_path / "Annotations" / "clip", moving_objects(1, 3, height=12, width=20))
    assert asked_of_youtube_vos(meta) == [replace(asked, size=(12, 20))]


def test_asked_of_ref_youtube_vos(tmp_path: Path) -> None:
    entry = {"expressions": {"0": {"exp": "a cat"}, "1": {"exp": "the cat"}}, "frames": list(STEMS)}
    valid, test = tmp_path / "valid.json", tmp_path / "test.json"
    valid.write_text(json.dumps({"videos": {"clip": entry, "tested": entry}}))
    test.write_text(json.dumps({"videos": {"tested": entry}}))
    assert asked_of_ref_youtube_vos(valid, test) == SENTENCES[:2]
    assert len(asked_of_ref_youtube_vos(valid)) == 4
    picture(tmp_path / "valid" / "JPEGImages" / "clip" / "00000.jpg")
    file = tmp_path / "meta_expressions" / "valid" / "meta_expressions.json"
    file.parent.mkdir(parents=True)
    valid.rename(file)
    assert asked_of_ref_youtube_vos(file, test) == [replace(one, size=(24, 40)) for one in SENTENCES[:2]]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True)
    PILImage.new("RGB", (40, 24)).save(path)


def test_asked_of_folders(tmp_path: Path) -> None:
    def frames(name: str, maps: Maps) -> None:
        for t, ids in enumerate(maps):
            path = tmp_path / "JPEGImages" / name / f"{t}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            PILImage.fromarray(ids).save(path)

    frames("clip", moving_objects(11, 1))
    write_ids(tmp_path / "Annotations" / "clip", moving_objects(1, 3))
    asked = asked_of_folders(tmp_path / "JPEGImages", tmp_path / "Annotations")
    size = moving_objects(1, 3)[0].shape
    assert asked == [AskedVideo("clip", tuple(str(t) for t in range(11)), frozenset({1, 2, 3}), size)]
    # Masks that are all of one wrong size are found.
    write_ids(tmp_path / "masks" / "clip", moving_objects(11, 3, height=12, width=20), [str(t) for t in range(11)])
    with pytest.raises(ValueError, match="the mask of clip/0 is 20x12, but those of its video are 40x24"):
        check_masks(asked, masks_in_folder(tmp_path / "masks"))
    write_ids(tmp_path / "Annotations" / "clip", moving_objects(1, 3, height=12, width=20), ["00007"])
    with pytest.raises(ValueError, match=r"not of one size: .*00007\.png"):
        asked_of_folders(tmp_path / "JPEGImages", tmp_path / "Annotations")
    (tmp_path / "Annotations" / "clip" / "00007.png").unlink()
    frames("without", moving_objects(1, 1))
    with pytest.raises(FileNotFoundError, match=r"no picture in .*Annotations/without"):
        asked_of_folders(tmp_path / "JPEGImages", tmp_path / "Annotations")
    with pytest.raises(FileNotFoundError, match=r"no picture in .*JPEGImages/nowhere"):
        asked_of_folders(tmp_path / "JPEGImages", tmp_path / "Annotations", ["nowhere"])
    with pytest.raises(FileNotFoundError, match="no folder"):
        asked_of_folders(tmp_path / "nowhere", tmp_path)

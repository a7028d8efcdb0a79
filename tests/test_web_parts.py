"""The parts of the web page that need no Gradio: marks, visits, answers, tracks, samples."""

from __future__ import annotations

import base64
import io
import json
import math
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import painted
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from refsam_support import tiny_refsam
from tiny import disc, picture, tiny_model

from sam_uniref import SamRef
from sam_uniref.eval.baselines import Persam
from sam_uniref.video_writing import write_video
from sam_uniref.web.answers import Asked
from sam_uniref.web.limits import Limits, RefusedError
from sam_uniref.web.marks import Marks, read_marks, shown
from sam_uniref.web.samples import clip_samples, example_samples, picture_samples, vocabulary
from sam_uniref.web.tracks import follow, next_object
from sam_uniref.web.uploads import checked_video
from sam_uniref.web.visits import VideoObject, Visits

SIZE = (60, 80)


# ---- Limits ----


def test_sentences() -> None:
    limits = Limits(sentence=20)
    assert limits.check_sentence(None) is None
    assert limits.check_sentence(" \n\t ") is None
    assert limits.check_sentence(" the red one\n") == "the red one"
    assert limits.check_sentence("一只红色的猫") == "一只红色的猫"
    with pytest.raises(RefusedError, match=r"^One sentence names one object, got two: 'a star\. a red dot'; .*\.$"):
        limits.check_sentence("a star. a red dot")
    with pytest.raises(RefusedError, match=r"^A sentence is words, got 'a\\x00 star'\.$"):
        limits.check_sentence("a\0 star")
    with pytest.raises(RefusedError, match="21 characters; at most 20"):
        limits.check_sentence("x" * 21)
    with pytest.raises(RefusedError, match="must be text"):
        limits.check_sentence(["x"])


def test_limits_are_positive() -> None:
    with pytest.raises(ValueError, match="frames must be above 0, got 0"):
        Limits(frames=0)


# ---- Marks ----


def test_marks_come_back_as_they_were_shown() -> None:
    mask = disc(*SIZE)
    value = shown(picture(*SIZE), 7, mask=mask, points=[[0.5, 0.25, 1], [0.0, 1.0, 0]])
    marks = read_marks(value, SIZE, 7)
    assert marks.points == [(40.0, 15.0), (0.0, 60.0)]
    assert marks.labels == [1, 0]
    assert marks.mask is not None
    assert np.array_equal(marks.mask, mask)


def test_marks_on_a_large_picture_are_scaled() -> None:
    mask = disc(600, 2000)
    read = read_marks(shown(picture(600, 2000), 1, mask=mask), (600, 2000), 1).mask
    assert read is not None
    assert (read & mask).sum() / (read | mask).sum() > 0.97


def test_marks_on_another_picture_do_not_count() -> None:
    assert not read_marks({"number": 1, "points": [[0, 0, 1]]}, SIZE, 2)
    assert not read_marks(None, SIZE, 2)


def test_paint_that_was_erased_is_no_mask() -> None:
    assert read_marks({"number": 1, "mask": painted(np.zeros(SIZE, bool))}, SIZE, 1).mask is None


@pytest.mark.parametrize(
    "value",
    [
        {"points": [[math.nan, 0, 1]]},
        {"points": [[2, 0, 1]]},
        {"points": [[0.5, 0.5, 3]]},
        {"points": [["0.5", 0.5, 1]]},
        {"points": "no list"},
        {"points": [[0.1, 0.1, 1]] * 1000},
        {"mask": 3},
        {"mask": "data:image/svg+xml;base64,PHN2Zz4="},
        {"mask": "data:image/png;base64,%%%"},
        {"mask": "data:image/png;base64," + base64.b64encode(b"no png").decode()},
        {"mask": painted(np.ones((1, 2000), bool))},
        {"mask": painted(np.ones(SIZE, bool), mode="RGB")},
        {"mask": "/etc/passwd"},
    ],
)
def test_what_the_page_never_sends_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match=r"taken|again"):
        read_marks({"number": 1, **value}, SIZE, 1)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["points", "mask", "number"]), inner)
        ),
        max_leaves=12,
    )
)
def test_anything_else_gives_marks_or_a_sentence(value: object) -> None:
    sent = {**value, "number": 1} if isinstance(value, dict) else value
    with suppress(RefusedError):
        assert isinstance(read_marks(sent, SIZE, 1), Marks)


# ---- Visits ----


def test_visitors_have_their_own_things_until_they_leave(tmp_path: Path) -> None:
    visits = Visits(tmp_path / "visits")
    one, two = visits.visit("one"), visits.visit("two")
    assert one.folder != two.folder
    assert visits.visit("one") is one
    one.place("picture", picture(*SIZE))
    with pytest.raises(RefusedError, match="no picture yet"):
        two.placed("picture", "picture")
    (one.folder / "file").write_text("mine")
    both, mine, page = (tmp_path / name for name in ("both.png", "mine.png", "page.png"))
    for path in (both, mine, page):
        path.write_text("upload")
    visits.keep([page])
    one.uploads |= {both, mine, page}
    two.uploads.add(both)
    visits.leave("one")
    visits.leave("one")
    assert (one.folder.exists(), mine.exists(), both.exists(), len(visits)) == (False, False, True, 1)
    visits.close()
    assert not (tmp_path / "visits").exists()
    assert (both.exists(), page.exists()) == (False, True)


def test_a_folder_that_is_named_as_an_upload_stops_nothing(tmp_path: Path) -> None:
    visits = Visits(tmp_path / "visits")
    visits.visit("one").uploads |= {tmp_path, tmp_path / "gone.png"}
    visits.leave("one")
    assert (len(visits), tmp_path.is_dir()) == (0, True)


def test_a_session_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="load the page again"):
        Visits(tmp_path).visit(None)


def test_who_does_nothing_is_forgotten(tmp_path: Path) -> None:
    now = [0.0]
    visits = Visits(tmp_path, most=2, keep_seconds=10, clock=lambda: now[0])
    folder = visits.visit("one").folder
    now[0] = 6.0
    visits.visit("two")
    now[0] = 11.0
    visits.expire()
    assert (len(visits), folder.exists()) == (1, False)
    visits.visit("three")
    visits.visit("four")
    assert len(visits) == 2


def test_what_is_written_for_one_who_has_left_goes_too(tmp_path: Path) -> None:
    visits = Visits(tmp_path)
    visit, other = visits.visit("one"), visits.visit("two")
    (path,) = visit.write("found", [picture(*SIZE)])
    assert Path(path).parent.parent == visit.folder
    visit.write("found", [picture(*SIZE)])
    assert not Path(path).exists(), "the answer before is gone"
    visits.leave("one")
    with pytest.raises(RefusedError, match="has ended"):
        visit.write("found", [picture(*SIZE)])
    visit.folder.mkdir()
    visits.expire()
    assert list(tmp_path.iterdir()) == [other.folder]


def test_another_picture_at_the_same_place_has_another_number(tmp_path: Path) -> None:
    visit = Visits(tmp_path).visit("one")
    assert visit.place("picture", picture(*SIZE)).number != visit.place("picture", picture(*SIZE)).number


# ---- Answers ----


@pytest.fixture(scope="module")
def asked() -> Asked:
    model = tiny_model().eval()
    return Asked(model, "SamRef", {"PerSAM": Persam(model.sam)})


def test_everything_that_is_given_is_asked(asked: Asked) -> None:
    image, mask = picture(*SIZE), disc(*SIZE)
    points = Marks([(40.0, 30.0)], [1])
    for references in (
        {"sentence": "a disc", "marks": Marks(), "examples": []},
        {"sentence": None, "marks": points, "examples": []},
        {"sentence": None, "marks": Marks(), "examples": [(image, mask)]},
        {"sentence": "a disc", "marks": points, "examples": [(image, mask)]},
    ):
        found = asked.segment(image, **references)  # type: ignore[arg-type]
        assert found.overlay.shape == (*SIZE, 3)
        assert (found.mask.shape, found.mask.dtype) == ((*SIZE, 3), np.uint8)
        assert found.found == bool(found.mask.any())
    with pytest.raises(RefusedError, match="Say what to find"):
        asked.segment(image, sentence=None, marks=Marks(), examples=[])


def test_a_model_that_cannot_be_asked_so_says_it(tmp_path: Path) -> None:
    asked = Asked(tiny_refsam().eval(), "RefSam")
    image, mask = picture(*SIZE), disc(*SIZE)
    with pytest.raises(RefusedError, match="give a sentence alone"):
        asked.segment(image, sentence=None, marks=Marks(), examples=[(image, mask)])
    write_video(tmp_path / "clip.mp4", [picture(64, 96)] * 2, frames_per_second=5)
    (tmp_path / "visit").mkdir()
    video = checked_video(tmp_path / "clip.mp4", tmp_path / "visit", Limits())
    with pytest.raises(RefusedError, match="give a sentence alone"):
        follow(asked, video, [VideoObject(1, 0, disc(64, 96), None)], tmp_path / "followed")


def test_a_sentence_in_another_script_is_refused(asked: Asked) -> None:
    image, told = picture(*SIZE), "The model's text encoder knows no word of 'красная звезда'"
    with pytest.raises(RefusedError, match=told):
        asked.segment(image, sentence="красная звезда", marks=Marks(), examples=[])
    with pytest.raises(RefusedError, match=told):
        asked.compare(image, sentence="красная звезда", marks=Marks(), examples=[(image, disc(*SIZE))])


def test_a_mask_by_paint_or_by_clicks(asked: Asked) -> None:
    image, mask = picture(*SIZE), disc(*SIZE)
    assert asked.mask_at(image, Marks(mask=mask)) is mask
    assert asked.mask_at(image, Marks()) is None
    wanted = asked.model.segment(image, points=[(40.0, 30.0)]).mask
    try:
        got = asked.mask_at(image, Marks([(40.0, 30.0)], [1]))
    except RefusedError:
        assert not wanted.any()
    else:
        assert np.array_equal(got, wanted)


def test_methods_side_by_side(asked: Asked) -> None:
    image, mask = picture(*SIZE), disc(*SIZE)
    answers = asked.compare(
        image, sentence="a disc", marks=Marks([(40.0, 30.0)], [1]), examples=[(picture(*SIZE, 3), mask)]
    )
    titles = [answer.caption.split(",")[0] for answer in answers]
    assert titles == ["SamRef", "PerSAM", "SamRef", "plain SAM"]
    with pytest.raises(RefusedError, match="what to compare by"):
        asked.compare(image, sentence=None, marks=Marks(), examples=[])


def test_words_that_the_packaged_model_never_saw_are_named() -> None:
    asked = Asked(tiny_model().eval(), "SamRef", vocabulary=vocabulary())
    assert asked.strange_words("the purple dog and the Dog") == ["dog"] or "dog" in asked.strange_words(
        "the purple dog"
    )
    assert asked.strange_words(None) == []
    found = asked.segment(picture(*SIZE), sentence="the dog", marks=Marks(), examples=[])
    assert "does not know: dog" in found.caption


# ---- Tracks ----


def test_objects_join_and_files_come_out(asked: Asked, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", [picture(*SIZE, n) for n in range(4)], frames_per_second=5)
    visit = Visits(tmp_path / "visits").visit("one")
    visit.video = checked_video(tmp_path / "clip.mp4", visit.fresh_folder("video"), Limits())
    with pytest.raises(RefusedError, match="Paint or click"):
        next_object(visit, Limits(), 0, None, None)
    next_object(visit, Limits(), 0, disc(*SIZE, center=(0.3, 0.3)), None)
    next_object(visit, Limits(), 2, disc(*SIZE, center=(0.7, 0.7)), None)
    next_object(visit, Limits(), 1, None, "the disc")
    with pytest.raises(RefusedError, match="At most 3 objects"):
        next_object(visit, Limits(objects=3), 0, None, "one more")
    told: list[tuple[int, int]] = []
    followed = follow(
        asked, visit.video, visit.objects, visit.fresh_folder("followed"), lambda *done: told.append(done)
    )
    assert told == [(n, 4) for n in (1, 2, 3, 4)]
    assert followed.frames == 4
    with zipfile.ZipFile(followed.masks) as archive:
        assert archive.namelist() == [f"masks/{n:05d}.png" for n in range(4)]
        joined = np.asarray(PILImage.open(io.BytesIO(archive.read("masks/00002.png"))))
    assert 2 in joined
    coco = json.loads(followed.rle.read_text())
    assert len(coco["images"]) == 4
    assert {"id": 3, "name": "the disc"} in coco["categories"]
    assert followed.overlay.stat().st_size > 0
    assert all(file.is_relative_to(visit.folder) for file in (followed.overlay, followed.masks, followed.rle))
    with pytest.raises(RefusedError, match="at least one object"):
        follow(asked, visit.video, [], visit.folder)


def test_a_second_folder_takes_the_place_of_the_first(tmp_path: Path) -> None:
    visit = Visits(tmp_path).visit("one")
    first, other = visit.fresh_folder("followed"), visit.fresh_folder("video")
    (first / "overlay.mp4").write_text("old")
    second = visit.fresh_folder("followed")
    assert (first.exists(), second.exists(), other.exists()) == (False, True, True)
    assert first != second


# ---- Samples ----


def test_the_packaged_model_answers_the_samples(tmp_path: Path) -> None:
    model = SamRef.from_pretrained("tiny").eval()
    asked = Asked(model, "SamRef", {}, vocabulary())
    kinds = set()
    for sample in picture_samples():
        height, width = sample.picture.shape[:2]
        points = [] if sample.point is None else [(sample.point[0] * width, sample.point[1] * height)]
        marks = Marks(points, [1] * len(points))
        examples = [sample.example] if sample.example else []
        found = asked.segment(sample.picture, sentence=sample.sentence, marks=marks, examples=examples)
        assert found.found
        assert "does not know" not in found.caption
        kinds.add((sample.sentence is not None, bool(points), bool(examples)))
    assert len(kinds) == 3
    assert len(example_samples()) >= 2
    visit = Visits(tmp_path / "visits").visit("one")
    for clip in clip_samples():
        assert (clip.mask is None) != (clip.sentence is None)
        video = checked_video(clip.write(tmp_path / "clip.mp4"), visit.fresh_folder("video"), Limits())
        assert len(video.previews) == len(clip.frames)

"""Whatever is typed and whatever is in the files: exit code 0 or 2, no traceback, nothing outside the folder.

``SAM_UNIREF_FUZZ`` is the number of command lines, 60 by default; ``make test-fuzz`` takes 500.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command import run, save_ids
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from tiny import disc, picture
from videos import encode_video

from sam_uniref import SamRef
from sam_uniref.loading import load_for_use

EXAMPLES = int(os.environ.get("SAM_UNIREF_FUZZ", "60"))
HEIGHT, WIDTH = 24, 32
FUZZED = settings(
    max_examples=max(1, EXAMPLES // 3),  # three tests share them
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")

# ---- What files hold ----


def picture_bytes(kind: str) -> bytes:
    """A small good picture."""
    file = io.BytesIO()
    PILImage.fromarray(picture(HEIGHT, WIDTH)).save(file, format=kind)
    return file.getvalue()


def hostile_files() -> list[bytes]:
    """Made by hand: a bomb, a moving picture, text, nothing, odd modes and sizes."""
    made = [
        b"",
        b"\0",
        b"hello, this is text\n",
        b"<svg onload='alert(1)'/>",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a\xff\xff\xff\xff",
    ]
    header = bytearray(picture_bytes("PNG"))
    header[16:24] = (30_000).to_bytes(4, "big") * 2
    made.append(bytes(header))
    for mode, size in (("1", (9, 7)), ("LA", (5, 5)), ("CMYK", (6, 6)), ("I;16", (8, 8)), ("P", (1, 1)), ("F", (3, 3))):
        file = io.BytesIO()
        PILImage.new(mode, size).save(file, format="TIFF")
        made.append(file.getvalue())
    moving = io.BytesIO()
    frames = [PILImage.new("RGB", (20, 20), (shade, 0, 0)) for shade in (0, 99, 200)]
    frames[0].save(moving, format="GIF", save_all=True, append_images=frames[1:])
    return [*made, moving.getvalue()]


@st.composite
def broken(draw: st.DrawFn, whole: list[bytes]) -> bytes:
    """A file as it is, cut off, with flipped bits, or with something put in; or one that is hostile."""
    content = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(0, 2))):
        how = draw(st.sampled_from(("cut", "flip", "insert", "overwrite")))
        place = draw(st.integers(0, max(0, len(content) - 1)))
        if how == "cut":
            del content[place:]
        elif how == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif how == "insert":
            content[place:place] = draw(st.binary(max_size=40))
        else:
            patch = draw(st.binary(max_size=8))
            content[place : place + len(patch)] = patch
    return bytes(content)


FUZZED_PICTURES = broken([picture_bytes(kind) for kind in FORMATS] + hostile_files())

# ---- What is typed ----

NUMBERS = st.sampled_from(
    ("0", "-1", "3", "1e9", "nan", "inf", "x", "", "٣", "2,3", "1,2,3,4", "16,12", "5,5,1,1", ",", "1e400,2")
)
TEXTS = st.one_of(
    st.sampled_from(
        (
            *("a red star", "the biggest blue circle", "", "   ", "красная звезда", "赤い星", "a star. a blue circle."),
            *("x" * 5000, "a red star\nthe blue one", "\u202ered", "\0", "\ud800", "--text", "💥", "star " * 300),
        )
    ),
    st.text(max_size=30),
)
PLACES = st.sampled_from(
    (
        "fuzzed.png",
        "good.png",
        "mask.png",
        "zero.png",
        "pictures",
        "pictures/*",
        "*.png",
        "[",
        "gone.png",
        "clip.mp4",
        "frames",
        ".",
    )
)
NAMES = st.one_of(PLACES, st.text(max_size=12).filter(lambda name: "/" not in name and ".." not in name))
OUTS = st.sampled_from(("out", "out/inner", "good.png", "good.png/x", "pictures", ".", "o\nut", "%s", "[out]"))


def options(**kinds: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    """Any of some options, in any order, any number of times."""
    one = st.one_of([st.tuples(st.just(f"--{name.replace('_', '-')}"), value) for name, value in kinds.items()])
    return st.lists(one, max_size=5).map(lambda pairs: [part for pair in pairs for part in pair])


EXAMPLE = st.tuples(PLACES, PLACES).map(":".join) | NAMES
SEGMENT = options(
    text=TEXTS, point=NUMBERS, box=NUMBERS, example=EXAMPLE, reference=NAMES, label=TEXTS, out=OUTS, max_pixels=NUMBERS
)
KINDS = st.lists(st.sampled_from(("png", "palette", "coco", "label-studio", "yolo", "rle", "jpg")), max_size=3)
SWITCHES = st.lists(st.sampled_from(("--json", "-q", "--no-overlay", "--overlay", "--nothing", "--")), max_size=2)
NUMBERED = st.one_of(TEXTS, st.tuples(NUMBERS, TEXTS | PLACES).map(":".join), TEXTS.map(lambda text: f"1:{text}"))
TRACK = options(
    masks=PLACES,
    new_mask=NUMBERED,
    text=NUMBERED,
    name=NUMBERED,
    out=OUTS,
    overlay=st.sampled_from(("out.mp4", "out/a.mp4", "clip.mp4", "a.avi", "good.png")),
    rle=st.sampled_from(("out.json", "out/a.json", "a.txt")),
    score_threshold=NUMBERS,
    frames_per_second=NUMBERS,
    frame_references=st.sampled_from(("both", "none", "first", "last")),
)
COMMANDS = st.sampled_from(
    (
        "segment",
        "track",
        "encode",
        "convert",
        "cache",
        "train",
        "compare",
        "data",
        "data prepare",
        "data show",
        "data check",
        "inof",
    )
)

# ---- What must hold ----


@pytest.fixture(scope="module")
def model() -> SamRef:
    return SamRef.from_pretrained("tiny", image_size=64).eval()  # type: ignore[return-value]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return encode_video(path, [picture(HEIGHT, WIDTH, frame) for frame in range(3)]).read_bytes()


@pytest.fixture
def inside(model: SamRef, clip: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, in one in which nothing may change; the packaged model is loaded once, and small."""

    def load(folder: str, checkpoint: object, device: object, image_size: object = None) -> object:
        given = (folder, checkpoint, image_size) == ("tiny", None, None)
        return model if given else load_for_use(folder, checkpoint, device, image_size)  # type: ignore[arg-type]

    monkeypatch.setattr("sam_uniref.loading.load_for_use", load)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (tmp_path / "canary.png").write_bytes(picture_bytes("PNG"))
    yield work
    assert sorted(path.name for path in tmp_path.iterdir()) == ["canary.png", "work"]
    assert (tmp_path / "canary.png").read_bytes() == picture_bytes("PNG")


def refill(work: Path, clip: bytes, fuzzed: bytes = b"") -> None:
    """The files that are asked about, as they were."""
    import shutil

    for path in work.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (work / "fuzzed.png").write_bytes(fuzzed)
    (work / "good.png").write_bytes(picture_bytes("PNG"))
    (work / "clip.mp4").write_bytes(clip)
    save_ids(work / "mask.png", {1: disc(HEIGHT, WIDTH)})
    save_ids(work / "zero.png", {1: np.zeros((HEIGHT, WIDTH), np.bool_)})
    for name in ("pictures/a.png", "frames/0.png", "frames/1.jpg"):
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_bytes(picture_bytes("PNG"))


def assert_fair(line: list[str], work: Path) -> int:
    """Run it; the exit code, after a look at what it said and left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = run(*line)
    said = f"{line}: {result.exit_code} {result.exception!r}\n{result.output}"
    assert result.exception is None or isinstance(result.exception, SystemExit), said
    breaks_off = result.exit_code == 1 and "breaks off at frame" in result.stderr
    assert result.exit_code in (0, 2) or breaks_off, said
    assert "Traceback" not in result.output, said
    errors = [text for text in result.stderr.splitlines() if text.startswith("error: ")]
    assert bool(errors) == (result.exit_code != 0), said
    left = [path for path in work.rglob("*") if path.name.startswith(".")]
    assert left == [], said
    for path in (work / "out").rglob("*.png"):
        PILImage.open(path).load()
    event(f"exit code {result.exit_code}")
    return result.exit_code


def test_good_lines_are_let_through(inside: Path, clip: bytes) -> None:
    """Or the others would say nothing."""
    refill(inside, clip, picture_bytes("PNG"))
    example = ["--example", "fuzzed.png:mask.png"]
    lines = [
        ["encode", *example, "--out", "shape.safetensors"],
        ["segment", "pictures", "fuzzed.png", "--reference", "shape.safetensors", "--out", "out", "--format", "coco"],
        ["track", "clip.mp4", "--masks", "mask.png", "--out", "out/inner"],
    ]
    for line in lines:
        result = run(*line)
        assert result.exit_code == 0, result.output
    assert len(list((inside / "out").rglob("*.png"))) == 2 + 3


@FUZZED
@given(st.data())
def test_pictures_and_masks(inside: Path, clip: bytes, data: st.DataObject) -> None:
    refill(inside, clip, data.draw(FUZZED_PICTURES))
    kinds = [part for kind in data.draw(KINDS) for part in ("--format", kind)]
    asked = data.draw(
        st.sampled_from((["--text", "a red star"], ["--point", "9,9"], ["--example", "good.png:fuzzed.png"]))
    )
    command = data.draw(st.sampled_from(("segment", "encode")))
    if command == "segment":
        line = ["segment", *data.draw(st.lists(PLACES, min_size=1, max_size=3)), *asked, *kinds]
    else:
        line = ["encode", "--out", "out/reference.safetensors", "--example", data.draw(EXAMPLE), *asked]
    assert_fair([*line, *data.draw(SEGMENT), *data.draw(SWITCHES)], inside)


@FUZZED
@given(st.data())
def test_videos(inside: Path, clip: bytes, data: st.DataObject) -> None:
    refill(inside, data.draw(broken([clip, b"", b"text", clip[:300], *hostile_files()])), data.draw(FUZZED_PICTURES))
    masks = data.draw(
        st.sampled_from((["--masks", "mask.png"], ["--masks", "fuzzed.png"], ["--text", "1:a red star"], []))
    )
    source = data.draw(st.sampled_from(("clip.mp4", "clip.mp4", "frames", "fuzzed.png", "*.png", "gone.mp4", "999")))
    assert_fair(["track", source, "--out", "out", *masks, *data.draw(TRACK), *data.draw(SWITCHES)], inside)


@FUZZED
@given(st.data())
def test_anything_typed(inside: Path, clip: bytes, data: st.DataObject) -> None:
    refill(inside, clip)
    words = data.draw(st.lists(st.one_of(NAMES, TEXTS, NUMBERS, st.text(max_size=5)), max_size=4))
    more = data.draw(
        options(out=OUTS, model=NAMES, device=NAMES, data=NAMES, root=NAMES, image_size=NUMBERS, split=NAMES)
    )
    assert_fair([*data.draw(COMMANDS).split(), *words, *more, *data.draw(SWITCHES)], inside)

"""RefCOCO, RefCOCO+, RefCOCOg, and the pickles that they come in."""

from __future__ import annotations

import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from downloads import (
    annotation,
    coco_file,
    cut_off,
    filled,
    image_entry,
    mask_of,
    prepared,
    square,
    write_json,
    write_picture,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_uniref.data.formats import named_format
from sam_uniref.data.formats.safe_pickle import load_plain_pickle
from sam_uniref.data.refshapes import RefShapesDataset, export

NAMES = {
    "refcoco": ("refcoco", "refs(unc).p"),
    "refcoco+": ("refcoco+", "refs(unc).p"),
    "refcocog": ("refcocog", "refs(umd).p"),
    "refcoco_google": ("refcoco", "refs(google).p"),
    "refcocog_google": ("refcocog", "refs(google).p"),
}
PICTURES = "images/mscoco/images/train2014"


def ref(number: int, ann_id: int, *texts: str, split: str = "val", image_id: int = 1, **more: Any) -> dict[str, Any]:
    sentences = [{"sent_id": k, "raw": text.upper(), "sent": text, "tokens": []} for k, text in enumerate(texts)]
    return {"ref_id": number, "ann_id": ann_id, "image_id": image_id, "split": split, "sentences": sentences, **more}


def make(root: Path, refs: list[dict[str, Any]], name: str = "refcoco", pictures: str = PICTURES) -> Path:
    """Two pictures with two objects each, the second pair of them broken."""
    folder, file = NAMES[name]
    images = [image_entry(k, f"COCO_train2014_{k:012d}.jpg") for k in (1, 2)]
    objects = [annotation(10 * k + j, k, [square(5 * j, k)]) for k in (1, 2) for j in (1, 2)]
    objects.append(annotation(30, 77, [square(0, 0)]))
    objects.append(annotation(31, 1, {"size": [20, 30], "counts": [0, 600]}, iscrowd=1))
    write_json(root / folder / "instances.json", coco_file(images, objects))
    (root / folder / file).write_bytes(pickle.dumps(refs, protocol=2))
    for image in images:
        write_picture(root / pictures / image["file_name"])
    return root


def test_refshapes_come_back(tmp_path: Path) -> None:
    root = export("refcoco", tmp_path, 3, side=48)
    drawn = RefShapesDataset("r", "ris", side=48, episodes=6)
    assert named_format("refcoco").splits(root) == ("train", "val")
    target = 0
    for split, stream, first in (("train", "train", 0), ("val", "validation", 3)):
        rows, problems = prepared("refcoco", root, split)
        assert not problems
        expected = []
        for index in range(3):
            named = drawn.scene_sentences(index, stream)  # type: ignore[arg-type]
            for number, item in enumerate(drawn.scene(index, stream).objects, start=1):  # type: ignore[arg-type]
                said = [text for k, text in named.sentences if k == number]
                if said:
                    expected.append((first + index + 1, item.shape, said, named.ids == number))
        assert len(rows) == len(expected) > 5
        for row, (image_id, category, said, mask) in zip(rows, expected, strict=True):
            target += 1
            assert (row["target"], row["coco_id"], row["category"]) == (str(target), image_id, category)
            assert row["sentences"] == said
            assert row["image"] == f"{PICTURES}/COCO_train2014_{image_id:012d}.jpg"
            np.testing.assert_array_equal(mask_of(row), mask)


@pytest.mark.parametrize("name", NAMES)
def test_every_partition_reads_its_own_file(tmp_path: Path, name: str) -> None:
    root = make(tmp_path / "data", [ref(4, 12, "the cat", " left one "), ref(3, 11, "me", split="test")], name)
    layout = named_format(name)
    assert layout.splits(root) == ("val", "test")
    rows, problems = prepared(name, root, "val")
    assert not problems
    assert [(r["target"], r["sentences"], r["coco_id"]) for r in rows] == [("4", ["the cat", "left one"], 1)]
    np.testing.assert_array_equal(mask_of(rows[0]), filled((10, 1, 4, 4)))
    for other in set(NAMES) - {name}:
        with pytest.raises(FileNotFoundError, match=r"instances\.json and images/mscoco/images/train2014/"):
            named_format(other).splits(root)


@pytest.mark.parametrize("pictures", ["train2014", "images/train2014"])
def test_other_places_of_the_pictures(tmp_path: Path, pictures: str) -> None:
    root = tmp_path / "sets" / "data"
    root.mkdir(parents=True)
    make(root, [ref(1, 11, "a")], pictures=pictures)
    rows, problems = prepared("refcoco", root, "val")
    assert not problems
    assert rows[0]["image"] == f"{pictures}/COCO_train2014_000000000001.jpg"
    assert (root / rows[0]["image"]).is_file()


def test_two_refs_of_an_object_and_a_group(tmp_path: Path) -> None:
    refs = [ref(1, 11, "a"), ref(2, 11, "b"), ref(3, 31, "all of them")]
    rows, problems = prepared("refcoco", make(tmp_path / "data", refs), "val")
    assert not problems
    assert [(r["target"], r["sentences"]) for r in rows] == [("1", ["a"]), ("2", ["b"]), ("3", ["all of them"])]
    assert mask_of(rows[2]).all()


def test_every_bad_ref_is_counted(tmp_path: Path) -> None:
    refs = [
        ref(1, 11, "good"),
        ref(1, 12, "its id again"),
        ref(2, 99, "of no object"),
        ref(3, 30, "of an object in no picture"),
        ref(4, 12),
        ref(5, 12, " "),
        ref(6, 12, "of another picture", image_id=2),
        ref(7, 21, "of a cut-off picture", image_id=2),
        ref(99, 99, "of another split", split="train"),
    ]
    root = make(tmp_path / "data", refs)
    cut_off(root / PICTURES / "COCO_train2014_000000000002.jpg")
    rows, problems = prepared("refcoco", root, "val")
    assert [r["target"] for r in rows] == ["1"]
    assert problems == {
        ("broken", "ref id that stands twice"): 1,
        ("broken", "annotation of an unknown picture id"): 1,
        ("broken", "ref without a sound object in instances.json"): 2,
        ("broken", "ref without a sentence"): 2,
        ("broken", "ref and its object are of two pictures"): 1,
        ("broken", "broken or cut-off picture"): 1,
    }


@pytest.mark.parametrize(
    "content",
    [
        {"refs": []},
        [{"ref_id": 1}],
        [ref(1, 11, "a", split="../../escape")],
        [ref(1, 11, "a") | {"ann_id": "11"}],
        [ref(1, 11, "a") | {"sentences": "a"}],
        [ref(1, 11, "a") | {"sentences": [{"raw": "a"}]}],
        [3],
        None,
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    root = make(tmp_path / "data", content)
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p is no list of refs with .* another release's"):
        named_format("refcoco").splits(root)


# ---- pickles ----

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=10,
)


@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL), st.data())
@settings(max_examples=50, deadline=None)
def test_plain_pickles_are_read_and_cut_off_ones_refused(
    tmp_path_factory: pytest.TempPathFactory, content: Any, protocol: int, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.p"
    written = pickle.dumps(content, protocol)
    path.write_bytes(written)
    assert load_plain_pickle(path) == content
    path.write_bytes(written[: data.draw(st.integers(0, len(written) - 1))])
    with pytest.raises(ValueError, match=r"plain\.p is no whole pickle \(.*\); download it again"):
        load_plain_pickle(path)


def test_strings_of_python_2_are_read(tmp_path: Path) -> None:
    # What Python 2 wrote for [{'sent': 'caf\xe9', 'id': 3L}], protocols 2 and 0.
    (tmp_path / "new.p").write_bytes(b"\x80\x02]q\x00}q\x01(U\x04sentU\x04caf\xe9U\x02id\x8a\x01\x03ua.")
    (tmp_path / "old.p").write_bytes(b"(lp0\n(dp1\nS'sent'\nS'caf\\xe9'\nsS'id'\nL3L\nsa.")
    for name in ("new.p", "old.p"):
        assert load_plain_pickle(tmp_path / name) == [{"sent": "café", "id": 3}]


class Hostile:
    """Pickled, it is a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "touched"
    root = make(tmp_path / "data", [ref(1, 11, "a", extra=Hostile(os.system, f"touch {victim}"))])
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p asks for posix\.system, .*nothing of it was run"):
        prepared("refcoco", root, "val")
    assert not victim.exists()
    # The file is one that would do harm.
    pickle.loads((root / "refcoco" / "refs(unc).p").read_bytes())  # noqa: S301
    assert victim.exists()


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        (Hostile(eval, "1"), "eval"),
        (Hostile(getattr, "a", "upper"), "getattr"),
        (Path("a"), "Path"),
        (np.zeros(3), "numpy"),
        (np.float64(1), "numpy"),
        ({1, 2}, "set"),
        (len, "len"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2])
def test_all_that_is_not_plain_is_refused(tmp_path: Path, content: Any, asked: str, protocol: int) -> None:
    path = tmp_path / "a.p"
    path.write_bytes(pickle.dumps([content], protocol))
    with pytest.raises(ValueError, match=rf"a\.p asks for [\w.]*{asked}"):
        load_plain_pickle(path)


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # GLOBAL and REDUCE
        b"(S'true'\nios\nsystem\n.",  # INST
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",  # STACK_GLOBAL
        b"\x80\x02cbuiltins\neval\nU\x011\x85\x81.",  # NEWOBJ
    ],
)
def test_every_way_to_ask_is_refused(tmp_path: Path, program: bytes) -> None:
    pickletools.dis(program, out=(tmp_path / "listing").open("w"))  # a sound program
    (tmp_path / "a.p").write_bytes(program)
    with pytest.raises(ValueError, match=r"asks for (os\.system|builtins\.eval)"):
        load_plain_pickle(tmp_path / "a.p")


def test_outside_objects_and_extensions_are_refused(tmp_path: Path) -> None:
    for program in (b"Pname\n.", b"\x80\x02U\x04nameQ."):
        (tmp_path / "a.p").write_bytes(program)
        with pytest.raises(ValueError, match="asks for the outside object 'name'"):
            load_plain_pickle(tmp_path / "a.p")
    (tmp_path / "a.p").write_bytes(b"\x80\x02\x82\x01.")
    with pytest.raises(ValueError, match="is no whole pickle"):
        load_plain_pickle(tmp_path / "a.p")
    with pytest.raises(FileNotFoundError, match="there is no"):
        load_plain_pickle(tmp_path / "none.p")

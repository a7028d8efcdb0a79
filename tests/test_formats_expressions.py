"""COCO-shaped files with expressions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from downloads import annotation, coco_file, filled, image_entry, mask_of, prepared, square, write_json, write_picture

from sam_uniref.data.formats import FORMATS, named_format


@pytest.mark.parametrize("files", ["", "annotations"])
@pytest.mark.parametrize("pictures", ["images", ""])
def test_expressions_of_objects(tmp_path: Path, files: str, pictures: str) -> None:
    root = tmp_path / "root"
    objects = [
        annotation(1, 1, [square(0, 0)], expressions=["the left cat", " a cat ", ""]),
        annotation(2, 1, [square(9, 0)], expressions=["the right cat"]),
        annotation(3, 1, [square(9, 9)]),
        annotation(4, 1, [square(9, 9)], expressions=["", " "]),
    ]
    write_json(root / files / "mine.json", coco_file([image_entry(1, "sub/a.jpg")], objects))
    write_json(root / files / "other.json", {})
    write_picture(root / pictures / "sub" / "a.jpg")
    assert named_format("coco_expressions").splits(root) == ("mine", "other")
    rows, problems = prepared("coco_expressions", root, "mine")
    assert problems == {("by rule", "object without expressions"): 2, ("mended", "empty sentence, left out"): 1}
    assert [(r["target"], r["sentences"]) for r in rows] == [
        ("1", ["the left cat", "a cat"]),
        ("2", ["the right cat"]),
    ]
    assert {r["image"] for r in rows} == {str(Path(pictures, "sub/a.jpg"))}
    np.testing.assert_array_equal(mask_of(rows[1]), filled((9, 0, 4, 4)))
    with pytest.raises(ValueError, match=r"other\.json has nothing in its images"):
        prepared("coco_expressions", root, "other")


def test_expressions_of_pictures(tmp_path: Path) -> None:
    root = tmp_path / "root"
    name = "COCO_train2014_000000000581.jpg"
    images = [image_entry(1, name, expressions=["one"]), image_entry(2, name, expressions=["two", "2"])]
    images += [image_entry(3, name, expressions=["three"]), image_entry(4, name, expressions="four")]
    objects = [annotation(10 * k, k, [square(k, 0)]) for k in (1, 2, 3, 4)]
    objects += [annotation(31, 3, [square(0, 0)]), annotation(32, 3, [square(0, 0)], expressions=["its own"])]
    write_json(root / "train.json", coco_file(images, objects))
    write_picture(root / "images" / name)
    rows, problems = prepared("coco_expressions", root, "train")
    assert [(r["target"], r["sentences"]) for r in rows] == [
        ("10", ["one"]),
        ("20", ["two", "2"]),
        ("30", ["three"]),
        ("32", ["its own"]),
    ]
    assert {r["coco_id"] for r in rows} == {581}
    assert problems == {
        ("broken", "second object of a picture whose expressions mean one"): 1,
        ("broken", "expressions that are no list of sentences"): 1,
    }


def test_of_two_places_one_goes_first(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for split in ("a", "z"):
        objects = [annotation(1, 1, [square(0, 0)], expressions=["it"])]
        write_json(root / f"{split}.json", coco_file([image_entry(1, "1.jpg")], objects))
        write_json(root / "annotations" / f"{split}.json", {})
    write_picture(root / "1.jpg")
    write_picture(root / "images" / "1.jpg")
    for split in named_format("coco_expressions").splits(root):
        rows, problems = prepared("coco_expressions", root, split)
        assert not problems
        assert [r["image"] for r in rows] == ["images/1.jpg"]


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "..\\secret.jpg", ""])
def test_a_path_that_climbs_out_is_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    image = image_entry(1) | {"file_name": name}
    write_json(root / "train.json", coco_file([image], [annotation(1, 1, [square(0, 0)], expressions=["a"])]))
    write_picture(tmp_path / "secret.jpg")
    rows, problems = prepared("coco_expressions", root, "train")
    assert not rows
    assert problems == {("broken", "path leaves the folder"): 1}


def test_a_name_no_system_takes_is_counted(tmp_path: Path) -> None:
    root = tmp_path / "root"
    images = [image_entry(1, "x" * 5000), image_entry(2, "a\0b.jpg")]
    objects = [annotation(k, k, [square(0, 0)], expressions=["a"]) for k in (1, 2)]
    write_json(root / "train.json", coco_file(images, objects))
    assert prepared("coco_expressions", root, "train")[1] == {("broken", "broken or cut-off picture"): 2}


def test_every_image_reader_is_registered() -> None:
    names = {name for name, layout in FORMATS.items() if layout.table == "images"}
    assert names >= {
        "coco",
        "refcoco",
        "refcoco+",
        "refcocog",
        "refcoco_google",
        "refcocog_google",
        "fss1000",
        "objects365",
        "visual_genome",
        "coco_expressions",
    }
    with pytest.raises(ValueError, match="did you mean 'refcocog'"):
        named_format("refcocogg")

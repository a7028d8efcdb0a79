"""Views of pictures as a list: what training sees is in it, and nothing has an end that has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders import make_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import disc, picture

from sam_uniref.cache.features import picture_key
from sam_uniref.data import Augmentation, SourceOptions, open_source
from sam_uniref.data.detection import DetectionDataset
from sam_uniref.data.refshapes import RefShapesDataset
from sam_uniref.data.shown import check_listed, shown_pictures

TASKS = ("ris", "fss", "vos", "rvos")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"))


# ---- One picture ----


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    views=st.integers(0, 4),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    crop=st.sampled_from([0.0, 0.5, 1.0]),
    may_crop=st.booleans(),
    sides=st.sampled_from([None, (20, 40)]),
)
def test_every_draw_is_in_the_list(
    seed: int, views: int, flip: float, crop: float, may_crop: bool, sides: tuple[int, int] | None
) -> None:
    augmentation = Augmentation(flip=flip, crop=crop if views else 0.0, views=views, crop_sides=sides)
    image, mask = picture(40, 60), disc(40, 60)
    listed = augmentation.listed(image)
    drawn, marked, _ = augmentation(image, mask, np.random.default_rng(seed), may_crop=may_crop)
    assert any(np.array_equal(drawn, view) for view in listed)
    assert marked.sum() >= augmentation.keep * mask.sum()
    assert len(listed) == augmentation.most_views
    assert np.array_equal(listed[0], image)


def test_all_of_the_list_is_drawn() -> None:
    augmentation = Augmentation(views=3, keep=0.0)
    image, mask = picture(40, 60), disc(40, 60)
    draws = {picture_key(augmentation(image, mask, np.random.default_rng(seed))[0]) for seed in range(200)}
    assert draws == {picture_key(view) for view in augmentation.listed(image)}
    assert len(draws) == 8


def test_more_views_keep_those_that_there_were() -> None:
    few, many = (Augmentation(flip=0.0, views=views).listed(picture()) for views in (2, 5))
    for view, same in zip(few, many, strict=False):
        np.testing.assert_array_equal(view, same)
    others = Augmentation(flip=0.0, views=2).listed(picture(seed=1))
    assert [view.shape for view in others[1:]] != [view.shape for view in few[1:]]  # by what is on the picture


def test_a_window_that_loses_the_object_is_not_taken() -> None:
    image, mask = picture(40, 60), np.zeros((40, 60), bool)
    mask[0, 0] = True
    augmentation = Augmentation(flip=0.0, crop=1.0, views=2, smallest=0.3)
    assert not any(np.array_equal(view[0, 0], image[0, 0]) for view in augmentation.listed(image)[1:])
    drawn, marked, _ = augmentation(image, mask, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, image)
    assert marked[0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": -1}, "views must be at least 0, got -1"),
        ({"views": 2, "color": 0.3}, "views are flips and crops alone"),
        ({"views": 2, "scale": (0.5, 1.0)}, "views are flips and crops alone"),
    ],
)
def test_bad_views(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


@pytest.mark.parametrize("options", [{}, {"crop": 0.0, "color": 0.1}, {"crop": 0.0, "scale": (0.9, 1.0)}])
def test_what_has_no_end_is_no_list(options: dict) -> None:
    augmentation = Augmentation(**options)
    assert augmentation.most_views is None
    with pytest.raises(ValueError, match="set views"):
        augmentation.listed(picture())


# ---- Data sets ----


def looked_at(source, samples: int) -> set[str]:
    """Keys of what training shows in so many draws of each sample, and of all episodes."""
    drawn = [
        source.sample(index, np.random.default_rng([index, draw]), language_only=bool(draw % 2))
        for index in range(len(source))
        for draw in range(samples)
    ]
    drawn += [source.episode(index) for index in range(source.episodes)]
    if source.can_swap:
        drawn += [source.episode(index, swapped=True) for index in range(source.episodes)]
    images = [image for s in drawn for image in (s.image, *(reference.image for reference in s.references))]
    return {picture_key(image) for image in images}


# Two classes of three pictures, and one clip: nothing of these can be held out.
@pytest.mark.parametrize(("task", "validation"), [*((task, 0.0) for task in TASKS), ("ris", 0.4), ("vos", 0.4)])
@pytest.mark.parametrize("absent", [0.0, 0.3])
def test_a_folder_shows_what_it_lists(folder: Path, task: str, absent: float, validation: float) -> None:
    options = SourceOptions(root=str(folder), views=2, absent=absent, validation=validation)
    source = open_source("folder", "mine", task, options)
    shown = shown_pictures([source])
    listed = {picture_key(view) for picture in shown for view in picture.views()}
    assert looked_at(source, 12) <= listed
    assert len(listed) <= sum(picture.most_views for picture in shown)
    assert len(shown) <= 2 * 10  # 6 of classes, 2 frames, a still, and what is validated


def test_a_picture_of_several_data_sets_is_there_once(folder: Path) -> None:
    options = SourceOptions(root=str(folder), views=2)
    sources = [open_source("folder", task, task, options) for task in TASKS]
    shown = shown_pictures(sources)
    trained = [picture for picture in shown if picture.augmentation == sources[0].augmentation]
    assert len({picture.path for picture in trained}) == len(trained) == 9


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("task", TASKS)
def test_refshapes_shows_what_it_lists(task: str, together: int) -> None:
    source = RefShapesDataset("s", task, side=64, length=4, episodes=2, together=together, shots=2)
    shown = shown_pictures([source])
    views = [picture.views() for picture in shown]
    assert looked_at(source, 2) <= {picture_key(view) for listed in views for view in listed}
    assert all(len(listed) <= picture.most_views for listed, picture in zip(views, shown, strict=True))


def test_what_has_no_end_is_named(folder: Path) -> None:
    source = open_source("folder", "mine", "fss", SourceOptions(root=str(folder)))
    with pytest.raises(ValueError, match=r"data\.mine: its pictures never look the same twice.*data\.mine\.views"):
        check_listed([source])
    check_listed([open_source("folder", "mine", "fss", SourceOptions(root=str(folder), crop=0.0))])


def test_detection_has_nothing_to_cache() -> None:
    with pytest.raises(ValueError, match=r"data\.d: a detector trains its backbone"):
        shown_pictures([RefShapesDataset("d", "detection")])
    detection = DetectionDataset.__new__(DetectionDataset)
    detection.name, detection.task = "d", "detection"
    with pytest.raises(ValueError, match=r"data\.d: there are no features to cache for detection"):
        shown_pictures([detection])


def test_only_refshapes_has_a_length(folder: Path) -> None:
    with pytest.raises(ValueError, match="only refshapes has a length, got 5"):
        open_source("folder", "mine", "fss", SourceOptions(root=str(folder), length=5))
    assert len(open_source("refshapes", "s", "ris", SourceOptions(length=5))) == 5
    assert len(open_source("refshapes", "s", "ris", SourceOptions())) == 1_000_000

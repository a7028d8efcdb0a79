"""Models by the name of their kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sam_uniref.loading import load_for_use
from sam_uniref.models import KINDS, kind_of, model_class
from sam_uniref.trainable import TrainableModel


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_class_that_calls_itself_so(kind: str) -> None:
    found = model_class(kind)
    assert issubclass(found, TrainableModel)
    assert found.config_class.kind == kind


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"samref.*got 'sam'"):
        model_class("sam")


@pytest.mark.parametrize("kind", ["samref", "refsam"])
def test_a_saved_model_is_loaded_as_what_it_is(kind: str, tmp_path: Path) -> None:
    model_class(kind).fresh("tiny", "tiny", "tiny").save_pretrained(tmp_path / "model")
    assert kind_of(tmp_path / "model") == kind
    loaded = load_for_use(tmp_path / "model", None, torch.device("cpu"))
    assert type(loaded) is model_class(kind)
    assert not loaded.training


def test_folders_without_a_model_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no model.*config\.json"):
        kind_of(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="no model's configuration"):
        kind_of(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"kind": "sam3"}))
    with pytest.raises(ValueError, match="got 'sam3'"):
        kind_of(tmp_path)


def test_the_packaged_model_says_what_it_is() -> None:
    assert kind_of("tiny") == "samref"

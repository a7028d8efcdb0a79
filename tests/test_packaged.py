"""The packaged tiny model: loaded by its name, without a network, and good."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import ROOT
from safetensors.torch import load_file
from tiny import picture

from sam_uniref import MaskReference, SamRef
from sam_uniref.data.refshapes import STYLES, VOCABULARY, RefShapesDataset
from sam_uniref.eval.predictor_method import PredictorMethod
from sam_uniref.eval.refshapes_protocol import PROTOCOLS
from sam_uniref.packaged import PACKAGED, base_checkpoint, model_folder, text_encoder
from sam_uniref.state import file_sha256
from sam_uniref.train.package_tiny import package

FOLDER = ROOT / "sam_uniref" / "pretrained" / "tiny"


@pytest.fixture(scope="module")
def model() -> SamRef:
    return SamRef.from_pretrained("tiny")


def test_it_is_small_and_half_precision() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 12e6
    for path in FOLDER.rglob("*.safetensors"):
        dtypes = {tensor.dtype for tensor in load_file(path).values()}
        assert dtypes <= {torch.float16, torch.int64}, path


def test_only_a_bare_name_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert PACKAGED == ("tiny",)
    assert model_folder("tiny") == FOLDER
    assert (model_folder("./tiny"), model_folder(Path("tiny"))) == (Path("tiny"), Path("tiny"))
    assert base_checkpoint("mine.pth") == Path("mine.pth")
    assert text_encoder("bert-base-uncased") == "bert-base-uncased"
    with pytest.raises(FileNotFoundError, match="holds no SamRef"):
        SamRef.from_pretrained("./tiny")


def test_fresh_adapters_on_the_packaged_sam_leave_it_as_it_is(model: SamRef) -> None:
    fresh = SamRef.from_sam("tiny", checkpoint="tiny", text_encoder="tiny")
    assert fresh.config.sam.sha256 == model.config.sam.sha256
    asked = {"points": [[60, 50]]}
    np.testing.assert_array_equal(
        fresh.segment(picture(), **asked).logits,  # type: ignore[arg-type]
        model.segment(picture(), **asked).logits,  # type: ignore[arg-type]
    )
    for name, tensor in fresh.text_encoder.model.state_dict().items():  # type: ignore[union-attr]
        assert tensor.equal(model.text_encoder.model.state_dict()[name]), name  # type: ignore[union-attr]


def test_what_is_trained_on_it_finds_it_again(tmp_path: Path) -> None:
    trained = SamRef.from_sam("tiny", checkpoint="tiny", text_encoder="tiny")
    trained.save_pretrained(tmp_path / "mine")
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {
        "README.md",
        "adapters.safetensors",
        "config.json",
        "text_encoder",
    }
    again = SamRef.from_pretrained(tmp_path / "mine")
    for name, tensor in trained.state_dict().items():
        assert tensor.equal(again.state_dict()[name]), name


def test_its_tokenizer_knows_the_words_of_refshapes(model: SamRef) -> None:
    assert model.text_encoder is not None
    tokenizer = model.text_encoder.tokenizer
    known = tokenizer.get_vocab()
    assert {*VOCABULARY} <= known.keys()
    ids, _ = model.text_encoder.tokenize(["the Red star", "the red zebra"])
    assert ids[0, 2] == ids[1, 2] == known["red"]
    assert ids[1, 3] == tokenizer.unk_token_id


@pytest.mark.parametrize(
    ("task", "metric", "least"),
    [
        ("ris", "mIoU", 0.70),
        ("fss", "mIoU_1shot", 0.50),
        ("vos", "J&F", 0.70),
        ("rvos", "J&F", 0.70),
    ],
)
def test_it_answers_each_task(model: SamRef, task: str, metric: str, least: float) -> None:
    protocol, method = PROTOCOLS[task](6), PredictorMethod(model)  # type: ignore[index]
    scores = [score for index in range(6) for score in protocol.score(method, index)]
    assert protocol.summarise(scores)[metric] > least


def test_the_card_gives_the_results_that_these_weights_had() -> None:
    """`results.json` is put together by hand from what `eval/evaluate.py` wrote."""
    recorded = json.loads((FOLDER / "results.json").read_text())
    assert recorded["adapters_sha256"] == file_sha256(FOLDER / "adapters.safetensors")
    card = (FOLDER / "README.md").read_text()
    for style in STYLES:
        row = next(line for line in card.splitlines() if line.startswith(f"| {style} |"))
        tasks = recorded[style]
        metrics = (("ris", "mIoU"), ("fss", "mIoU_1shot"), ("fss", "mIoU_5shot"), ("vos", "J&F"), ("rvos", "J&F"))
        assert row.split("|")[2:-1] == [f" {tasks[task][metric]:.3f} " for task, metric in metrics]


def test_packaging_keeps_the_answers(model: SamRef, tmp_path: Path) -> None:
    card = tmp_path / "out" / "README.md"
    card.parent.mkdir()
    card.write_text("a card")
    package(FOLDER, base_checkpoint("tiny"), tmp_path / "out", average_with=[FOLDER])
    assert card.read_text() == "a card"
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="something else than a packaged model"):
        package(FOLDER, base_checkpoint("tiny"), tmp_path / "out")
    (tmp_path / "out" / "mine.txt").unlink()
    for path in FOLDER.rglob("*.safetensors"):
        written = load_file(tmp_path / "out" / path.relative_to(FOLDER))
        for name, tensor in load_file(path).items():
            torch.testing.assert_close(written[name], tensor, rtol=0, atol=0)
    sample = RefShapesDataset("fss", "fss").episode(0)
    examples = [MaskReference(reference.image, reference.mask) for reference in sample.references]
    seg = SamRef.from_pretrained(tmp_path / "out").segment(sample.image, examples=examples)
    np.testing.assert_array_equal(seg.logits, model.segment(sample.image, examples=examples).logits)

"""Exported graphs: the model's own numbers, at other lengths than they were traced with, and without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from command import assert_refused, run
from hostile import bomb
from PIL import Image as PILImage
from tiny import disc, perturb, picture, tiny_model

from sam_uniref import MaskReference, SamRef
from sam_uniref.adapters import concat
from sam_uniref.config import SamRefConfig
from sam_uniref.export import check_exportable, compare, export_model, graphs_of, prepared
from sam_uniref.export.comparison import runners
from sam_uniref.export.writing import traced
from sam_uniref.samref import prompt_token

SENTENCE = "the red circle on the left"


@pytest.fixture(scope="module")
def model() -> SamRef:
    return SamRef.from_pretrained("tiny").eval()


@pytest.fixture(scope="module")
def exported(model: SamRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "onnx"
    export_model(model, folder)
    return folder


def test_onnx_has_the_models_numbers(model: SamRef, exported: Path) -> None:
    found = compare(model, runners(exported, "onnx", graphs_of(model)), picture(), disc(), SENTENCE)
    assert {one.graph for one in found} == {"image_encoder", "text_encoder", "mask_encoder", "decoder", "all"}
    assert max(one.largest for one in found) < 1e-3, found
    assert all(one.magnitude > 0.01 for one in found), "a comparison of nothing with nothing"


def test_the_files_say_what_they_are(model: SamRef, exported: Path) -> None:
    said = json.loads((exported / "export.json").read_text())
    assert said["opset"] == 18
    assert said["image"]["size"] == model.transform.size
    for graph in graphs_of(model):
        file = onnx.load(exported / f"{graph.name}.onnx")
        onnx.checker.check_model(file)
        assert [entry.version for entry in file.opset_import if entry.domain == ""] == [18]
        assert not [entry.domain for entry in file.opset_import if entry.domain not in ("", "pkg.onnxscript.torch_lib")]
        assert [given.name for given in file.graph.input] == list(graph.inputs)
        held = json.loads({entry.key: entry.value for entry in file.metadata_props}["sam_uniref"])
        assert held["image"] == said["image"]


@pytest.mark.parametrize(
    ("images", "rows", "words", "shots"), [(1, [0], 1, 1), (3, [2, 0, 2, 1], 7, 3), (2, [1, 1], 64, 1)]
)
def test_any_number_of_images_objects_and_tokens(
    model: SamRef, exported: Path, images: int, rows: Sequence[int], words: int, shots: int
) -> None:
    generator = torch.Generator().manual_seed(images)
    features = model.encode_image([picture(seed=seed) for seed in range(images)])
    session = onnxruntime.InferenceSession(exported / "image_encoder.onnx", providers=["CPUExecutionProvider"])
    (embedding,) = session.run(None, {"pixels": features.pixels.numpy()})
    assert np.abs(embedding - features.levels[0].numpy()).max() < 1e-3
    sentences = [" ".join(["red"] * (words if row == 0 else 1)) for row in range(len(rows))]
    said = model.encode_text(sentences).about(torch.tensor(rows))
    index = torch.randint(images, (len(rows), shots), generator=generator)
    masks = torch.stack([model.transform.mask(disc(), features.canvas)] * len(rows))
    with torch.no_grad():
        shown = concat([model.encode_mask(features, masks, index[:, shot]) for shot in range(shots)])
        shown = shown.about(torch.tensor(rows))
        wanted = model.predict(features, [said, shown])
    assert prompt_token([said, shown]).shape[0] == len(rows)
    session = onnxruntime.InferenceSession(exported / "decoder.onnx", providers=["CPUExecutionProvider"])
    given = {
        "embedding": features.levels[0],
        "image_index": torch.tensor(rows),
        "sentence": said.keys[0],
        "sentence_padding": said.padding[0],
        "sentence_pooled": said.pooled[0],
        "sentence_present": said.present,
        "example_keys": shown.keys[0],
        "example_values": shown.values[0],
        "example_padding": shown.padding[0],
        "example_pooled": shown.pooled[0],
        "example_present": shown.present,
    }
    logits, scores = session.run(None, {name: tensor.detach().numpy() for name, tensor in given.items()})
    assert logits.shape == tuple(wanted.logits.shape)
    assert np.abs(logits - wanted.logits.numpy()).max() < 1e-3
    assert np.abs(scores - wanted.scores.numpy()).max() < 1e-3


def test_the_sample_runs_without_torch(model: SamRef, exported: Path, tmp_path: Path) -> None:
    """In a process that can import neither torch nor sam_uniref nor transformers."""
    image, mask = picture(75, 130), disc(75, 130)
    PILImage.fromarray(image).save(tmp_path / "street.png")
    PILImage.fromarray(picture(60, 50, 3)).save(tmp_path / "example.png")
    PILImage.fromarray(disc(60, 50)).save(tmp_path / "example-mask.png")
    guard = (
        "import runpy, sys\n"
        "class Guard:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'sam_uniref', 'transformers'):\n"
        "            raise AssertionError(name + ' is imported')\n"
        "sys.meta_path.insert(0, Guard())\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    example = ["--example", "example.png:example-mask.png"]
    shown = [MaskReference(tmp_path / "example.png", tmp_path / "example-mask.png")]
    for asked, text, examples in (
        ([*example, "--text", SENTENCE], SENTENCE, shown),
        (["--text", SENTENCE], SENTENCE, None),
        ([*example, *example], None, shown * 2),
    ):
        command = [sys.executable, "-c", guard, exported / "segment.py", "street.png", *asked, "--out", "out.png"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        ours = model.segment(image, text=text, examples=examples)
        theirs = np.asarray(PILImage.open(tmp_path / "out.png")) > 0
        assert (ours.mask != theirs).mean() < 1e-3
        assert float(done.stdout.split()[1].rstrip(",")) == pytest.approx(ours.score, abs=2e-3)
    assert mask.any()


def test_the_sample_says_in_a_line_what_is_wrong(exported: Path, tmp_path: Path) -> None:
    PILImage.fromarray(picture()).save(tmp_path / "street.png")
    PILImage.fromarray(np.zeros(picture().shape[:2], np.uint8)).save(tmp_path / "empty.png")
    (tmp_path / "note.jpg").write_text("a shopping list")
    (tmp_path / "bomb.png").write_bytes(bomb(30_000, 30_000))
    for asked, message in (
        (["street.png", "--example", "street.png"], "--example takes IMG:MASK, got street.png"),
        (["street.png", "--text", " "], "a sentence must name something"),
        (["street.png", "--example", "street.png:empty.png"], "must mark at least one pixel"),
        (["gone.png", "--text", SENTENCE], "No such file or directory"),
        (["note.jpg", "--text", SENTENCE], "cannot identify image file"),
        (["bomb.png", "--text", SENTENCE], "exceeds limit"),
        (["street.png", "--text", SENTENCE, "--model", "nowhere"], "No such file or directory"),
        (["street.png", "--text", SENTENCE, "--out", "mask.nothing"], "unknown file extension"),
    ):
        command = [sys.executable, exported / "segment.py", *asked]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 2, asked
        assert message in done.stderr.splitlines()[-1], done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "mask.png").exists()


def test_torch_programs_have_the_models_numbers(model: SamRef) -> None:
    graph = graphs_of(model)[-1]
    program = traced(graph).module()
    with torch.no_grad():
        for got, wanted in zip(program(**graph.inputs), graph.module(*graph.inputs.values()), strict=True):
            assert (got - wanted).abs().max() < 1e-4


def test_a_model_without_sentences_with_lora_and_image_pooling() -> None:
    """Options that change a graph; its windows do not fill the grid at 96 pixels."""
    config = SamRefConfig.for_size("tiny")
    config.pooling = "image"
    config.lora.image_targets = ["qkv"]
    model = SamRef.from_sam("tiny", image_size=96, config=config)
    perturb(model, 0.05)
    prepared(model)
    graphs = {graph.name: graph for graph in graphs_of(model)}
    assert set(graphs) == {"image_encoder", "mask_encoder", "decoder"}
    run = {name: _program(graph) for name, graph in graphs.items()}
    found = compare(model, run, picture(), disc())
    assert max(one.largest for one in found) < 1e-3, found


def _program(graph):  # type: ignore[no-untyped-def]
    program = traced(graph).module()

    @torch.no_grad()
    def run(inputs):  # type: ignore[no-untyped-def]
        return [answer.numpy() for answer in program(**{k: torch.from_numpy(v) for k, v in inputs.items()})]

    return run


def test_the_command_compares(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing is stood in for: what was exported before is compared."""
    monkeypatch.setattr("sam_uniref.export.writing.export_model", lambda *_: None)
    done = run("export", "tiny", exported, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["largest"] < 1e-3
    assert "decoder.onnx" in report["files"]
    done = run("export", "tiny", exported, "--tolerance", 1e-30)
    assert done.exit_code == 1
    assert "over 1e-30" in done.output


def test_the_command_writes_torch_programs_and_compares_them(tmp_path: Path) -> None:
    done = run("export", "tiny", tmp_path / "out", "--format", "torch", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["format"], report["largest"] < 1e-3) == ("torch", True)
    assert {"image_encoder.pt2", "text_encoder.pt2", "mask_encoder.pt2", "decoder.pt2"} <= set(report["files"])


def test_bad_input(tmp_path: Path) -> None:
    assert_refused(run("export", "tiny", tmp_path / "a", "--format", "tflite"), "onnx, torch")
    assert_refused(run("export", "tiny", tmp_path / "a", "--tolerance", 0), "above 0")
    assert_refused(run("export", "tiny", tmp_path / "a", "--compare-on", "x.png"), "IMG:MASK")
    assert_refused(run("export", tmp_path / "none", tmp_path / "a"), "no model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds no export"):
        export_model(SamRef.from_pretrained("tiny"), tmp_path / "full")
    with pytest.raises(ValueError, match="only a samref can be exported"):
        check_exportable(_other_kind())
    rounded = tiny_model()
    rounded.sam.speed_up_encoder("bf16")
    with pytest.raises(ValueError, match="half precision"):
        check_exportable(rounded)
    assert not (tmp_path / "a").exists()


def _other_kind():  # type: ignore[no-untyped-def]
    class Other:
        class config:  # noqa: N801 - as models have it
            kind = "uniref"

    return Other()


@pytest.mark.slow
def test_vit_b_has_the_models_numbers(tmp_path: Path) -> None:
    """Random weights, and a quarter of SAM's own pixels for the test's memory; docs/export.md has the whole."""
    torch.manual_seed(0)
    model = SamRef.from_sam("vit_b", checkpoint=None, text_encoder="tiny", image_size=512).eval()
    export_model(model, tmp_path / "onnx")
    found = compare(
        model, runners(tmp_path / "onnx", "onnx", graphs_of(model)), picture(300, 400), disc(300, 400), SENTENCE
    )
    assert max(one.largest for one in found) < 1e-3, found

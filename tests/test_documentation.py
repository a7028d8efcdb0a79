"""What the pages tell people to type: Python runs, commands are taken by their parsers, quick ones are run."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import run
from pages_of_words import PAGES, blocks, commands_in_text, name_of
from reader_folder import make_reader_folder, stand_in
from shell_commands import check_command, check_syntax, simple_commands

# Blocks that are checked and not run, at most, by what they need: one more here is a decision, not an accident.
NOT_RUN = {"needs an account on the hub": 1, "needs downloaded weights": 1}
OURS = [("data", "list"), ("encode",), ("info",), ("segment",), ("track",)]
QUICK = [("python", "-"), ("mkdir", "-p"), *(("sam-uniref", *words) for words in OURS)]


@pytest.fixture(scope="module")
def reader_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reader_folder(tmp_path_factory.mktemp("reader"))


@pytest.fixture
def here(reader_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder as the working folder, and small models in place of large ones."""
    stand_in(monkeypatch)
    monkeypatch.chdir(reader_folder)
    return reader_folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python", "bash")], ids=name_of)
def test_what_is_shown_runs(page: Path, here: Path) -> None:
    """A page's Python, block after block as in one session; then its quick commands, which may read what that wrote."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        code = compile("\n" * (block.line - 1) + block.code, name_of(page), "exec")
        if block.why_not_run is None:
            exec(code, names)  # noqa: S102 - our own pages
    for words in _to_run(page):
        _run_quick(words)


def _run_quick(words: list[str]) -> None:
    """A quick command, with the packaged model in place of a trained one."""
    if words[0] == "python":
        exec(words[-1], {})  # noqa: S102 - our own pages
    elif words[0] == "mkdir":
        Path(words[-1]).mkdir(parents=True, exist_ok=True)
    else:
        result = run(*words[1:])
        assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_taken(page: Path, here: Path) -> None:
    for block in blocks(page, "bash"):
        check_syntax(block.code)
    for script in [_scripts(page), commands_in_text(page)]:
        for words in simple_commands(script):
            check_command(words)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml", "json")], ids=name_of)
def test_settings_are_yaml(page: Path) -> None:
    for block in blocks(page, "yaml", "json"):
        assert isinstance(yaml.safe_load(block.code), dict | list)


def test_what_is_not_run_is_counted() -> None:
    every = [block for page in PAGES for block in blocks(page, "python", "bash")]
    assert Counter(block.why_not_run for block in every if block.why_not_run) <= Counter(NOT_RUN)


def test_the_quick_commands_are_on_some_page() -> None:
    typed = {word for page in PAGES for words in _to_run(page) for word in words[1:3]}
    assert typed >= {"encode", "info", "segment", "track", "data"}


@pytest.mark.parametrize(
    "wrong",
    [
        "sam-uniref segmant new.jpg",
        "sam-uniref segment new.jpg --out a --model tiny --nothing",
        "python eval/evaluate.py --model tiny --task ris --out results --nothing",
        "python eval/nothing.py",
        "accelerate launch train/finetune.py --config configs/folder.yaml optimiser.nothing=1",
        "accelerate launch --config_file configs/accelerate/9gpu.yaml train/finetune.py --config configs/folder.yaml",
        "make nothing",
        "frobnicate",
    ],
)
def test_wrong_commands_are_found(wrong: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check_command(shlex.split(wrong))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_our_own_are_there(page: Path) -> None:
    text = re.sub(r"^( *)```.*?^\1```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)", text)
    for link in links:
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{name_of(page)}: {link}"
        named = anchor.startswith("sam_uniref.")  # by the site; building it checks these
        if anchor and file.suffix == ".md" and not named:
            assert anchor in _anchors(file), f"{name_of(page)}: {link}"


def _anchors(page: Path) -> set[str]:
    """Of a page's headings, as they are made of their words."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def _scripts(page: Path) -> str:
    return "\n".join(block.code for block in blocks(page, "bash"))


def _to_run(page: Path) -> list[list[str]]:
    """A page's quick ``sam-uniref`` commands, and what puts files there for them."""
    typed = [
        words
        for block in blocks(page, "bash")
        if block.why_not_run is None
        for words in simple_commands(block.code)
        if "..." not in words
    ]
    return [
        _with_packaged_model(words) for words in typed if any(words[: len(quick)] == list(quick) for quick in QUICK)
    ]


def _with_packaged_model(words: list[str]) -> list[str]:
    """The command with ``--model tiny``, and without a checkpoint and a device."""
    kept: list[str] = []
    values = iter(words)
    for word in values:
        if word in ("--checkpoint", "--device", "--image-size"):
            next(values)
        elif word == "--model":
            next(values)
            kept += ["--model", "tiny"]
        else:
            kept.append(word)
    return kept

"""Commands that pages of documentation tell people to type, checked against the parsers that would read them."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import typer.main
from runs import ROOT

from sam_uniref.cli import app
from sam_uniref.eval.commands import OneLineParser
from sam_uniref.train.pretrain import PretrainSettings
from sam_uniref.train.settings import RunSettings, read_settings

# What is neither ours nor Python's: nothing to check but that it is one of these.
OTHERS = {
    *("cat", "cd", "cp", "curl", "do", "done", "esac", "export", "for", "jupyter", "ls", "mkdir", "mkdocs", "pip"),
    *("scontrol", "source", "srun"),
}
LEFT_OUT = "..."


class Accepted(BaseException):
    """A parser took the command; it goes no further."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given


_HERE = re.compile(r"<<'?(?P<end>\w+)'?[^\n]*\n(?P<text>.*?)^(?P=end)$", re.MULTILINE | re.DOTALL)


def simple_commands(script: str) -> Iterator[list[str]]:
    """The words of each command of a script, with its variables put in: no loops, no pipes.

    A program that ``python -`` reads from a here-document is the command's last word.
    """
    read = [found["text"] for found in _HERE.finditer(script)]
    for words in _commands(_HERE.sub("", script)):
        if words[:1] == ["cat"] and read:
            read.pop(0)
        yield [*words, read.pop(0)] if words == ["python", "-"] else words


def _commands(script: str) -> Iterator[list[str]]:
    script = re.sub(r"\bcase .* in .*\)", "", script.replace("\\\n", " "))
    variables: dict[str, str] = {}
    for line in script.splitlines():
        line = re.sub(r"\$\((?:[^()]|\([^()]*\))*\)", "OUTPUT", line)
        line = re.sub(r"\$\{?(\w+)\}?", lambda found: variables.get(found[1], found[1]), line)
        words = shlex.shlex(line, posix=True, punctuation_chars=";&|<>()")
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set(";&|()"):
                yield from _without_assignments(command, variables)
                command = []
            else:
                command.append(word)


def _without_assignments(words: list[str], variables: dict[str, str]) -> Iterator[list[str]]:
    """The command, if there is one, without ``NAME=value`` before it, which is remembered, and ``> file`` after it."""
    words = words[1:] if words[:1] in (["do"], ["then"], ["export"]) else words
    while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0], re.DOTALL):
        name, _, value = words[0].partition("=")
        variables[name] = value
        words = words[1:]
    cut = next((at for at, word in enumerate(words) if set(word) <= set("<>")), len(words))
    if words[:cut]:
        yield words[:cut]


def check_command(words: Sequence[str]) -> None:
    """Fail unless the command exists and takes these arguments.

    Raises:
        AssertionError: Saying what is wrong.
    """
    program, *arguments = words
    if program == "sam-uniref":
        _check_ours(arguments)
    elif program == "accelerate":
        assert arguments[0] == "launch", words
        at = next(index for index, word in enumerate(arguments) if word.endswith(".py") or word == LEFT_OUT)
        if arguments[at] == LEFT_OUT:
            arguments = arguments[at + 1 :]
            at = next(index for index, word in enumerate(arguments) if word.endswith(".py"))
        _check_launching(arguments[1:at])
        _check_script(arguments[at], arguments[at + 1 :])
    elif program in ("python", "python3") and arguments[0].endswith(".py"):
        _check_script(arguments[0], arguments[1:])
    elif program in ("python", "python3"):
        assert arguments[0] in ("-m", "-c", "-"), words
        if arguments[0] == "-":
            compile(arguments[1], "here-document", "exec")
    elif program == "make":
        targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets), words
    elif program == "pytest":
        missing = [word for word in arguments if word.startswith("tests/") and not (ROOT / word).exists()]
        assert not missing, missing
    elif Path(program).parts[:1] == (".venv",):
        check_command([Path(program).name, *arguments])
    else:
        assert program in OTHERS, f"{shlex.join(words)}: not a command that pages speak of"


def _check_ours(arguments: Sequence[str]) -> None:
    """A ``sam-uniref`` command, which its own parser reads."""
    command: Any = typer.main.get_command(app)
    context = command.context_class(command, info_name="sam-uniref")
    rest = list(arguments)
    while hasattr(command, "get_command") and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        assert found is not None, f"there is no command {rest[0]!r} in sam-uniref {shlex.join(arguments)}"
        command, context = found, found.context_class(found, info_name=rest[0], parent=context)
        rest = rest[1:]
    if hasattr(command, "get_command"):
        assert set(rest) <= {option for parameter in command.params for option in parameter.opts} | {"--help"}, rest
        return
    given = [word for word in rest if word != LEFT_OUT]
    try:
        command.make_context(command.name, given, parent=context.parent)
    except Exception as error:
        if LEFT_OUT not in rest or type(error).__name__ != "MissingParameter":
            message = getattr(error, "message", None) or error
            raise AssertionError(f"sam-uniref {shlex.join(arguments)}: {message}") from error


def _check_launching(options: Sequence[str]) -> None:
    """``accelerate launch``'s own options; its configuration must be there."""
    for option, value in pairwise(options):
        if option == "--config_file":
            assert (ROOT / value).is_file(), f"there is no {value}"


def _check_script(script: str, arguments: Sequence[str]) -> None:
    """A script of ours, which its own parser reads, and its configuration with what is set over it."""
    if Path(script).parts[0] not in ("eval", "train", "docs"):  # what a command of ours has written, from its package
        assert any((ROOT / "sam_uniref").rglob(Path(script).name)), f"nothing writes {script}"
        return
    assert (ROOT / script).is_file(), f"there is no {script}"
    module = _module(script)
    given = parse(module.main, [script, *(word for word in arguments if word != LEFT_OUT)], LEFT_OUT in arguments)
    kind = {"finetune.py": RunSettings, "pretrain.py": PretrainSettings}.get(Path(script).name)
    if kind is not None and given is not None and given.config.startswith("configs/"):
        read_settings(kind, ROOT / given.config, given.overrides)


def _module(script: str) -> Any:
    """The module of a script: part of the package, or a file beside the documentation."""
    folder = Path(script).parts[0]
    if folder in ("eval", "train"):
        return importlib.import_module("sam_uniref." + ".".join(Path(script).with_suffix("").parts))
    spec = importlib.util.spec_from_file_location(Path(script).stem, ROOT / script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(main: Callable[[], Any], words: Sequence[str], left_out: bool) -> argparse.Namespace | None:
    """What a script's parser makes of a command line; None where it needs what the page left out.

    Raises:
        AssertionError: If it refuses the command line.
    """

    def accept(method: Callable[..., argparse.Namespace]) -> Callable[..., NoReturn]:
        def parsed(parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
            raise Accepted(method(parser, *given))

        return parsed

    def refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
        raise AssertionError(f"{shlex.join(words)}: {message}")

    names = ("parse_args", "parse_intermixed_args")
    patches = [
        mock.patch.object(argparse.ArgumentParser, name, accept(_parsing(getattr(argparse.ArgumentParser, name))))
        for name in names
    ]
    try:
        with patches[0], patches[1], _refusing(refuse), mock.patch.object(sys, "argv", list(words)):
            main()
    except Accepted as accepted:
        return accepted.given
    except AssertionError as error:
        if left_out and "required" in str(error):
            return None
        raise
    raise AssertionError(f"{shlex.join(words)}: the script did not read its command line")


def _parsing(method: Callable[..., argparse.Namespace]) -> Callable[..., argparse.Namespace]:
    """A parser's method that takes the words of the command line by default, as it does outside of tests."""
    return lambda parser, given=None, namespace=None: method(parser, given, namespace)


def _refusing(refuse: Callable[..., NoReturn]) -> Any:
    """All parsers of ours refuse in this way."""
    stack = ExitStack()
    for parser in (argparse.ArgumentParser, OneLineParser):
        stack.enter_context(mock.patch.object(parser, "error", refuse))
    return stack


def check_syntax(script: str) -> None:
    """Fail unless a shell can read the script."""
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

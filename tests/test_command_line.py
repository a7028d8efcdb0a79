"""The command line as a whole: help, completion, exit codes, and what is said to whom."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from command import assert_refused, run
from typer.main import get_command

from sam_uniref.cli import app
from sam_uniref.commands import scripts
from sam_uniref.commands.app import OneLineErrors
from sam_uniref.nearest import did_you_mean, nearest_path
from sam_uniref.packaged import configuration, packaged_configurations

HEAVY = {
    *("torch", "torchvision", "transformers", "numpy", "PIL", "av", "cv2", "segment_anything", "gradio", "onnx"),
    *("datasets", "huggingface_hub", "accelerate", "tqdm", "yaml", "omegaconf"),
}


def command_names() -> list[tuple[str, ...]]:
    """All commands, those of groups as well, and no command at all."""
    names: list[tuple[str, ...]] = [()]
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        names.append((name,))
        names += [(name, inner) for inner in getattr(command, "commands", {})]
    return names


def test_every_help_imports_nothing_heavy_and_is_fast() -> None:
    """Under half a second on a machine that does nothing else; the bound is for one that does."""
    code = (
        "import contextlib, io, sys, time\n"
        "begin = time.perf_counter()\n"
        "import sam_uniref.cli as cli\n"
        "for line in sys.argv[1:]:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as said:\n"
        "        with contextlib.suppress(SystemExit): cli.app([*line.split(), '--help'])\n"
        "    assert 'Usage' in said.getvalue(), line\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    lines = [" ".join(name) for name in command_names()]
    assert len(lines) >= 15
    done = subprocess.run([sys.executable, "-c", code, *lines], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "sam_uniref.cli", "segment", "--help"], capture_output=True, check=True)
        bare = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import typer, rich.console"], capture_output=True, check=True)
        seconds.append((bare - begin) / max(0.1, time.perf_counter() - bare))
    # Beside what Python and typer take by themselves on this machine, at this moment.
    assert statistics.median(seconds) < 5
    assert min(_processor_seconds("segment", "--help") for _ in range(5)) < 0.5


def _processor_seconds(*arguments: str) -> float:
    """What a command takes of a processor, however busy the machine is."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "sam_uniref.cli", *arguments], capture_output=True, check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


@pytest.mark.parametrize("name", command_names(), ids=lambda name: " ".join(name) or "none")
def test_every_command_says_what_it_does_and_gives_examples(name: tuple[str, ...]) -> None:
    said = run(*name, "--help").stdout
    assert "Usage" in said
    if len(name) == 1:
        assert "Examples:" in said
        assert f"sam-uniref {name[0]}" in said.split("Examples:")[1]


def test_examples_name_options_that_exist() -> None:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        parameters = [
            parameter
            for one in (command, *getattr(command, "commands", {}).values())  # data has commands of its own
            for parameter in one.params
        ]
        known = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
        if name in ("train", "eval", "compare", "benchmark"):
            continue  # those of the scripts: below
        for option in re.findall(r"(?<=\s)--[a-z-]+", (command.epilog or "").split("--debug, anywhere")[0]):
            assert option in known, f"{name} has no {option}"


def test_examples_of_scripts_are_read_by_the_scripts() -> None:
    from sam_uniref.eval import benchmark, evaluate
    from sam_uniref.train import finetune

    commands = get_command(app).commands  # type: ignore[attr-defined]
    count = 0
    for line in "\n".join(commands[name].epilog for name in ("train", "eval", "benchmark")).splitlines():
        if not line.startswith("sam-uniref "):
            continue
        name, *rest = line.replace("\\[", "[").split()[1:]
        count += 1
        if name == "train":
            assert configuration(rest[0]).is_file()
            rest = [part for part in rest[1:] if part not in ("--accelerate", "8gpu")]
            finetune.parse_arguments(["--config", "x.yaml", *rest])
        else:
            (evaluate if name == "eval" else benchmark).parse_arguments(rest)
    assert count >= 8


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["segmnt"], "No such command 'segmnt'. Did you mean 'segment'? (see "),
        (["data", "lst"], "Did you mean 'list'?"),
        (["segment", "a.png", "--txt", "dog"], "No such option: --txt"),
        (["segment"], "Missing argument 'IMAGE...'"),
        (["segment", "a.png", "--image-size", "large"], "Invalid value for '--image-size': "),
        (["encode", "--text", "dog"], "Missing option '--out'"),
        (["--versoin"], "No such option: --versoin"),
        (["train", "quickstrat"], "there is no configuration quickstrat, neither a file nor packaged; did you mean"),
        (["train", "--resume"], "a run's configuration is needed: sam-uniref train CONFIG"),
        (
            ["train", "--config", "a.yaml"],
            "a run's configuration is needed: sam-uniref train CONFIG ..., got '--config'",
        ),
        (["train", "--plan", "quickstart"], "got '--plan'"),
        (["train", "quickstart", "--processes", "0"], "--processes must be at least 1, got 0"),
        (["train", "quickstart", "--accelerate", "9gpu"], "there is no configuration 9gpu"),
        (["compare", "compare_tinny"], "did you mean 'compare_tiny'?"),
        (["segment", "a.png", "--text", "dog", "--text", "cat"], "--text takes one sentence, got 2"),
        (["segment", "a.png", "--text", "dog", "--format", "yol"], "got 'yol'; did you mean 'yolo'?"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(
    line: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(run(*line), message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        *(["segment", "", "--text", "star"], ["segment", "a.png", "", "--text", "star"], ["track", "", "--out", "o"]),
        *(["segment", "a.png", "--text", "star", f"--{name}", ""] for name in ("out", "reference", "model", "example")),
        *(["track", "a.mp4", f"--{name}="] for name in ("out", "masks", "overlay", "rle", "checkpoint")),
        *(["encode", "--text", "star", "--out", ""], ["convert", "", "out"], ["export", "tiny", ""], ["train", ""]),
        *(["data", "show", ""], ["cache", "--out="], ["eval", "--out", ""], ["segment", "--", ""]),
    ],
)
def test_an_empty_argument_is_no_path(line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    option = line[-2] if line[-2].startswith("--") and line[-2] != "--" and line[-1] == "" else line[-1].rstrip("=")
    told = f"an argument is empty after {option};" if option.startswith("--") else "an argument is empty"
    assert_refused(run(*line), told)
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path) -> None:
    for line in (["--debug", "convert", "none.pth", str(tmp_path / "out")], ["convert", "none", "out", "--debug"]):
        assert isinstance(run(*line).exception, FileNotFoundError)
    assert_refused(run("convert", "none.pth", tmp_path / "out"), "none.pth")
    # After -- it is a name like any other.
    assert_refused(run("convert", "--", "--debug", tmp_path / "out"), "--debug")


def test_without_a_command_there_is_help() -> None:
    assert "Usage" in run().output
    assert "list" in run("data").output


def test_completion_knows_the_commands() -> None:
    program = "import sys; from sam_uniref.cli import app; app(prog_name='sam-uniref')"
    asked = {"_SAM_UNIREF_COMPLETE": "complete_bash", "COMP_WORDS": "sam-uniref seg", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["segment"]
    assert "--install-completion" in run("--help").stdout


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "error: stopped\n"),
        (ValueError("two\nlines"), 2, "error: two lines\n"),
        (PermissionError(13, "no permission", "a.png"), 2, "error: [Errno 13] no permission: 'a.png'\n"),
        (KeyError("a defect"), 1, ""),
        (SystemExit(75), 75, ""),
        (typer.Exit(1), 1, ""),
    ],
)
def test_exit_codes(raised: BaseException, code: int, said: str) -> None:
    from typer.testing import CliRunner

    small = typer.Typer(cls=OneLineErrors, pretty_exceptions_enable=False)

    @small.command()
    def fail() -> None:
        raise raised

    @small.command()
    def other() -> None:
        """So that there are two, and a group."""

    result = CliRunner().invoke(small, ["fail"])
    assert (result.exit_code, result.stderr) == (code, said)


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_unwinds_the_stack(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """What is half written goes, and the code is the shell's for the signal."""
    script = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background ignores it
        "from pathlib import Path\n"
        "from sam_uniref import cli\n"
        "def write():\n"
        f"    half = Path({str(tmp_path)!r}) / 'half.png'\n"
        "    half.touch()\n"
        "    try:\n"
        "        print('writing', flush=True)\n"
        "        time.sleep(600)\n"
        "    finally:\n"
        "        half.unlink()\n"
        "cli.app.command('write')(write)\n"
        "import sys; sys.argv[1:] = ['write']; cli.main()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(number)
        process.communicate(timeout=300)
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []


# ---- What is passed on ----


@pytest.mark.parametrize(
    ("line", "module", "arguments"),
    [
        (
            ["train", "quickstart", "--resume", "steps=3", "output=out"],
            "train.finetune",
            ["--config", "{quickstart}", "--resume", "steps=3", "output=out"],
        ),
        (
            ["eval", "--model", "tiny", "--task", "ris", "fss", "--out", "there"],
            "eval.evaluate",
            ["--model", "tiny", "--task", "ris", "fss", "--out", "there"],
        ),
        (["eval", "--options"], "eval.evaluate", ["--help"]),
        (["compare", "compare_tiny", "--out", "o"], "eval.compare", ["--config", "{compare_tiny}", "--out", "o"]),
        (["benchmark", "track", "--objects", "1,2"], "eval.benchmark", ["track", "--objects", "1,2"]),
        (["benchmark", "track", "--options"], "eval.benchmark", ["track", "--help"]),
    ],
)
def test_scripts_get_what_follows_and_give_their_exit_code(
    line: list[str], module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[list[str]] = []

    def script(given: list[str]) -> int:
        got.append(given)
        assert sys.argv[0] == f"sam-uniref {line[0]}"
        return 75

    monkeypatch.setattr(f"sam_uniref.{module}.main", script)
    assert run(*line).exit_code == 75
    names = {name: str(path) for name, path in packaged_configurations().items()}
    assert got == [[argument.format_map(names) for argument in arguments]]


def test_several_processes_are_accelerates(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str]) -> None:
            started.append(command)

        def wait(self) -> int:
            return 1

    monkeypatch.setattr(scripts.subprocess, "Popen", Process)
    before = signal.getsignal(signal.SIGTERM)
    assert run("train", "quickstart", "--processes", "2", "steps=3").exit_code == 1
    assert run("eval", "--accelerate", "8gpu", "--task", "all").exit_code == 1
    assert signal.getsignal(signal.SIGTERM) is before
    config, hardware = configuration("quickstart"), configuration("8gpu", "accelerate")
    given = ["--config", str(config), "steps=3"]
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    assert started == [
        [*launch, "--num_processes", "2", "--multi_gpu", *("-m", "sam_uniref.train.finetune"), *given],
        [*launch, "--config_file", str(hardware), "-m", "sam_uniref.eval.evaluate", "--task", "all"],
    ]


def test_a_plan_is_printed_by_the_script_itself(tmp_path: Path) -> None:
    result = run("train", "quickstart", "--plan", f"output={tmp_path}")
    assert result.exit_code == 0, result.output
    assert "steps" in result.stdout


# ---- The nearest name ----


def test_nearest_names(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "Street.jpg").touch()
    assert nearest_path(tmp_path / "pictures" / "street.jpeg").endswith("pictures/Street.jpg?")
    assert nearest_path(tmp_path / "picturs" / "Street.jpg").endswith("pictures/Street.jpg?")
    assert nearest_path(tmp_path / "picturs" / "other.jpg").endswith("/pictures?")
    assert nearest_path(tmp_path / "pictures") == ""
    assert nearest_path(tmp_path / "something" / "else") == ""
    assert nearest_path("a\0b") == ""
    assert did_you_mean("Tinny", ["tiny"]) == "; did you mean 'tiny'?"
    assert did_you_mean("vit_h", ["tiny"]) == ""

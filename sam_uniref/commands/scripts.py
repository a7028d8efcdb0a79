"""``sam-uniref train``, ``eval``, ``compare``, ``benchmark``: the repository's scripts, with their own options.

What these commands do not know themselves goes to the script as it stands. One process is this one, so that its exit
code is the command's; several are ``accelerate launch``'s.
"""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

ListOptions = Annotated[
    bool, typer.Option("--options", help="List all options of the script; loads PyTorch, so it takes seconds.")
]
ProcessesOption = Annotated[
    int | None, typer.Option("--processes", help="Processes that share the work, a GPU each; one by default.")
]
AccelerateOption = Annotated[
    str | None,
    typer.Option("--accelerate", metavar="FILE", help="Accelerate's configuration: a file, or 1gpu, 8gpu, 2nodes, ..."),
]

# Of the commands here: what they don't know is the script's.
PASSES_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def train(
    context: typer.Context,
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="A run's YAML, or a packaged one's name; info lists them.")
    ] = None,
    processes: ProcessesOption = None,
    accelerate: AccelerateOption = None,
    list_options: ListOptions = False,
) -> None:
    """Train a model. Settings follow as key=value; --resume goes on after a stop, --plan says what would be done."""
    arguments = ["--help"] if list_options else _with_configuration("train", "run", config, context.args)
    _run("train.finetune", "train", arguments, processes, accelerate)


def evaluate(
    context: typer.Context,
    processes: ProcessesOption = None,
    accelerate: AccelerateOption = None,
    list_options: ListOptions = False,
) -> None:
    """Evaluate a model on RefShapes or on a prepared split: numbers with intervals, and a report."""
    _run("eval.evaluate", "eval", _arguments(context, list_options), processes, accelerate)


def compare(
    context: typer.Context,
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="A comparison's YAML, or a packaged one's name.")
    ] = None,
    list_options: ListOptions = False,
) -> None:
    """Train, ask and score several methods on the same cases: a table, differences, a grid of pictures."""
    arguments = ["--help"] if list_options else _with_configuration("compare", "comparison", config, context.args)
    _run("eval.compare", "compare", arguments)


def benchmark(context: typer.Context, list_options: ListOptions = False) -> None:
    """Measure what the parts cost: encoder, train, fusion, track, data, metrics, or all."""
    _run("eval.benchmark", "benchmark", _arguments(context, list_options))


def _with_configuration(name: str, what: str, config: str | None, others: Sequence[str]) -> list[str]:
    """What a script is given whose configuration comes first."""
    if config is None or config.startswith("-"):
        got = "" if config is None else f", got {config!r}"
        raise ValueError(f"a {what}'s configuration is needed: sam-uniref {name} CONFIG ...{got}")
    from sam_uniref.packaged import configuration

    return ["--config", str(configuration(config)), *others]


def _arguments(context: typer.Context, list_options: bool) -> list[str]:
    """What the script is given."""
    return [*context.args, "--help"] if list_options else list(context.args)


def _run(
    module: str, name: str, arguments: Sequence[str], processes: int | None = None, accelerate: str | None = None
) -> None:
    """Run a script of the package and end with its exit code."""
    if processes is not None and processes < 1:
        raise ValueError(f"--processes must be at least 1, got {processes}")
    if (processes or 1) > 1 or accelerate is not None:
        raise typer.Exit(_launch(f"sam_uniref.{module}", arguments, processes, accelerate))
    main = importlib.import_module(f"sam_uniref.{module}").main
    before, sys.argv[0] = sys.argv[0], f"sam-uniref {name}"  # argparse calls itself by it
    try:
        raise typer.Exit(main(arguments))
    finally:
        sys.argv[0] = before


def _launch(module: str, arguments: Sequence[str], processes: int | None, accelerate: str | None) -> int:
    """``accelerate launch``, to its end; signals reach it, and what it makes of them is waited for."""
    from sam_uniref.packaged import configuration

    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    if accelerate is not None:
        launcher += ["--config_file", str(configuration(accelerate, "accelerate"))]
    if processes is not None:
        launcher += ["--num_processes", str(processes), *(["--multi_gpu"] if processes > 1 else [])]
    child = subprocess.Popen([*launcher, "-m", module, *arguments])  # noqa: S603 - our own modules
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A terminal's Ctrl-C reaches the child by itself; SIGTERM is meant for one process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: child.send_signal(number))
    try:
        return child.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

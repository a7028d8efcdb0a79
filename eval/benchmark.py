"""What this package costs, and what that is beside others and beside what the device can do.

    # SAM's image encoder beside segment-anything's and transformers', and a picture and a point to masks with each
    python eval/benchmark.py encoder --size vit_b --pictures --threads 2 --json encoder.json
    # a step of training: with the frozen encoder, from a cache, alone; its floor; Markdown and JSON
    python eval/benchmark.py train --size vit_b --json train.json
    # UniFusion alone: beside fused and unfused attention, two references beside a bank of every fifth frame
    python eval/benchmark.py fusion --json fusion.json         # or unifusion
    # these, one after another
    python eval/benchmark.py all --size tiny --precision float32,bf16 --json all.json
    # tracking
    python eval/benchmark.py track --model vit_b --random-weights --objects 1,2,4,8,16 --frames 10
    # beside the published procedure, on the same weights: the encoder again for every object and frame
    python eval/benchmark.py track --model vit_b --random-weights --objects 1,2,4,5,8 --frames 5 --reference-cost
    # memory: the same after 2,000 frames as after 20
    python eval/benchmark.py track --model tiny --objects 4 --frames 20,2000 --json memory.json --plot memory.png
    # a million annotations and 100,000 video frames; the loader beside pycocotools and a plain data set
    python eval/benchmark.py data
    # J&F of folders of masks beside vos-benchmark
    python eval/benchmark.py metrics --truth masks --predictions results

Each has its options: `benchmark.py train --help`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sam_uniref.eval import (
    data_benchmark,
    encoder_benchmark,
    fusion_benchmark,
    metrics_benchmark,
    track_benchmark,
    train_benchmark,
)
from sam_uniref.eval.benchmark_table import add_common_arguments
from sam_uniref.eval.commands import OneLineParser, say_error
from sam_uniref.sam import SAM_SIZES
from sam_uniref.state import write_json

# Other names of subcommands.
ALIASES = {"fusion": ["unifusion"]}

COMMANDS = {
    "encoder": (encoder_benchmark, "SAM's image encoder beside segment-anything's and transformers'"),
    "train": (train_benchmark, "a step of training, with and without the frozen encoder's cost"),
    "fusion": (fusion_benchmark, "UniFusion with and without fused attention, and beside a memory bank"),
    "track": (track_benchmark, "tracking in a video"),
    "data": (data_benchmark, "preparing, opening and loading data sets"),
    "metrics": (metrics_benchmark, "J&F of folders of masks"),
}

# What `all` measures, and which of its options each takes beside the common ones.
COMPARISONS = {"encoder": ("size", "pictures", "compile"), "train": ("size",), "fusion": ()}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="what", required=True)
    for name, (module, what) in COMMANDS.items():
        command = kinds.add_parser(name, help=what, aliases=ALIASES.get(name, []))
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    every = kinds.add_parser("all", help=f"{', '.join(COMPARISONS)}, one after another")
    every.add_argument("--size", choices=SAM_SIZES, default="vit_b", help="of SAM")
    encoder_benchmark.add_choices(every)
    add_common_arguments(every, precision=None)
    every.set_defaults(run=run_all)
    return parser.parse_args(arguments)


def run_all(arguments: argparse.Namespace) -> None:
    """One comparison after another, with what is not given as each has it by default; their rows in one file."""
    rows: list[dict[str, Any]] = []
    wholes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, own in COMPARISONS.items():
            path = Path(folder) / f"{name}.json"
            options = options_of(arguments, "runs", "precision", "threads", "device", *own)
            given = parse_arguments([name, *options, "--json", str(path)])
            given.run(given)
            wholes[name] = json.loads(path.read_text(encoding="utf-8"))
            rows += wholes[name].pop("rows")
    if arguments.json is not None:
        write_json(arguments.json, {"rows": rows, **wholes})


def options_of(arguments: argparse.Namespace, *names: str) -> list[str]:
    """Options as they would be typed; those that were not given are left out."""
    options = []
    for name in names:
        value = getattr(arguments, name)
        if value is True:
            options.append(f"--{name}")
        elif value is not None and value is not False:
            options += [f"--{name}", ",".join(value) if isinstance(value, list) else str(value)]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    try:
        given = parse_arguments(arguments)
        given.run(given)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        return say_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())

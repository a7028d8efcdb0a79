"""On paper: what a published schedule takes on devices that are not here. Hours, disk of the cache, network.

    python eval/benchmark.py train --size vit_b --json train.json       # counts what a step's products are
    python eval/schedule_estimate.py configs/sam_vit_h_image.yaml configs/sam_vit_h_video.yaml --measured train.json

Counted are the image encoder's FLOPs, without computing them, and measured JSON has those of a step by task. A device
does them at a share of its data sheet's bfloat16 peak, and a batch takes some time whatever is in it (kernels to
launch, the loader, the optimiser); that share and that time are the assumptions on which the hours hang. All else is
arithmetic on the run's configuration and on the numbers below, each of which says where it is from.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sam_uniref.eval.benchmark_table import markdown_table
from sam_uniref.eval.commands import OneLineParser, say_error
from sam_uniref.eval.floor import counted_flops
from sam_uniref.sam import build_sam
from sam_uniref.state import write_json
from sam_uniref.train.settings import DataSettings, RunSettings, load_settings
from sam_uniref.train.skeleton import skeleton

# Pictures that training sees, by the name of a data set in the published configurations. Those of RefCOCO/+/g are
# counted one by one; the three overlap, and a cache keeps a picture once, so that together they are fewer. The clips'
# are about: 27 annotated frames in each of 3,471 videos, 574 in 120, 69 in 607.
PICTURES = {
    "refcoco": 16_994,
    "refcoco_plus": 16_992,
    "refcocog": 21_899,
    "fss1000": 5_200,
    "coco": 118_287,
    "ytvos19": 94_000,
    "lvos": 69_000,
    "ovis": 42_000,
    "ref_ytvos": 0,  # YouTube-VOS's
}
# 256 channels at 64 x 64 in bfloat16; in int8 half of it and a scale a channel.
CACHED_BYTES = 256 * 64 * 64 * 2
GRADIENT_BYTES = 4


@dataclass(frozen=True)
class Machine:
    """Devices that train together.

    Attributes:
        name: Of them all.
        devices: How many.
        flops_per_second: Of one, dense products in bfloat16, by its data sheet.
        link_bytes_per_second: Of one, to the others, in one direction.
        batch_size: Samples of one at a time.
    """

    name: str
    devices: int
    flops_per_second: float
    link_bytes_per_second: float
    batch_size: int = 2


MACHINES = (
    Machine("8 x A100", 8, 312e12, 300e9),  # NVLink 3: 600 GB/s, both directions together
    Machine("1 x H200", 1, 989e12, float("inf"), batch_size=16),
    Machine("1 x 8 GB (RTX 3070)", 1, 40.6e12, float("inf")),  # half rate with float32 sums, as on all GeForce
    Machine("64 x A100, 8 nodes", 64, 312e12, 25e9),  # InfiniBand HDR, 200 Gb/s a GPU
)


@dataclass(frozen=True)
class Work:
    """What a stage asks for.

    Attributes:
        stage: Its name.
        samples: That it draws in all.
        global_batch: Samples of an optimiser step.
        pictures_per_sample: That go through the encoder, in the mean.
        encoder_flops: Of one picture.
        step_flops: Of one sample, forward and backward, in the mean.
        trained: Parameters with gradients.
        pictures: Distinct ones.
    """

    stage: str
    samples: int
    global_batch: int
    pictures_per_sample: float
    encoder_flops: float
    step_flops: float
    trained: int
    pictures: int

    @property
    def gradient_bytes(self) -> int:
        """That each device gives to the others at an optimiser step."""
        return self.trained * GRADIENT_BYTES


@dataclass(frozen=True)
class Estimate:
    """One stage on one machine.

    Attributes:
        stage: The stage's name.
        machine: The machine's name.
        steps: Optimiser steps: as published, or fewer of larger batches where there are more devices than samples.
        samples_a_step: Of all devices.
        hours: With the encoder in every step.
        fill_hours: To fill the cache.
        cached_hours: From the cache, when it is filled.
        cache_gigabytes: On disk.
        gradient_megabytes: Of one optimiser step.
        network_seconds: That it takes to share them, if nothing is computed meanwhile.
    """

    stage: str
    machine: str
    steps: int
    samples_a_step: int
    hours: float
    fill_hours: float
    cached_hours: float
    cache_gigabytes: float
    gradient_megabytes: float
    network_seconds: float


def estimate(work: Work, machine: Machine, *, share: float, views: int, overhead: float) -> Estimate:
    """The arithmetic.

    Args:
        work: Of a stage.
        machine: To do it on.
        share: Of the devices' peak that is reached.
        views: Of each picture, in the cache.
        overhead: Seconds of a device's batch beside its products.

    Raises:
        ValueError: If the share is not in (0, 1], there is no view, or the overhead is negative.
    """
    if not 0 < share <= 1 or views < 1 or overhead < 0:
        raise ValueError(
            "share must be above 0 and at most 1, views at least 1 and overhead at least 0, "
            f"got {share}, {views} and {overhead}"
        )
    batch = max(work.global_batch, machine.devices * machine.batch_size)
    steps = -(-work.samples // batch)
    rate = machine.devices * machine.flops_per_second * share
    # A ring: each device sends and receives every gradient twice, but for its own part.
    sent = 2 * (machine.devices - 1) / machine.devices * work.gradient_bytes
    network = sent / machine.link_bytes_per_second
    micro_batches = -(-batch // (machine.devices * machine.batch_size))
    beside = steps * (micro_batches * overhead + network)
    encoding, stepping = work.pictures_per_sample * work.encoder_flops, work.step_flops
    return Estimate(
        stage=work.stage,
        machine=machine.name,
        steps=steps,
        samples_a_step=batch,
        hours=(work.samples * (encoding + stepping) / rate + beside) / 3600,
        fill_hours=work.pictures * views * work.encoder_flops / rate / 3600,
        cached_hours=(work.samples * stepping / rate + beside) / 3600,
        cache_gigabytes=work.pictures * views * CACHED_BYTES / 1e9,
        gradient_megabytes=work.gradient_bytes / 1e6,
        network_seconds=network,
    )


def work_of(settings: RunSettings, measured: Mapping[str, float], published_devices: int = 8) -> Work:
    """What a configuration asks for.

    Args:
        settings: Of the stage.
        measured: By task, the FLOPs of a step's sample.
        published_devices: For which its batch size is.

    Raises:
        ValueError: If a data set is none of `PICTURES`, or its task was not measured.
    """
    drawn = {name: data for name, data in settings.data.items() if data.weight}
    if unknown := sorted(set(drawn) - set(PICTURES)):
        raise ValueError(f"how many pictures {unknown[0]} has is not known here; known are {', '.join(PICTURES)}")
    total = sum(data.weight for data in drawn.values())
    shares = {name: data.weight / total for name, data in drawn.items()}
    model = skeleton(settings, settings.model)
    global_batch = settings.batch_size * settings.accumulate * published_devices
    return Work(
        stage=settings.stage,
        samples=settings.steps * global_batch,
        global_batch=global_batch,
        pictures_per_sample=sum(share * pictures_of(drawn[name]) for name, share in shares.items()),
        encoder_flops=encoder_flops(settings.model.size),
        step_flops=sum(share * step_flops(drawn[name], measured) for name, share in shares.items()),
        trained=sum(p.numel() for group in model.parameter_groups().values() for p in group),
        pictures=sum(PICTURES[name] for name in drawn),
    )


def pictures_of(data: DataSettings) -> float:
    """How many pictures a sample has, in the mean."""
    references = {"ris": 0.0, "fss": float(data.shots), "vos": 1.0, "rvos": 1 - data.language_only}
    return 1 + references[data.task]


def step_flops(data: DataSettings, measured: Mapping[str, float]) -> float:
    """FLOPs of a sample; with a sentence and a frame about those with the frame alone.

    Raises:
        ValueError: If the task was not measured.
    """
    if missing := {"ris", "fss", "vos"} - set(measured):
        raise ValueError(f"the measured file has no step of {', '.join(sorted(missing))}; measure all tasks")
    if data.task == "rvos":
        return data.language_only * measured["ris"] + (1 - data.language_only) * measured["vos"]
    return measured[data.task]


def encoder_flops(size: str) -> float:
    """Of one picture, as segment-anything's encoder computes it; shapes alone, without memory."""
    with torch.device("meta"):
        encoder = build_sam(size).image_encoder
        pixels = torch.empty(1, 3, encoder.img_size, encoder.img_size)
    with torch.no_grad():
        return counted_flops(lambda: encoder(pixels))


def measured_steps(path: Path) -> dict[str, float]:
    """By task, the FLOPs of a sample of ``step alone`` in what ``benchmark.py train --json`` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; make it with eval/benchmark.py train --size vit_b --json {path}")
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
        steps = [row for row in rows if row.get("implementation") == "step alone"]
        return {row["task"]: row["flops"] / row["batch_size"] for row in steps}
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not what eval/benchmark.py train --json writes ({error!r})") from error


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="of the stages, such as configs/sam_vit_h_*.yaml")
    parser.add_argument(
        "--measured", type=Path, nargs="+", required=True, help="what benchmark.py train --json wrote, of all tasks"
    )
    parser.add_argument("--share", type=float, default=0.35, help="of the devices' peak that is assumed")
    parser.add_argument("--overhead", type=float, default=0.1, help="seconds of a device's batch beside its products")
    parser.add_argument("--views", type=int, default=2, help="of each picture in the cache: it and its mirror image")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the estimates")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    given = parse_arguments(arguments)
    try:
        measured = {task: flops for path in given.measured for task, flops in measured_steps(path).items()}
        works = [work_of(load_settings(path), measured) for path in given.configs]
        found = [
            estimate(work, machine, share=given.share, views=given.views, overhead=given.overhead)
            for work in works
            for machine in MACHINES
        ]
    except (ValueError, OSError) as error:
        return say_error(error)
    rows = [asdict(row) for row in found]
    if given.json is not None:
        assumed = {"share": given.share, "views": given.views, "overhead": given.overhead}
        write_json(given.json, {**assumed, "work": list(map(asdict, works)), "rows": rows})
    sys.stdout.write(f"{markdown_table([asdict(work) for work in works])}\n\n{markdown_table(rows)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

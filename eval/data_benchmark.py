"""What data costs: preparing and opening a million annotations, a row at random, samples a second of the loader.

The annotations are made up and the pictures are a few, linked under many names. Beside the loader stands what people
write by hand: pycocotools' ``COCO`` on the whole JSON file, and a plain PyTorch data set on top of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from sam_uniref.data import ObjectTable, SourceOptions, TrainingBatches, open_source
from sam_uniref.data.formats import named_format
from sam_uniref.data.prepared.source import open_objects
from sam_uniref.memory import tree_megabytes
from sam_uniref.state import write_json
from sam_uniref.transforms import ImageTransform, SquareTransform

IMAGE_SIZE = (480, 640)
FRAME_SIZE = (360, 640)
# Like COCO's: some 7 objects a picture, polygons of some 30 points; YouTube-VOS has some 27 annotated frames a video.
OBJECTS_AN_IMAGE, POINTS, FRAMES_A_VIDEO = 7, 30, 27
PICTURES = 16
LOOKS = 1000
MEMORY_EVERY = 0.25
SAM_MEAN, SAM_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class TableCost:
    """Preparing and opening one table.

    Attributes:
        table: ``images`` or ``videos``.
        rows: Objects of images, or annotated frames of videos.
        prepare_seconds: From the download to the prepared set.
        prepare_peak_mb: Memory of all its processes together, pages that they share counted once.
        megabytes: On disk.
        open_seconds: Until the first object can be asked for.
        row_milliseconds: Median of an object's row at random, its mask still encoded.
    """

    table: str
    rows: int
    prepare_seconds: float
    prepare_peak_mb: float
    megabytes: float
    open_seconds: float
    row_milliseconds: float


@dataclass(frozen=True)
class LoaderCost:
    """Samples of one picture at the model's input size.

    Attributes:
        loader: ``ours``, or ``pycocotools`` with a plain data set.
        workers: Processes.
        open_seconds: Until the first sample can be asked for.
        samples_per_second: Over all workers, after the first batches.
        peak_mb: Memory of all processes together.
    """

    loader: str
    workers: int
    open_seconds: float
    samples_per_second: float
    peak_mb: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``benchmark.py data``."""
    parser.add_argument("--rows", type=int, default=1_000_000, help="annotated objects of images")
    parser.add_argument("--frames", type=int, default=100_000, help="annotated frames of videos")
    parser.add_argument("--samples", type=int, default=200, help="that each loader gives")
    parser.add_argument("--image-size", type=int, default=1024, help="side of the input square in pixels")
    parser.add_argument("--workers", type=int, default=2, help="processes that prepare, and the most that load")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder, removed after, by default")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures")


# ---- Made-up downloads ----


def _pictures(folder: Path, size: tuple[int, int]) -> list[Path]:
    """A few photographs: smooth, so that they compress like photographs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(PICTURES):
        coarse = np.random.default_rng(number).integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def make_images(root: Path, rows: int) -> None:
    """A COCO-shaped file with sentences, written as a stream, and links to pictures."""
    pictures = _pictures(root / "originals", IMAGE_SIZE)
    (root / "images").mkdir()
    count = -(-rows // OBJECTS_AN_IMAGE)
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    rng = np.random.default_rng(0)
    height, width = IMAGE_SIZE
    with (root / "train.json").open("w") as file:
        file.write('{"categories": [{"id": 1, "name": "thing"}], "images": [')
        for number in range(count):
            os.link(pictures[number % PICTURES], root / "images" / f"{number:012d}.jpg")
            entry = {"id": number, "file_name": f"{number:012d}.jpg", "height": height, "width": width}
            file.write(f"{', ' if number else ''}{json.dumps(entry)}")
        file.write('], "annotations": [')
        for number in tqdm(range(rows), desc="making annotations", mininterval=2):
            radius = rng.uniform(10, 90) * rng.uniform(0.7, 1.0, POINTS)
            center = rng.uniform(100, (width - 100, height - 100))
            outline = np.stack([center[0] + radius * np.cos(angles), center[1] + radius * np.sin(angles)], 1)
            entry = {
                "id": number,
                # Not in the pictures' order, as in COCO.
                "image_id": number % count,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [*outline.min(0).tolist(), *np.ptp(outline, axis=0).tolist()],
                "segmentation": [outline.round(2).ravel().tolist()],
                "expressions": [f"thing number {number}"],
            }
            file.write(f"{', ' if number else ''}{json.dumps(entry)}")
        file.write("]}")


def make_videos(root: Path, frames: int) -> None:
    """YouTube-VOS's layout, two objects a frame, with links to pictures and masks."""
    pictures = _pictures(root / "originals", FRAME_SIZE)
    masks = []
    rows, columns = np.mgrid[: FRAME_SIZE[0], : FRAME_SIZE[1]]
    for number in range(PICTURES):
        ids = np.zeros(FRAME_SIZE, np.uint8)
        for object_id, x in ((1, 150 + 10 * number), (2, 480 - 10 * number)):
            ids[(rows - 180) ** 2 + (columns - x) ** 2 < 80**2] = object_id
        masks.append(root / "originals" / f"{number}.png")
        picture = Image.fromarray(ids, mode="L")
        picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        picture.save(masks[-1])
    videos = {}
    for start in tqdm(range(0, frames, FRAMES_A_VIDEO), desc="making videos", mininterval=2):
        name, stems = f"{start:010d}", [f"{5 * t:05d}" for t in range(min(FRAMES_A_VIDEO, frames - start))]
        for kind, suffix, originals in (("JPEGImages", "jpg", pictures), ("Annotations", "png", masks)):
            folder = root / "train" / kind / name
            folder.mkdir(parents=True)
            for t, stem in enumerate(stems):
                os.link(originals[t % PICTURES], folder / f"{stem}.{suffix}")
        videos[name] = {"objects": {k: {"category": "thing", "frames": stems} for k in ("1", "2")}}
    write_json(root / "train" / "meta.json", {"videos": videos})


# ---- Costs ----


@contextmanager
def watched_memory(process_id: int | None = None) -> Iterator[list[float]]:
    """The most megabytes that a process (by default this) and its children hold, looked at four times a second."""
    peak, done = [tree_megabytes(process_id)], threading.Event()

    def watch() -> None:
        while not done.wait(MEMORY_EVERY):
            peak[0] = max(peak[0], tree_megabytes(process_id))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def table_cost(name: str, task: Any, root: Path, out: Path, workers: int) -> TableCost:
    """Prepare a made-up download, open it, look at rows."""
    layout = named_format(name)
    start = time.perf_counter()
    # As people do it, and in a process of its own, so that the memory is that of preparing alone.
    options = ["--root", str(root), "--out", str(out), "--workers", str(workers)]
    command = [sys.executable, "-c", "from sam_uniref.cli import main; main()", "data", "prepare", name, *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process, watched_memory(process.pid) as peak:  # noqa: S603
        code = process.wait()
    if code:
        raise RuntimeError(f"preparing {name} failed with {code}; its message is above")
    prepared = time.perf_counter() - start
    folder = out / name
    import_module("datasets")  # what opening costs, not what the library takes to be there
    start = time.perf_counter()
    objects = open_objects(folder, task)
    objects[0]
    opened = time.perf_counter() - start
    numbers = np.random.default_rng(0).integers(0, len(objects), LOOKS)
    seconds = [_seconds_of(objects, int(number)) for number in numbers]
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    rows = len(np.unique(objects.columns.picture)) if layout.table == "videos" else len(objects)
    return TableCost(layout.table, rows, prepared, peak[0], disk, opened, 1e3 * statistics.median(seconds))


def _seconds_of(objects: ObjectTable, number: int) -> float:
    start = time.perf_counter()
    objects[number]
    return time.perf_counter() - start


class PlainReferring(Dataset[tuple[torch.Tensor, torch.Tensor, str]]):
    """What people write by hand: picture, mask and sentence of an annotation, flipped at random, at the input size."""

    def __init__(self, root: Path, transform: ImageTransform) -> None:
        from pycocotools.coco import COCO

        self.coco = COCO(str(root / "train.json"))
        self.root, self.transform = root, transform
        self.numbers = sorted(self.coco.anns)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, str]:
        annotation = self.coco.anns[self.numbers[index]]
        name = self.coco.imgs[annotation["image_id"]]["file_name"]
        image = np.asarray(Image.open(self.root / "images" / name).convert("RGB"))
        mask = self.coco.annToMask(annotation).astype(bool)
        if np.random.default_rng(index).random() < 0.5:
            image, mask = image[:, ::-1].copy(), mask[:, ::-1].copy()
        return self.transform.image(image)[0], self.transform.mask(mask), annotation["expressions"][0]


def our_loader(folder: Path, transform: ImageTransform, samples: int, workers: int) -> DataLoader[Any]:
    """A training run's loader, one sample a batch."""
    options = SourceOptions(root=str(folder), crop=0.0)
    source = open_source("prepared", "made-up", "ris", options)
    batches = TrainingBatches([source], transform, steps=samples, batch_size=1)
    return DataLoader(batches, batch_size=None, num_workers=workers)


def plain_loader(root: Path, transform: ImageTransform, samples: int, workers: int) -> DataLoader[Any]:
    """A plain loader over the same annotations, in an order of its own."""
    dataset = PlainReferring(root, transform)
    order = np.random.default_rng(0).permutation(len(dataset))[:samples].tolist()
    return DataLoader(dataset, batch_size=1, sampler=order, num_workers=workers)


def loader_cost(name: str, make: Any, place: Path, transform: ImageTransform, samples: int, workers: int) -> LoaderCost:
    """Open a loader and take samples; the first tenth warms up."""
    with watched_memory() as peak:
        start = time.perf_counter()
        loader = make(place, transform, samples, workers)
        opened = time.perf_counter() - start
        warm = samples // 10
        for number, _ in enumerate(tqdm(loader, desc=f"{name}, {workers} workers", mininterval=2)):
            if number == warm:
                start = time.perf_counter()
        rate = (samples - 1 - warm) / (time.perf_counter() - start)
    return LoaderCost(name, workers, opened, rate, peak[0])


# ---- The command ----


def run(arguments: argparse.Namespace) -> None:
    """Measure, show, write.

    Raises:
        ValueError: If a number is too small.
    """
    for name, least in (("rows", 1), ("frames", 1), ("samples", 20), ("image_size", 1), ("workers", 1)):
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(arguments, name)}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        tables, loaders = measure(Path(folder), arguments)
    if arguments.json is not None:
        rows = {"tables": [asdict(cost) for cost in tables], "loaders": [asdict(cost) for cost in loaders]}
        write_json(arguments.json, {"cores": os.cpu_count(), "image_size": arguments.image_size, **rows})
    console = Console(width=130)
    for title, costs in (("tables", tables), (f"loaders at {arguments.image_size} px", loaders)):
        shown = Table(*asdict(costs[0]), title=title)
        for cost in costs:
            shown.add_row(*(f"{v:,.3g}" if isinstance(v, float) else f"{v}" for v in asdict(cost).values()))
        console.print(shown)


def measure(folder: Path, arguments: argparse.Namespace) -> tuple[list[TableCost], list[LoaderCost]]:
    """Both tables, and both loaders with one worker and more."""
    images, videos, out = folder / "images", folder / "videos", folder / "prepared"
    for root in (images, videos):
        root.mkdir()
    make_images(images, arguments.rows)
    make_videos(videos, arguments.frames)
    tables = [
        table_cost("coco_expressions", "ris", images, out, arguments.workers),
        table_cost("youtube_vos_2019", "vos", videos, out, arguments.workers),
    ]
    transform = SquareTransform(arguments.image_size, SAM_MEAN, SAM_STD)
    loaders = [
        loader_cost(name, make, place, transform, arguments.samples, workers)
        for workers in sorted({1, arguments.workers})
        for name, make, place in (
            ("ours", our_loader, out / "coco_expressions"),
            ("pycocotools", plain_loader, images),
        )
    ]
    return tables, loaders

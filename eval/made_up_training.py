"""Training to be measured: a SamRef with random weights, pictures that are made up, and a cache of made-up features.

Costs are asked for here and not answers, and random weights cost what trained ones do. Pictures have the sizes of
COCO's (640 x 480) and of 480p videos (854 x 480): what of the square is padding counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from sam_uniref import packaged
from sam_uniref.adapters import load_text_model
from sam_uniref.cache import CacheDescription, FeatureCache
from sam_uniref.cache.features import picture_key
from sam_uniref.cache.shard import Record, write_shard
from sam_uniref.data import ReferenceBatch, Task, TrainingBatches
from sam_uniref.data.shown import shown_pictures
from sam_uniref.sam import ImageEncoder, SamHost, build_sam
from sam_uniref.samref import SamRef
from sam_uniref.train.build import build_datasets, build_optimizer
from sam_uniref.train.loader import BatchLoader
from sam_uniref.train.settings import DataSettings, RunSettings
from sam_uniref.train.step import take_step

STAGES = {"ris": "image", "fss": "image", "vos": "video"}
IMAGE_SIZE, FRAME_SIZE = (480, 640), (480, 854)
_GROUPS = 8  # a sample of a batch
_SENTENCES = ("the large red circle left of the blue square", "a small green star at the top")


def made_up_model(size: str, task: str, *, encoder: bool = True) -> SamRef:
    """A SamRef for training, with random weights everywhere and fusion that does something.

    Args:
        size: Of the SAM.
        task: With sentences there is a BERT-base (``tiny``: the packaged text encoder), trained as in the image stage.
        encoder: Without, there is no image encoder: features must come from elsewhere.
    """
    torch.manual_seed(0)
    # All released SAMs have decoders of one size, so that without its encoder the smallest one serves for any.
    host = SamHost(build_sam(size if encoder or size == "tiny" else "vit_b"))
    if not encoder:
        host.image_encoder = cast(ImageEncoder, nn.Identity())
    config = SamRef.config_class.for_size(size)
    text = None
    if task == "ris":
        text = SamRef.wrap_text_model(*_text_model(size), host.channels, config.text_encoder)
    model = SamRef(host, text, config)
    for parameter in model.fusion.parameters():
        if parameter.ndim > 1 and not parameter.any():  # a gate of zero would keep all gradients from it
            nn.init.normal_(parameter, std=0.02)
    model.train_text_encoder(STAGES[task] == "image")
    return model


def _text_model(size: str) -> tuple[nn.Module, Any]:
    """A language model and a tokenizer that gives it numbers that it knows."""
    model, tokenizer = load_text_model(packaged.text_encoder("tiny"))
    if size != "tiny":
        import transformers

        model = transformers.BertModel(transformers.BertConfig(), add_pooling_layer=False)
    return model, tokenizer


def made_up_folder(root: Path, task: str, count: int) -> None:
    """So many classes of two pictures with a sentence about each, or clips of two frames, as a user's own folder.

    Samples of a batch then seldom have a picture in common, which would be encoded once for both.
    """
    rng = np.random.default_rng(0)
    sentences = []
    for group in range(count):
        if STAGES[task] == "video":
            pictures, masks, size = root / f"clips/{group}/images", root / f"clips/{group}/masks", FRAME_SIZE
        else:
            pictures = masks = root / f"classes/{group}"
            size = IMAGE_SIZE
        for folder in (pictures, masks):
            folder.mkdir(parents=True, exist_ok=True)
        for name in ("00000", "00001"):
            Image.fromarray(_picture(rng, size)).save(pictures / f"{name}.jpg", quality=90)
            Image.fromarray(_disc(rng, size)).save(masks / f"{name}.png")
            text = _SENTENCES[group % len(_SENTENCES)]
            sentences.append(json.dumps({"image": f"classes/{group}/{name}.jpg", "object": 1, "text": text}))
    if task == "ris":
        (root / "expressions.jsonl").write_text("\n".join(sentences), encoding="utf-8")


def _picture(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Smooth noise, which a JPEG takes as many bytes for as for a photograph."""
    coarse = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _disc(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """One object, somewhere."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    row, column = (rng.integers(side // 4, 3 * side // 4) for side in size)
    return np.where((rows - row) ** 2 + (columns - column) ** 2 < (size[0] // 6) ** 2, 255, 0).astype(np.uint8)


@dataclass
class MadeUpTraining:
    """A run that can be asked for one step at a time.

    Args:
        size: Of the SAM.
        task: ``ris``, ``fss`` or ``vos``.
        folder: To put pictures and features into.
        batch_size: Samples of a step.
        precision: One of `sam_uniref.sam.image_encoder.PRECISIONS`.
        device: To train on.
        encoder: Without, there is no image encoder.
        workers: Processes of the loader; with none, loading is part of a step's time.
    """

    size: str
    task: Task
    folder: Path
    batch_size: int
    precision: str
    device: torch.device
    encoder: bool = True
    workers: int = 0
    model: SamRef = field(init=False)
    settings: RunSettings = field(init=False)
    _steps: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        made_up_folder(self.folder / "data", self.task, count=_GROUPS * self.batch_size)
        data = DataSettings(root=str(self.folder / "data"), task=self.task, flip=0.0, crop=0.0)
        self.settings = RunSettings(
            stage=STAGES[self.task],
            output=str(self.folder),
            batch_size=self.batch_size,
            precision="no" if self.precision == "float32" else self.precision,
            workers=self.workers,
            tracker="none",
            data={"made_up": data},
        )
        AcceleratorState._reset_state()  # of the run before, whose precision would be that of the whole process
        self.accelerator = Accelerator(cpu=self.device.type == "cpu", mixed_precision=self.settings.precision)
        self.model = made_up_model(self.size, self.task, encoder=self.encoder).to(self.device)
        self._datasets = build_datasets(self.settings)
        self._optimizer: Any
        optimizer = build_optimizer(self.model, self.settings.optimiser)
        self._prepared, self._optimizer = self.accelerator.prepare(self.model, optimizer)
        self._prepared.train()

    def batches(self, features: FeatureCache | None = None) -> Iterator[ReferenceBatch]:
        """What the loader gives, without end for what is measured here."""
        settings = self.settings
        batches = TrainingBatches(
            self._datasets, self.model.transform, settings.steps, settings.batch_size, features=features
        )
        return BatchLoader(batches, 0, settings.workers, settings.loader_timeout)

    def cache(self) -> FeatureCache:
        """Features of all pictures, in bfloat16 as a cache has them by default: noise of the right shape."""
        host, folder = self.model.sam, self.folder / "cache"
        side = host.transform.size // host.strides[0]
        description = CacheDescription("made up", host.transform.size, ((host.channels, side, side),), "bfloat16")
        records = [
            Record(picture_key(view), picture.name, description.layout.pack([torch.randn(host.channels, side, side)]))
            for picture in shown_pictures(self._datasets)
            for view in picture.views()
        ]
        description.write(folder)
        write_shard(folder, description.digest, records)
        return FeatureCache(folder, description)

    def step(self, batch: ReferenceBatch) -> None:
        """One step of training, as `sam_uniref.train.step` takes it."""
        take_step(self.accelerator, self._prepared, self._optimizer, [batch], self.settings, self._steps)
        self._steps += 1

    @property
    def optimizer_groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups of parameters, which may be changed."""
        return cast(list[dict[str, Any]], self._optimizer.param_groups)

    def encode(self, batch: ReferenceBatch) -> None:
        """The image encoder alone."""
        with self.accelerator.autocast():
            self.model.encode_levels(batch.pixels.to(self.device))

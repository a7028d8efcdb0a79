"""SAM's own training: scenes, simulated prompts and losses, for the tiny SAM that is learned from nothing.

Notation: B images, N objects in them, S the input square's side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.utils.data
from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.data.refshapes import COLOURS, SEEN_SHAPES, TEXTURES, Draws, Scene, draw_scene, render
from sam_uniref.interfaces import Prompts
from sam_uniref.losses import mask_iou, mask_losses
from sam_uniref.sam import SamHost
from sam_uniref.train.prompts import correction_points, noisy_boxes, random_points
from sam_uniref.transforms import ImageTransform

# Apart from the streams of the tasks' own samples.
_SCENES = 100


@dataclass(frozen=True)
class SceneBatch:
    """Images and the objects to ask for in them.

    Attributes:
        pixels: ``(B, 3, S, S)``, normalised.
        masks: ``(N, S, S)`` bool.
        image_index: ``(N,)`` int64, which image each object is in.
        attributes: ``(B, 3, S, S)`` int64, numbers of the shape, colour and texture seen at each pixel; -1 where there
            is no object.
    """

    pixels: Tensor
    masks: Tensor
    image_index: Tensor
    attributes: Tensor

    def to(self, device: torch.device) -> SceneBatch:
        """All tensors on ``device``."""
        tensors = (self.pixels, self.masks, self.image_index, self.attributes)
        return SceneBatch(*(tensor.to(device) for tensor in tensors))


@dataclass
class SceneBatches(torch.utils.data.Dataset[SceneBatch]):
    """Item i is this process's batch of step i, drawn from RefShapes.

    Attributes:
        transform: Of the SAM that is trained.
        steps: Of the run.
        batch_size: Scenes a process takes at a step.
        objects: Most objects asked for in a scene.
        seed: Of the run.
        split: 0 for training, 1 for validation.
        rank: Of this process.
        processes: Number of processes.
    """

    transform: ImageTransform
    steps: int
    batch_size: int
    objects: int = 3
    seed: int = 0
    split: int = 0
    rank: int = 0
    processes: int = 1

    def __len__(self) -> int:
        """Number of steps."""
        return self.steps

    def __getitem__(self, step: int) -> SceneBatch:
        """This process's scenes of a step."""
        pixels, masks, index, attributes = [], [], [], []
        for place in range(self.batch_size):
            number = (step * self.processes + self.rank) * self.batch_size + place
            draws = Draws(self.seed, self.split, _SCENES, number)
            scene = draw_scene(draws)
            image, ids = render(scene, self.transform.size)
            attributes.append(_attributes(scene)[torch.from_numpy(ids).long()].permute(2, 0, 1))
            pixels.append(self.transform.image(image)[0])
            seen = [int(i) for i in np.unique(ids) if i > 0]
            for object_id in draws.shuffled(seen)[: self.objects]:
                masks.append(torch.from_numpy(ids == object_id))
                index.append(place)
        return SceneBatch(torch.stack(pixels), torch.stack(masks), torch.tensor(index), torch.stack(attributes))


def _attributes(scene: Scene) -> Tensor:
    """``(1 + objects, 3)``: the numbers of each object's shape, colour and texture; -1 for the background."""
    rows = [
        (list(SEEN_SHAPES).index(o.shape), list(COLOURS).index(o.colour), list(TEXTURES).index(o.texture))
        for o in scene.objects
    ]
    return torch.tensor([(-1, -1, -1), *rows])


class Surroundings(nn.Module):
    """Reads what is around each cell of the image features from them, linearly.

    SAM's encoder started from a masked autoencoder (He et al. 2022), whose features know what things look like. A tiny
    one that learns from prompts alone forgets colours and shapes, which clicks don't need and references do.

    Args:
        channels: Width C of the image features.
        stride: Pixels a cell.
        reach: Side of what is read, in cells.
    """

    def __init__(self, channels: int, stride: int, reach: int = 5) -> None:
        super().__init__()
        self.step = stride // 2  # a cell is read as 2 x 2 values
        self.side = 2 * reach
        self.read = nn.Linear(channels, 3 * self.side**2)

    def forward(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Mean squared error, for features ``(B, C, h, w)`` of the normalised ``(B, 3, S, S)``."""
        small = F.avg_pool2d(pixels, self.step)
        # Beyond the picture lies SAM's mean colour, with which it pads.
        around = F.unfold(small, self.side, padding=self.side // 2 - 1, stride=2)
        return F.mse_loss(self.read(features.flatten(2).transpose(1, 2)).float(), around.transpose(1, 2))


class Attributes(nn.Module):
    """Reads the shape, colour and texture of the object at each cell from the image features, linearly.

    What 11 million photographs do for SAM: prompts alone leave a tiny encoder without a notion of what a thing is, and
    a reference can only point at what the frozen features tell apart.

    Args:
        channels: Width C of the image features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sizes = (len(SEEN_SHAPES), len(COLOURS), len(TEXTURES))
        self.read = nn.Linear(channels, sum(self.sizes))

    def forward(self, features: Tensor, attributes: Tensor) -> Tensor:
        """Mean cross-entropy over cells that show an object.

        Args:
            features: ``(B, C, h, w)``.
            attributes: ``(B, 3, S, S)``, as in `SceneBatch`.
        """
        stride = attributes.shape[-1] // features.shape[-1]
        targets = attributes[:, :, stride // 2 :: stride, stride // 2 :: stride]
        logits = self.read(features.permute(0, 2, 3, 1)).float().split(self.sizes, dim=-1)
        shown = targets[:, 0] >= 0
        if not shown.any():  # a mean over nothing is not a number
            return logits[0].sum() * 0
        losses = [F.cross_entropy(logits[k][shown], targets[:, k][shown]) for k in range(len(self.sizes))]
        return torch.stack(losses).mean()


class PromptableTraining(nn.Module):
    """A SAM with the losses of its own training, and two for what its features know of the picture.

    Args:
        host: The SAM; all of it is trained.
        rounds: Prompts an object gets: a click or a box first, then corrections.
    """

    def __init__(self, host: SamHost, rounds: int = 3) -> None:
        super().__init__()
        self.host = host.requires_grad_(True)
        self.surroundings = Surroundings(host.channels, host.strides[0])
        self.attributes = Attributes(host.channels)
        self.rounds = rounds

    def forward(self, batch: SceneBatch) -> dict[str, Tensor]:
        """Mean losses over rounds and objects, ``bce``, ``dice`` and ``iou`` as in finetuning; and of the features."""
        (features,), _ = self.host.encode(batch.pixels)
        rows = features[batch.image_index]
        valid = torch.ones_like(batch.masks)
        targets = batch.masks.to(features.dtype)
        prompts = self._first_prompts(batch)
        totals: dict[str, Tensor] = {}
        for number in range(self.rounds):
            # One click is ambiguous: SAM answers with three masks and learns from the best of them.
            low_res, scores = self._decode(rows, prompts, ambiguous=number == 0)
            logits = F.interpolate(low_res, targets.shape[-2:], mode="bilinear", align_corners=False)
            for name, loss in _losses(logits, scores, targets, valid).items():
                totals[name] = totals.get(name, torch.zeros(())) + loss / self.rounds
            prompts = _corrected(prompts, logits[:, 0].detach(), low_res[:, :1].detach(), batch.masks)
        totals["surroundings"] = self.surroundings(features, batch.pixels)
        totals["attributes"] = self.attributes(features, batch.attributes)
        return totals

    def _first_prompts(self, batch: SceneBatch) -> Prompts:
        """A click or a noisy box, for all objects of a step alike."""
        if torch.rand(()) < 0.5:
            points = random_points(batch.masks)
            labels = torch.ones(points.shape[:2], dtype=torch.int64, device=points.device)
            return Prompts(batch.image_index, points=points, labels=labels)
        return Prompts(batch.image_index, boxes=noisy_boxes(batch.masks))

    def _decode(self, rows: Tensor, prompts: Prompts, *, ambiguous: bool) -> tuple[Tensor, Tensor]:
        """The single mask ``(N, 1, h, w)``; for a first prompt the three candidates behind it."""
        logits, scores = self.host.decode_all(rows, prompts, None, self.host.mask_decoder)
        return (logits, scores) if ambiguous else (logits[:, :1], scores[:, :1])


def _losses(logits: Tensor, scores: Tensor, targets: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """Losses of the single mask, and of the best of the three where they are there."""
    single = mask_losses(logits[:, 0], scores[:, 0], targets, valid)
    if logits.shape[1] == 1:
        return single
    with torch.no_grad():
        ious = torch.stack([mask_iou(logits[:, k] > 0, targets, valid) for k in range(1, logits.shape[1])], dim=1)
        errors = (logits[:, 1:].sigmoid() - targets[:, None]).abs().mean(dim=(2, 3))
        best = errors.argmin(dim=1)
    rows = torch.arange(len(best), device=best.device)
    multiple = mask_losses(logits[rows, best + 1], scores[rows, best + 1], targets, valid)
    multiple["iou"] = F.mse_loss(scores[:, 1:].float(), ious)
    return {name: (single[name] + multiple[name]) / 2 for name in single}


def _corrected(prompts: Prompts, logits: Tensor, low_res: Tensor, masks: Tensor) -> Prompts:
    """The prompts with one more click and the last answer."""
    points, labels = correction_points(logits, masks)
    if prompts.points is not None and prompts.labels is not None:
        points = torch.cat([prompts.points, points], dim=1)
        labels = torch.cat([prompts.labels, labels], dim=1)
    return Prompts(prompts.image_index, points, labels, prompts.boxes, low_res)


@torch.no_grad()
def click_iou(host: SamHost, batches: SceneBatches) -> float:
    """Mean IoU of the single mask after one click, over all objects of some batches."""
    ious = []
    device = next(host.parameters()).device
    for step in range(len(batches)):
        batch = batches[step].to(device)
        torch.manual_seed(step)
        points = random_points(batch.masks)
        labels = torch.ones(points.shape[:2], dtype=torch.int64, device=device)
        (features,), _ = host.encode(batch.pixels)
        prompts = Prompts(batch.image_index, points=points, labels=labels)
        logits, _ = host.decode(features[batch.image_index], prompts, None, host.mask_decoder)
        logits = F.interpolate(logits, batch.masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        ious.append(mask_iou(logits > 0, batch.masks, torch.ones_like(batch.masks)))
    return torch.cat(ious).mean().item()

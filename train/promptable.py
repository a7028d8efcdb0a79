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

from sam_uniref.data.refshapes import Draws, draw_scene, render
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
    """

    pixels: Tensor
    masks: Tensor
    image_index: Tensor

    def to(self, device: torch.device) -> SceneBatch:
        """All tensors on ``device``."""
        return SceneBatch(self.pixels.to(device), self.masks.to(device), self.image_index.to(device))


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
        pixels, masks, index = [], [], []
        for place in range(self.batch_size):
            number = (step * self.processes + self.rank) * self.batch_size + place
            draws = Draws(self.seed, self.split, _SCENES, number)
            image, ids = render(draw_scene(draws), self.transform.size)
            pixels.append(self.transform.image(image)[0])
            seen = [int(i) for i in np.unique(ids) if i > 0]
            for object_id in draws.shuffled(seen)[: self.objects]:
                masks.append(torch.from_numpy(ids == object_id))
                index.append(place)
        return SceneBatch(torch.stack(pixels), torch.stack(masks), torch.tensor(index))


class PromptableTraining(nn.Module):
    """A SAM with the losses of its own training.

    Args:
        host: The SAM; all of it is trained.
        rounds: Prompts an object gets: a click or a box first, then corrections.
    """

    def __init__(self, host: SamHost, rounds: int = 3) -> None:
        super().__init__()
        self.host = host.requires_grad_(True)
        self.rounds = rounds

    def forward(self, batch: SceneBatch) -> dict[str, Tensor]:
        """Mean losses over rounds and objects: ``bce``, ``dice`` and ``iou``, as in finetuning."""
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

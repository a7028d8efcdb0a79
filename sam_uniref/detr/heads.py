"""What is read off a query or an encoder token: its class, its box, by option how well the box fits."""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn
from torch.nn import functional as F

# A share of foreground of 0.01 to start from, as focal loss wants it (Lin et al. 2017): a bias of -4.595.
_FOREGROUND = 0.01


class Mlp(nn.Module):
    """Linear layers with ReLU between.

    Args:
        channels: Width of the input.
        hidden: Width between the layers.
        out: Width of the output.
        layers: Their number.
        zero: The last layer starts from zero. Otherwise all of them start by Glorot's rule (2010).
    """

    def __init__(self, channels: int, hidden: int, out: int, layers: int, *, zero: bool = False) -> None:
        super().__init__()
        widths = [channels, *[hidden] * (layers - 1), out]
        linears = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        if zero:
            nn.init.zeros_(linears[-1].weight)
            nn.init.zeros_(linears[-1].bias)
        else:
            for linear in linears:
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)
        self.layers = nn.ModuleList(linears)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., channels)`` to ``(..., out)``."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class DetectionHeads(nn.Module):
    """Class and box heads of every decoder layer, each its own, and of the encoder's proposals, which come last.

    Args:
        channels: Width C.
        classes: Number of classes.
        decoder_layers: L; there are L + 1 class and box heads, and by option L IoU heads.
        iou_head: Also predict the IoU of a query's box.
    """

    def __init__(self, channels: int, *, classes: int, decoder_layers: int, iou_head: bool = False) -> None:
        super().__init__()
        heads = decoder_layers + 1
        self.channels = channels
        self.classes = _rare(channels, classes, heads)
        self.boxes = nn.ModuleList(Mlp(channels, channels, 4, 3, zero=True) for _ in range(heads))
        self.ious = _rare(channels, 1, decoder_layers) if iou_head else None

    def renew_classes(self, classes: int) -> None:
        """Start the class heads anew, for another number of classes."""
        device = next(self.parameters()).device
        self.classes = _rare(self.channels, classes, len(self.classes)).to(device)


def _rare(channels: int, out: int, count: int) -> nn.ModuleList:
    """Linear layers to logits that start as of something rare."""
    heads = [nn.Linear(channels, out) for _ in range(count)]
    for head in heads:
        nn.init.constant_(head.bias, -math.log((1 - _FOREGROUND) / _FOREGROUND))
    return nn.ModuleList(heads)

"""From words to prompts: the cross-modal MLP gives sparse ones, dense attention a dense one.

Notation: N rows (a sentence about an image), L words, C channels of the image features.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.adapters import ReferenceFeatures
from sam_uniref.adapters.text_encoder import mean_of_words, sentence_features


class CrossModalMlp(nn.Module):
    """Hidden states of a language model to features of unit length beside those of the image.

    Args:
        text_channels: Width of the hidden states.
        channels: Width C of the image features.
        width: Of the hidden layers.
        hidden_layers: Between the first layer and the last.
    """

    def __init__(self, text_channels: int, channels: int, *, width: int = 512, hidden_layers: int = 1) -> None:
        super().__init__()
        widths = [text_channels, *[width] * (hidden_layers + 1), channels]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, hidden: Tensor, padding: Tensor) -> ReferenceFeatures:
        """Words as keys and values, the sentence as pooled vector.

        The sentence is the MLP of the mean hidden state, not the mean of the words' features.

        Args:
            hidden: ``(N, L, text_channels)``.
            padding: ``(N, L)`` bool, True where a token is padding.
        """
        sentence = self.layers(mean_of_words(hidden, padding))
        return sentence_features(F.normalize(self.layers(hidden), dim=-1), padding, F.normalize(sentence, dim=-1))


class DenseAttention(nn.Module):
    """What each cell of the image reads from the words, beside the cell itself, as a dense prompt.

    The published "hierarchical" attention to several stages of the image encoder is left out: its code does not run,
    and its result is not used.

    Args:
        channels: Width C of the image features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, features: Tensor, sentences: ReferenceFeatures) -> Tensor:
        """Image features ``(N, C, h, w)`` and N sentences to dense prompts ``(N, C, h, w)``."""
        words, sentence, padding = sentences.keys[0], sentences.pooled[0], sentences.padding[0]
        tokens = torch.cat([words, sentence[:, None]], dim=1)
        seen = ~F.pad(padding, (0, 1))
        cells = features.flatten(2).transpose(1, 2)
        read = F.scaled_dot_product_attention(cells, tokens, tokens, attn_mask=seen[:, None])
        language = read.transpose(1, 2).reshape(features.shape)
        return self.convolution(torch.cat([features, language], dim=1))

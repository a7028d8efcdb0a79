"""What a person types as a sentence: one, that names one object, in words that the text encoder knows.

Data sets are not held to this: whatever an annotator wrote is encoded as it stands.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sam_uniref.trainable import TrainableModel

logger = logging.getLogger(__name__)

# Unicode's categories of control characters, halves of characters, and what it knows nothing of.
_NO_TEXT = ("Cc", "Cs", "Co", "Cn")
# Two words or more on each side of what ends a sentence; "the St. Bernard", "no. 7" and "mr. Smith" are one.
_TWO_SENTENCES = re.compile(r"\S+\s+[^\s.!?]{3,}[.!?]+\s+\w+\s+\w|\S\s*[\n\u3002\uff01\uff1f]\s*\w")


def check_one_sentence(text: str) -> str:
    """The sentence without spaces around it.

    Raises:
        ValueError: If it is empty, holds what no keyboard types, or is two.
    """
    sentence = text.strip()
    if not sentence:
        raise ValueError("a sentence must name something, got an empty one; leave it out instead")
    check_characters(sentence, "a sentence")
    if _TWO_SENTENCES.search(sentence):
        raise ValueError(
            f"one sentence names one object, got two: {sentence[:60]!r}; ask for one after the other, or write it "
            "without a full stop"
        )
    return sentence


def check_characters(text: str, what: str) -> None:
    """Refuse control characters and halves of characters, which no file takes.

    Args:
        text: What was typed; spaces of all kinds are none of these.
        what: What it is called in messages.

    Raises:
        ValueError: If there is one.
    """
    if any(unicodedata.category(character) in _NO_TEXT for character in text if not character.isspace()):
        raise ValueError(f"{what} is words, got {text[:60]!a}")


def check_known_words(sentence: str, model: TrainableModel) -> None:
    """Refuse a sentence of which the model's text encoder knows no word; warn where it knows some.

    Raises:
        ValueError: If it knows none: it was made for another language or script, or for fewer words.
    """
    if model.text_encoder is None:
        return
    tokenizer = model.text_encoder.tokenizer
    words = re.findall(r"\w+", sentence) or [sentence]
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    unknown = [word for word, tokens in zip(words, ids, strict=True) if not tokens or tokenizer.unk_token_id in tokens]
    if len(unknown) == len(words):
        raise ValueError(
            f"the model's text encoder knows no word of {sentence[:60]!r}; use its language and words, or an example "
            "in place of a sentence"
        )
    if unknown:
        logger.warning("the model's text encoder does not know %s", ", ".join(repr(word) for word in unknown))

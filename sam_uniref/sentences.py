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

# Letters, and the vowel signs of Indian scripts; accents are none: many tokenizers strip them.
_LETTERS = ("Ll", "Lm", "Lo", "Lt", "Lu", "Mc")
_OTHERWISE_WRITTEN = ("LATIN", "CJK", "HIRAGANA", "KATAKANA")
# A tokenizer that was made for a script has pieces of several letters; others spell its words out. BERT's English
# vocabulary holds a few pairs as well: six pieces for the seven letters of a Russian word.
_SPELLED_OUT = 0.75


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
    words = _words(sentence) or [sentence]
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    unknown, known = [], []
    for word, tokens in zip(words, ids, strict=True):
        letters = _foreign_letters(word)
        if not tokens or tokenizer.unk_token_id in tokens or (letters > 1 and len(tokens) >= _SPELLED_OUT * letters):
            unknown.append(word)
        elif letters != 1:  # a letter by itself tells nothing: vocabularies hold those of many scripts
            known.append(word)
    if unknown and not known:
        raise ValueError(
            f"the model's text encoder knows no word of {sentence[:60]!r}; use its language and words, or an example "
            "in place of a sentence"
        )
    if unknown:
        logger.warning("the model's text encoder does not know %s", ", ".join(repr(word) for word in unknown))


def _words(sentence: str) -> list[str]:
    """Runs of letters and digits; the marks that many scripts write vowels with are part of them."""
    kept = (c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in sentence)
    return "".join(kept).split()


def _foreign_letters(word: str) -> int:
    """How many letters a word of a script like Greek or Hangul has; 0 for Latin ones, and for Chinese and Japanese.

    Those last write words with one or two characters each, which tell nothing by their number. A Hangul syllable counts
    as the letters that it is made of.
    """
    letters = [c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) in _LETTERS]
    return 0 if any(unicodedata.name(c, "").startswith(_OTHERWISE_WRITTEN) for c in letters) else len(letters)

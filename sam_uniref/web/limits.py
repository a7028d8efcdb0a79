"""What visitors of the page may ask for."""

from __future__ import annotations

from dataclasses import dataclass, fields

from sam_uniref.sentences import check_one_sentence


class RefusedError(ValueError):
    """What a visitor gave can't be used. The message is for the page: one sentence, nothing of the server in it."""


def refused(error: ValueError) -> RefusedError:
    """A message of the library's as the page's: a sentence with a capital letter and a full stop."""
    message = str(error)
    return RefusedError(f"{message[:1].upper()}{message[1:]}.")


@dataclass(frozen=True)
class Limits:
    """How much one visitor may ask for.

    Attributes:
        upload_megabytes: Size of an uploaded file.
        megapixels: Of a picture, or of one frame.
        frames: Of a video.
        seconds: A video's length.
        examples: Annotated pictures that are given at once.
        objects: In one video.
        sentence: Characters of a sentence.
        keep_minutes: How long a visitor who does nothing is remembered.
        visitors: How many are remembered at once; the one that did nothing for longest is forgotten first.

    Raises:
        ValueError: If one is not positive.
    """

    upload_megabytes: float = 64
    megapixels: float = 16
    frames: int = 300
    seconds: float = 30
    examples: int = 8
    objects: int = 8
    sentence: int = 300
    keep_minutes: float = 60
    visitors: int = 32

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be above 0, got {getattr(self, field.name)}")

    @property
    def upload_bytes(self) -> int:
        """Size of an uploaded file."""
        return int(self.upload_megabytes * 2**20)

    @property
    def pixels(self) -> int:
        """Of a picture or a frame."""
        return int(self.megapixels * 1e6)

    def check_sentence(self, text: object) -> str | None:
        """A sentence as it was meant, or None where there is none.

        Raises:
            RefusedError: If it is too long, no text, or two sentences, or holds what no keyboard types.
        """
        if text is None:
            return None
        if not isinstance(text, str):
            raise RefusedError("The sentence must be text.")
        words = text.strip()
        if not words:
            return None
        if len(words) > self.sentence:
            raise RefusedError(f"The sentence has {len(words)} characters; at most {self.sentence} are taken.")
        try:
            return check_one_sentence(words)
        except ValueError as error:
            raise refused(error) from error

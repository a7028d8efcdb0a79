"""Whether the net may be asked."""

from __future__ import annotations


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids it."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE

"""All readers, by name."""

from __future__ import annotations

import difflib

from sam_uniref.data.formats.base import DataFormat

FORMATS: dict[str, DataFormat] = {layout.name: layout for layout in ()}
"""Readers by name."""


def named_format(name: str) -> DataFormat:
    """A data set's reader.

    Raises:
        ValueError: If there is none of that name; the nearest is named.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, 1)
        raise ValueError(
            f"there is no reader of {name!r}{f'; did you mean {near[0]}?' if near else ''} Known are {sorted(FORMATS)}"
        )
    return FORMATS[name]

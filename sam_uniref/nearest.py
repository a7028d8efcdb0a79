"""What somebody may have meant whose name leads nowhere."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from pathlib import Path

# Names of a folder that are compared with.
_MOST = 10_000


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"``, or nothing where nothing is near."""
    choices = {choice.lower(): choice for choice in known}
    near = difflib.get_close_matches(name.lower(), choices, n=1)
    return f"; did you mean {choices[near[0]]!r}?" if near else ""


def nearest_path(path: str | Path) -> str:
    """The same for a file or folder that is not there: the nearest name where its path breaks off."""
    path = Path(path)
    try:
        if path.exists():
            return ""
        place = next((folder for folder in path.parents if folder.is_dir()), None)
        if place is None:
            return ""
        wrong, *rest = path.parts[len(place.parts) :]
        names = [entry.name for entry in itertools.islice(place.iterdir(), _MOST) if entry.name[0] != "."]
    except (OSError, ValueError):  # no permission to look; a name that no system allows
        return ""
    near = {name.lower(): name for name in names if not rest or (place / name).is_dir()}
    found = difflib.get_close_matches(wrong.lower(), near, n=1)
    if not found:
        return ""
    whole = place.joinpath(near[found[0]], *rest)
    return f"; did you mean {whole if whole.exists() else place / near[found[0]]}?"

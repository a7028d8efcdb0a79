"""What is remembered of each visitor, and forgotten when the visitor has left."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image as PILImage

from sam_uniref.images import RGB, Mask
from sam_uniref.web.limits import RefusedError
from sam_uniref.web.uploads import UploadedVideo


@dataclass
class Placed:
    """A picture that is shown to be marked.

    Attributes:
        picture: HWC uint8 RGB.
        number: Tells it from those before it at the same place.
    """

    picture: RGB
    number: int


@dataclass(frozen=True)
class VideoObject:
    """An object that a visitor asked to be followed.

    Attributes:
        object_id: From 1.
        frame: Where it joins, from 0.
        mask: ``(H, W)`` bool in that frame, or None.
        sentence: That names it, or None.
    """

    object_id: int
    frame: int
    mask: Mask | None
    sentence: str | None


@dataclass
class Visit:
    """One visitor's things.

    Attributes:
        folder: The visitor's own.
        places: By the name of the place: the picture that is shown there.
        examples: Annotated pictures that were added: ``(picture, mask)``.
        video: The one that was given last.
        frame: Number of the frame of it that is shown.
        objects: To be followed in it.
        uploads: Files that the visitor gave.
        last_seen: By the registry's clock.
    """

    folder: Path
    places: dict[str, Placed] = field(default_factory=dict)
    examples: list[tuple[RGB, Mask]] = field(default_factory=list)
    video: UploadedVideo | None = None
    frame: int = 0
    objects: list[VideoObject] = field(default_factory=list)
    uploads: set[Path] = field(default_factory=set)
    last_seen: float = 0.0

    def fresh_folder(self, name: str) -> Path:
        """A new folder, in place of the one that was made for the same thing before.

        Its path is another each time, so that no browser shows what it remembers of an earlier file.

        Raises:
            RefusedError: If the visitor has left meanwhile.
        """
        for old in self.folder.glob(f"{name}-*"):
            shutil.rmtree(old, ignore_errors=True)
        fresh = self.folder / f"{name}-{secrets.token_hex(4)}"
        try:
            fresh.mkdir()
        except FileNotFoundError:
            raise RefusedError("Your session has ended; please load the page again.") from None
        return fresh

    def write(self, name: str, pictures: Sequence[RGB]) -> list[str]:
        """Files of pictures that the visitor is shown, in place of those that were written under the name before.

        Arrays would be shown as well, but lie in a store that all visitors share, and outlive the visit.
        """
        folder = self.fresh_folder(name)
        paths = [folder / f"{name}-{number}.png" for number in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            PILImage.fromarray(picture).save(path, compress_level=1)
        return [str(path) for path in paths]

    def place(self, name: str, picture: RGB) -> Placed:
        """Show a picture at a place; marks on the one before it no longer count."""
        placed = Placed(picture, secrets.randbelow(2**31))
        self.places[name] = placed
        return placed

    def placed(self, name: str, what: str) -> Placed:
        """The picture that is shown at a place.

        Raises:
            RefusedError: If there is none.
        """
        if name not in self.places:
            raise RefusedError(f"There is no {what} yet; give one, or take one of the examples.")
        return self.places[name]


class Visits:
    """All visitors, by the key of their session; safe to be asked from several threads.

    Args:
        root: Folder of the visitors' folders; it is made now, and removed by `close`.
        most: How many are remembered.
        keep_seconds: How long one who does nothing is remembered.
        clock: Seconds, growing.
    """

    def __init__(
        self, root: Path, *, most: int = 64, keep_seconds: float = 3600, clock: Callable[[], float] = time.monotonic
    ) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root = root
        self._most = most
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._visits: dict[str, Visit] = {}
        self._kept: frozenset[Path] = frozenset()
        self._lock = threading.Lock()

    def keep(self, files: Iterable[Path]) -> None:
        """Files that stay though a visitor may name them as an upload: the page's own."""
        self._kept = frozenset(files)

    def __len__(self) -> int:
        return len(self._visits)

    def visit(self, key: str | None) -> Visit:
        """The visitor of a session, a new one if the session is new.

        Raises:
            RefusedError: If there is no session.
        """
        if not key:
            raise RefusedError("Your session is not known; please load the page again.")
        with self._lock:
            if key not in self._visits:
                while len(self._visits) >= self._most:
                    self._forget(min(self._visits, key=lambda k: self._visits[k].last_seen))
                folder = self.root / secrets.token_hex(16)
                folder.mkdir(mode=0o700)
                self._visits[key] = Visit(folder)
            visit = self._visits[key]
            visit.last_seen = self._clock()
            return visit

    def leave(self, key: str | None) -> None:
        """Forget a visitor, with all files; one that is not known is forgotten already."""
        with self._lock:
            if key in self._visits:
                self._forget(str(key))

    def expire(self) -> None:
        """Forget visitors who have done nothing for too long, and what was still written for one who had left."""
        now = self._clock()
        with self._lock:
            for key in [k for k, v in self._visits.items() if now - v.last_seen > self._keep_seconds]:
                self._forget(key)
            for folder in set(self.root.iterdir()) - {visit.folder for visit in self._visits.values()}:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Forget all."""
        with self._lock:
            for key in list(self._visits):
                self._forget(key)
        shutil.rmtree(self.root, ignore_errors=True)

    def _forget(self, key: str) -> None:
        """Drop a visitor. An upload that another gave too, byte for byte, is one file, and stays the other's."""
        visit = self._visits.pop(key)
        shutil.rmtree(visit.folder, ignore_errors=True)
        shared = {path for other in self._visits.values() for path in other.uploads}
        for path in visit.uploads - shared - self._kept:
            with suppress(OSError):  # what a visitor names as an upload may be a folder
                path.unlink()

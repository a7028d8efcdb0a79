"""Items made ahead of their use by a thread, a bounded number of them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Last:
    """Nothing comes after this; with an error, the items ended in it."""

    error: Exception | None = None


class Prefetch(Iterator[T], Generic[T]):
    """What a generator yields, in its order, at most ``ahead`` items ahead of their use.

    The generator runs in a daemon thread, from the first ``next`` on. An error in it is raised in place of the item
    that it took the place of. The thread ends with the last item, at `close`, or when this object is collected.

    Args:
        items: Used by the thread alone, which also closes it.
        ahead: How many items may wait; one more is in the making.

    Raises:
        ValueError: If ``ahead`` is less than 1.
    """

    def __init__(self, items: Generator[T, None, None], *, ahead: int = 4) -> None:
        if ahead < 1:
            raise ValueError(f"ahead must be at least 1, got {ahead}")
        self._queue: Queue[T | _Last] = Queue(ahead)
        self._stop = threading.Event()
        # The thread must not know this object, or it would keep it from being collected.
        self._thread = threading.Thread(
            target=_fill, args=(items, self._queue, self._stop), name="sam_uniref-prefetch", daemon=True
        )
        self._ended = False
        self._finalizer = weakref.finalize(self, _release, self._queue, self._stop)

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        if self._thread.ident is None:
            self._thread.start()
        item = self._queue.get()
        if not isinstance(item, _Last):
            return item
        self.close()
        if item.error is not None:
            raise item.error
        raise StopIteration

    def close(self) -> None:
        """End the thread; there are no more items. It may be called again."""
        self._ended = True
        self._finalizer()


def _fill(items: Generator[T, None, None], queue: Queue[T | _Last], stop: threading.Event) -> None:
    """Work of the thread: at most one ``put`` follows a look at ``stop``, and `_release` makes room for it."""
    last = _Last()
    try:
        for item in items:
            if stop.is_set():
                break
            queue.put(item)
    except Exception as error:  # whatever it is, it is the consumer's
        last = _Last(error)
    finally:
        items.close()
    if not stop.is_set():
        queue.put(last)


def _release(queue: Queue[T | _Last], stop: threading.Event) -> None:
    """Tell the thread to end, and let it out of a ``put`` that waits."""
    stop.set()
    with suppress(Empty):
        while True:
            queue.get_nowait()

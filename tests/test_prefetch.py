"""``Prefetch``: in order, a bounded number ahead, errors where they belong, and no thread left behind."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Generator
from itertools import count

import pytest

from sam_uniref.prefetch import Prefetch


class Source:
    """Numbers, and what became of the generator that gives them."""

    def __init__(self, error_at: int | None = None, end: int | None = None) -> None:
        self.made = 0
        self.closed = threading.Event()
        self.threads: set[threading.Thread] = set()
        self.error_at = error_at
        self.end = end

    def items(self) -> Generator[int, None, None]:
        self.threads.add(threading.current_thread())
        try:
            for number in count():
                if number == self.end:
                    return
                if number == self.error_at:
                    raise OSError(f"number {number} is bad")
                self.made += 1
                yield number
        finally:
            self.closed.set()

    def settled(self) -> int:
        """How many were made once no more are, or far too many."""
        before = -1
        while before != self.made < 1000:
            before = self.made
            time.sleep(0.05)
        return self.made


def assert_ended(source: Source) -> None:
    assert source.closed.wait(5), "the generator was not closed"
    for thread in source.threads:
        thread.join(5)
        assert not thread.is_alive()


def test_all_items_in_order_made_elsewhere() -> None:
    source = Source(end=100)
    ahead = Prefetch(source.items(), ahead=2)
    assert list(ahead) == list(range(100))
    assert next(ahead, None) is None
    assert threading.current_thread() not in source.threads
    assert all(thread.daemon for thread in source.threads)
    assert_ended(source)


def test_no_more_wait_than_asked_for() -> None:
    source = Source()
    ahead = Prefetch(source.items(), ahead=3)
    assert source.settled() == 0, "nothing is made before the first item is asked for"
    for number in range(20):
        assert next(ahead) == number
        # Those handed out, those that wait, and the one in the making.
        assert source.settled() <= number + 1 + 3 + 1
    assert source.settled() > 20, "nothing was made ahead"
    ahead.close()
    assert_ended(source)


@pytest.mark.parametrize("error_at", [0, 1, 7])
def test_an_error_comes_where_its_item_would(error_at: int) -> None:
    source = Source(error_at)
    ahead = Prefetch(source.items())
    assert [next(ahead) for _ in range(error_at)] == list(range(error_at))
    with pytest.raises(OSError, match=f"number {error_at} is bad"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)
    assert_ended(source)


@pytest.mark.parametrize("used", [1, 5])
def test_closing_ends_the_thread(used: int) -> None:
    source = Source()
    ahead = Prefetch(source.items())
    for _ in range(used):
        next(ahead)
    source.settled()
    ahead.close()
    ahead.close()
    assert next(ahead, None) is None
    assert_ended(source)


def test_forgetting_it_ends_the_thread() -> None:
    source = Source()
    ahead = Prefetch(source.items())
    next(ahead)
    source.settled()
    del ahead
    gc.collect()
    assert_ended(source)


def test_never_started_it_has_no_thread() -> None:
    before = threading.active_count()
    ahead = Prefetch(Source().items())
    assert threading.active_count() == before
    ahead.close()
    assert next(ahead, None) is None
    assert threading.active_count() == before


def test_at_least_one_must_fit() -> None:
    with pytest.raises(ValueError, match="ahead must be at least 1, got 0"):
        Prefetch(Source().items(), ahead=0)

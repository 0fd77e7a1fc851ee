"""One item ahead, in one thread that always ends."""

import threading
import time
import weakref

import pytest

from galbatch.core.prefetch import made_ahead


class Block:
    """Something that a weak reference can point to."""


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("galbatch-ahead")]


def wait_for(condition):
    """Until `condition` holds, which it does at once but for the other thread's time."""
    deadline = time.monotonic() + 5.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def test_the_same_items_in_the_same_order_from_one_other_thread():
    makers = []

    def items():
        for number in range(20):
            makers.append(threading.get_ident())
            yield number

    with made_ahead(items()) as ahead:
        assert list(ahead) == list(range(20))
    assert len(set(makers)) == 1
    assert threading.get_ident() not in makers
    assert threads() == []


def test_the_next_is_made_meanwhile_and_no_other():
    begun = []

    def items():
        for number in range(5):
            begun.append(number)
            yield number

    with made_ahead(items()) as ahead:
        for number in ahead:
            expected = min(number + 2, 5)
            assert wait_for(lambda expected=expected: len(begun) == expected)
            time.sleep(0.005)
            assert len(begun) == expected


def test_two_items_are_kept_and_no_more():
    alive = weakref.WeakSet()

    def items():
        for _ in range(6):
            block = Block()
            alive.add(block)
            yield block
            del block

    with made_ahead(items()) as ahead:
        for number in range(6):
            block = next(ahead)
            expected = 2 if number < 5 else 1
            assert wait_for(lambda expected=expected: len(alive) == expected)
            time.sleep(0.005)
            assert len(alive) == expected
            del block


def test_what_making_one_raises_comes_where_it_is_asked_for():
    def items():
        yield 1
        yield 2
        raise OSError("connection reset")

    with made_ahead(items()) as ahead:
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(OSError, match="connection reset"):
            next(ahead)
    assert threads() == []


def test_the_thread_ends_when_the_consumer_raises_and_its_frames_are_kept():
    made = []

    def items():
        for number in range(1000):
            made.append(number)
            yield number

    kept = None
    try:
        with made_ahead(items()) as ahead:
            for _ in ahead:
                raise MemoryError("out of memory")
    except MemoryError as error:
        kept = error  # as Dask keeps it, with the frames that hold the iterator
    assert kept is not None
    assert threads() == []
    assert len(made) <= 2


def test_no_items():
    with made_ahead([]) as ahead:
        assert list(ahead) == []
    assert threads() == []

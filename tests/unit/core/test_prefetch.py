"""Items made in advance, by one thread that always ends."""

import threading
import time
import weakref

import pytest

from galbatch.core.prefetch import prefetch


class Block:
    """Something that a weak reference can point to."""


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("galbatch-prefetch")]


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

    with prefetch(items()) as coming:
        assert list(coming) == list(range(20))
    assert len(set(makers)) == 1
    assert threading.get_ident() not in makers
    assert threads() == []


def test_the_next_is_made_meanwhile_and_no_other():
    begun = []

    def items():
        for number in range(5):
            begun.append(number)
            yield number

    with prefetch(items()) as coming:
        for number in coming:
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

    with prefetch(items()) as coming:
        for number in range(6):
            block = next(coming)
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

    with prefetch(items()) as coming:
        assert [next(coming), next(coming)] == [1, 2]
        with pytest.raises(OSError, match="connection reset"):
            next(coming)
    assert threads() == []


def test_the_thread_ends_when_the_consumer_raises_and_its_frames_are_kept():
    made = []

    def items():
        for number in range(1000):
            made.append(number)
            yield number

    kept = None
    try:
        with prefetch(items()) as coming:
            for _ in coming:
                raise MemoryError("out of memory")
    except MemoryError as error:
        kept = error  # as Dask keeps it, with the frames that hold the iterator
    assert kept is not None
    assert threads() == []
    assert len(made) <= 2


def test_no_items():
    with prefetch([]) as coming:
        assert list(coming) == []
    assert threads() == []


def test_n_items_are_made_in_advance():
    begun = []

    def items():
        for number in range(9):
            begun.append(number)
            yield number

    with prefetch(items(), n_ahead=3) as coming:
        for number in coming:
            expected = min(number + 4, 9)
            assert wait_for(lambda expected=expected: len(begun) == expected)
            time.sleep(0.005)
            assert len(begun) == expected

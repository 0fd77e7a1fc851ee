"""Items made in advance, by threads that always end."""

import threading
import time
import weakref

import pytest

from galbatch.core.prefetch import map_in_threads, prefetch


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


def test_results_in_order_from_several_threads_and_few_of_them_in_memory():
    """However slow the caller is, no more than twice the number of threads are made in advance."""
    made, makers, alive = [], set(), []

    def block(number):
        made.append(number)
        makers.add(threading.get_ident())
        result = Block()
        result.number = number
        alive.append(weakref.ref(result))
        time.sleep(0.001)
        return result

    for number, result in enumerate(map_in_threads(block, range(100), n_threads=3)):
        assert result.number == number
        del result
        assert max(made) <= number + 2 * 3 + 1
        assert sum(one() is not None for one in alive) <= 2 * 3 + 1
    assert sorted(made) == list(range(100))
    assert threading.get_ident() not in makers
    assert 1 < len(makers) <= 3


def test_an_error_in_a_thread_is_raised_at_its_item_and_what_was_not_begun_stays_so():
    made = []

    def inverse(number):
        made.append(number)
        return 1 / number

    results = map_in_threads(inverse, [1, 2, 0, *range(3, 100)], n_threads=2)
    assert [next(results), next(results)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert max(made) < 10
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("galbatch-map")] == []


def test_no_items_no_results():
    assert list(map_in_threads(abs, [], n_threads=4)) == []

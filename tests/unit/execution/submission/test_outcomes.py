"""Results of tasks: how many requests fetch them, and what canceled and failed tasks give."""

import asyncio
import threading

import pytest
from distributed import CancelledError

from galbatch.errors import WorkerLost
from galbatch.execution.submission.outcomes import Outcomes

PATIENCE_S = 60.0


class Task:
    """The future of a task, of which only what `Outcomes` looks at is there."""

    def __init__(self, number, status="finished", error=None):
        self.number, self.status, self.error = number, status, error
        self.n_released = 0

    def add_done_callback(self, call):
        call(self)

    def cancelled(self):
        return self.status == "cancelled"

    def exception(self):
        return self.error

    def release(self):
        self.n_released += 1


class Connection:
    """A client whose requests are answered when the test says so."""

    def __init__(self):
        self.loop = self
        self.asyncio_loop = asyncio.new_event_loop()
        self.requests = []
        self.errors = {}
        self.may_answer = threading.Event()
        self.thread = threading.Thread(target=self.asyncio_loop.run_forever)
        self.thread.start()

    async def gather(self, futures, *, direct, asynchronous):
        assert (asynchronous, direct) == (True, False)
        self.requests.append([one.number for one in futures])
        await asyncio.to_thread(self.may_answer.wait, PATIENCE_S)
        for one in futures:
            if one.number in self.errors:
                raise self.errors[one.number]
        return [10 * one.number for one in futures]

    def close(self):
        self.may_answer.set()
        self.asyncio_loop.call_soon_threadsafe(self.asyncio_loop.stop)
        self.thread.join()
        self.asyncio_loop.close()


@pytest.fixture
def connection():
    running = Connection()
    yield running
    running.close()


def take_all(outcomes, n):
    """Return `n` outcomes by the numbers of their tasks; each may come once."""
    found = []
    while len(found) < n:
        taken = outcomes.take(timeout_s=PATIENCE_S)
        assert taken
        found += taken
    assert len({one.number for one, _ in found}) == len(found) == n
    assert {one.n_released for one, _ in found} == {1}
    return {one.number: outcome for one, outcome in found}


def test_one_request_fetches_the_results_of_all_tasks_that_ended(connection):
    outcomes = Outcomes(connection)
    connection.may_answer.set()
    for number in range(100):
        outcomes.watch(Task(number))
    assert take_all(outcomes, 100) == {number: 10 * number for number in range(100)}
    assert connection.requests == [list(range(100))]


def test_results_that_come_while_a_request_is_under_way_share_the_next(connection):
    outcomes = Outcomes(connection)
    outcomes.watch(Task(0))
    assert outcomes.take(timeout_s=0.01) == []
    for number in range(1, 20):
        outcomes.watch(Task(number))
    connection.may_answer.set()
    assert take_all(outcomes, 20) == {number: 10 * number for number in range(20)}
    assert connection.requests == [[0], list(range(1, 20))]


def test_a_worker_that_does_not_answer_does_not_hold_up_the_others(connection):
    outcomes = Outcomes(connection)
    outcomes.watch(Task(0))
    assert outcomes.take(timeout_s=0.01) == []
    outcomes.watch(Task(1))
    # The first request is never answered; the second is sent all the same.
    while len(connection.requests) < 2:
        outcomes.take(timeout_s=0.1)
    assert connection.requests == [[0], [1]]


def test_a_task_that_is_canceled_meanwhile_leaves_the_others_their_results(connection):
    outcomes = Outcomes(connection)
    connection.errors[1] = CancelledError("1")
    connection.may_answer.set()
    for number in range(3):
        outcomes.watch(Task(number))
    found = take_all(outcomes, 3)
    assert isinstance(found.pop(1), WorkerLost)
    assert found == {0: 0, 2: 20}
    assert connection.requests == [[0, 1, 2], [0], [1], [2]]


def test_failed_and_canceled_tasks_need_no_request(connection):
    outcomes, error = Outcomes(connection), ValueError("a fault of the program")
    outcomes.watch(Task(0, "error", error))
    outcomes.watch(Task(1, "cancelled"))
    found = take_all(outcomes, 2)
    assert found[0] is error
    assert isinstance(found[1], WorkerLost)
    assert connection.requests == []

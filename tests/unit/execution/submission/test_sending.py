"""Tasks that are sent to the scheduler: which go together, and that each keeps its own conditions."""

from dataclasses import replace

import pytest

from galbatch import cluster
from galbatch.core.pixels import Partition
from galbatch.execution import tasks
from galbatch.execution.submission import sending
from galbatch.execution.submission.boundary import packed
from galbatch.execution.submission.sending import PackedTask, send


class Connection:
    """A client that keeps what it was asked to send."""

    def __init__(self):
        self.graphs = []

    def map(self, function, data, *, key, **conditions):
        self.graphs.append((list(data), list(key), conditions))
        return [f"future of {one}" for one in key]


def one(number, **changes):
    task = PackedTask(None, f"task-{number}", bytes([number]) * 100, (), "cpu", 0)
    return replace(task, **changes)


def test_tasks_that_may_run_alike_are_one_graph_and_keep_their_order():
    connection, waiting = Connection(), [one(k) for k in range(5)]
    sent = list(send(connection, waiting))
    assert [(task.key, future) for task, future in sent] == [
        (f"task-{k}", f"future of task-{k}") for k in range(5)
    ]
    ((data, keys, conditions),) = connection.graphs
    assert keys == [f"task-{k}" for k in range(5)]
    assert data == [bytes([k]) * 100 for k in range(5)]
    assert conditions == {"pure": False, "retries": 0, "workers": None, "resources": None, "priority": 0}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"workers": ("tcp://a", "tcp://b")}, {"workers": ["tcp://a", "tcp://b"]}),
        ({"device": "cuda"}, {"resources": {cluster.GPU: 1}}),
        ({"priority": 1}, {"priority": 1}),
    ],
)
def test_a_task_of_other_conditions_is_a_graph_of_its_own(changes, expected):
    connection = Connection()
    list(send(connection, [one(0), one(1, **changes), one(2)]))
    assert [keys for _, keys, _ in connection.graphs] == [["task-0"], ["task-1"], ["task-2"]]
    assert expected.items() <= connection.graphs[1][2].items()


def test_graphs_are_limited_in_size_and_a_larger_task_goes_alone(monkeypatch):
    monkeypatch.setattr(sending, "MAX_GRAPH_BYTES", 250)
    connection = Connection()
    list(send(connection, [*map(one, range(5)), one(5, data=b"x" * 1000), one(6)]))
    assert [len(keys) for _, keys, _ in connection.graphs] == [2, 2, 1, 1, 1]


def test_the_first_graph_is_sent_before_later_tasks_are_made(monkeypatch):
    monkeypatch.setattr(sending, "MAX_GRAPH_BYTES", 250)
    connection, made = Connection(), []
    sent = send(connection, (made.append(k) or one(k) for k in range(6)))
    next(sent)
    assert (len(connection.graphs), made) == (1, [0, 1, 2])


def test_nothing_to_send_asks_for_nothing():
    connection = Connection()
    assert list(send(connection, [])) == []
    assert connection.graphs == []


def test_a_real_scheduler_runs_each_task_by_itself(client):
    def count_to(number):
        if number == 3:
            raise ValueError("three")
        return tasks.TaskResult(Partition(0, number, 0, 1), number, 0, 0, 0.0)

    waiting = [one(k, key=f"sending-{k}", data=packed(count_to, k)) for k in range(6)]
    futures = {task.key: future for task, future in send(client, waiting)}
    errors = {key: future.exception(timeout=60) for key, future in futures.items()}
    assert [key for key, error in errors.items() if error is not None] == ["sending-3"]
    assert str(errors["sending-3"]) == "three"
    del futures["sending-3"]
    assert sorted(future.result(timeout=60).n_objects for future in futures.values()) == [0, 1, 2, 4, 5]

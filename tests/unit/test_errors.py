"""The errors cross from workers to the client, and are what the drawing says."""

import pickle
import re

import pytest

from galbatch import errors

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, Exception)
}


def drawn_parents():
    """Name -> name of its parent, of the tree in the module's docstring: four columns are a level."""
    parents, above = {}, {}
    for line in errors.__doc__.splitlines():
        if match := re.match(r"    ([ │├└─]*)([A-Z]\w+)(?:$|  )", line):
            level = len(match[1]) // 4
            above[level] = match[2]
            parents[match[2]] = above[level - 1] if level else "Exception"
    return parents


def test_all_is_what_is_exported():
    assert set(CLASSES) == set(errors.__all__)


def test_the_drawing_is_the_tree():
    assert drawn_parents() == {name: kind.__base__.__name__ for name, kind in CLASSES.items()}


@pytest.mark.parametrize("name", CLASSES)
def test_errors_pickle(name):
    error = CLASSES[name]("tile 9813/4,4: no WCS")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is CLASSES[name]
    assert isinstance(again, errors.GalbatchError)
    assert str(again) == "tile 9813/4,4: no WCS"


@pytest.mark.parametrize("name", ["GpuBroken", "ShortOfMemory", "WorkerRefused"])
def test_the_worker_crosses_as_well(name):
    again = pickle.loads(pickle.dumps(CLASSES[name]("no memory", worker="tcp://a:1")))
    assert (str(again), again.worker) == ("no memory", "tcp://a:1")

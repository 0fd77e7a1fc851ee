"""A client of Dask whose workers are given by the test, and which records what is asked of it."""

import dataclasses

from distributed.comm import CommClosedError


class Scripted:
    """A client whose workers are given, and that notes what is asked of it."""

    status, lost = "running", False

    def __init__(self, **workers):
        self.workers = workers
        self.submitted, self.cancelled, self.restarted = [], [], []
        self.most = 0

    @property
    def scheduler(self):
        return self

    def sync(self, function, **options):
        return function(**options)

    def identity(self, n_workers):
        if self.lost:
            raise CommClosedError("in <TCP (closed)>")
        assert n_workers == -1  # of some only, otherwise
        return {"workers": self.workers}

    def submit(self, function, item, **_):
        self.submitted.append(ScriptedFuture(self, lambda: function(item)))
        self.most = max(self.most, len([one for one in self.submitted if not one.collected]))
        return self.submitted[-1]

    def cancel(self, futures):
        self.cancelled += futures

    def run_on_scheduler(self, function, *arguments):
        if self.lost:
            raise CommClosedError("in <TCP (closed)>")
        return function(*arguments, dask_scheduler=self.state)

    def restart_workers(self, workers, **_):
        self.restarted += workers
        return dict.fromkeys(workers, "OK")


@dataclasses.dataclass
class ScriptedFuture:
    client: Scripted
    call: object
    collected: bool = False

    def result(self):
        self.collected = True
        return self.call()


def worker(threads=1, *, gpu=False, nanny="tcp://nanny"):
    return {"nthreads": threads, "resources": {"GPU": 1.0} if gpu else {}, "nanny": nanny}

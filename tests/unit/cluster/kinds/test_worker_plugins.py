"""What workers of this process leave unsaid, and what schedulers forget."""

import logging

from dask.utils import key_split
from distributed import worker as dask_worker
from distributed.spans import Span

from galbatch import cluster
from galbatch.cluster.kinds.worker_plugins import ForgetsTasks, NoHeartbeatErrors


def test_only_lost_heartbeats_are_left_out():
    logger = logging.getLogger("distributed.worker")
    before = list(logger.filters)
    try:
        NoHeartbeatErrors().setup(worker=None)
        assert not logger.filter(logged(NoHeartbeatErrors.MESSAGE + "."))
        assert logger.filter(logged("Compute Failed"))
    finally:
        logger.filters[:] = before


def logged(text):
    return logging.LogRecord("distributed.worker", logging.ERROR, __file__, 1, text, None, None)


def test_dask_still_says_it_so():
    with open(dask_worker.__file__, encoding="utf-8") as file:
        assert NoHeartbeatErrors.MESSAGE in file.read()


def kept_of_submissions(client):
    """What the scheduler of this process keeps of tasks that have ended: notes of spans, and prefixes of keys."""
    spans = client.cluster.scheduler.extensions["spans"].spans.values()
    notes = sum(len(span._metadata["collections"]) for span in spans if span._metadata)
    return notes, len(Span._metadata_seen), key_split.cache_info().currsize


def test_what_a_scheduler_keeps_does_not_grow_with_the_tasks(monkeypatch):
    monkeypatch.setattr(ForgetsTasks, "EVERY", 20)
    key_split.cache_clear()
    with cluster.threads(1) as client:

        def submit(run, n):
            # A few at a time: what is under way when the scheduler forgets is noted after that.
            for start in range(0, n, 10):
                numbers = range(start, start + 10)
                futures = [client.submit(abs, i, key=f"ingest-{i}-{run}", pure=False) for i in numbers]
                assert client.gather(futures) == list(numbers)

        # Dask keeps all: else the plugin does nothing any more, and may go.
        submit("without", 60)
        notes, _, prefixes = kept_of_submissions(client)
        assert notes >= 60
        assert prefixes >= 60
        client.register_plugin(ForgetsTasks())
        submit("with", 90)
        assert max(kept_of_submissions(client)) < 60

"""One thread that runs a model, and its queue: waiting jobs that can share a batch are predicted together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

Work = Callable[[Sequence[Any]], Sequence[Any]]  # one result for each item, in their order


@dataclass(frozen=True, eq=False)
class _Job:
    work: Work
    like: Hashable
    item: Any
    future: Future[Any] = field(default_factory=Future)


class Batcher:
    """Runs jobs in one thread, in the order in which they come.

    What waits at the head of the queue is run together with up to `most` - 1 others that have the same work
    and are `like` it, wherever they wait. Nobody waits for company: while one batch runs, the next gathers.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread still runs, so that submitted jobs are done."""
        return self._thread.is_alive() and not self._closed

    def submit(self, work: Work, like: Hashable, item: Any) -> Future[Any]:
        """The result of `work` on the item. If it is cancelled before its turn, the item is skipped."""
        job = _Job(work, like, item)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Accepts no more jobs, and returns when all accepted ones are done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while group := self._take():
            asked = [job for job in group if job.future.set_running_or_notify_cancel()]
            if asked:
                _finish(asked)

    def _take(self) -> list[_Job]:
        """The next jobs; none if it is closed and all are done."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return []
            first = self._jobs[0]
            alike = [job for job in self._jobs if (job.work, job.like) == (first.work, first.like)]
            group = alike[: self.most]
            for job in group:
                self._jobs.remove(job)
            return group


def _finish(group: Sequence[_Job]) -> None:
    """If a batch fails, runs each of its jobs alone, so that only the faulty one fails."""
    try:
        done = list(zip(group, group[0].work([job.item for job in group]), strict=True))
    except Exception as error:
        if len(group) == 1:
            group[0].future.set_exception(error)
            return
        for job in group:
            _finish([job])
        return
    for job, result in done:
        job.future.set_result(result)

"""The model's thread: what is alike is done together, in turn, and a fault stays with its own job."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from gcnet.serve.batching import Batcher


class Gathered:
    """Work that waits until it may go on, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started, self.go = threading.Event(), threading.Event()

    def double(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.started.set()
        assert self.go.wait(10)
        if 13 in items:
            raise ValueError("thirteen")
        return [2 * item for item in items]


@pytest.fixture
def gathered() -> Gathered:
    return Gathered()


def test_what_waits_and_is_alike_is_one_batch(gathered: Gathered) -> None:
    batcher = Batcher(most=3)
    first = batcher.submit(gathered.double, "large", 0)
    assert gathered.started.wait(10)
    others = [batcher.submit(gathered.double, like, n) for n, like in enumerate("aabaab", start=1)]
    gathered.go.set()
    assert [future.result(10) for future in (first, *others)] == [0, 2, 4, 6, 8, 10, 12]
    assert gathered.batches == [[0], [1, 2, 4], [3, 6], [5]]
    batcher.close()


def test_a_fault_is_its_own(gathered: Gathered) -> None:
    batcher = Batcher(most=3)
    first = batcher.submit(gathered.double, "a", 0)
    assert gathered.started.wait(10)
    good, bad = (batcher.submit(gathered.double, "a", n) for n in (7, 13))
    gathered.go.set()
    assert (first.result(10), good.result(10)) == (0, 14)
    with pytest.raises(ValueError, match="thirteen"):
        bad.result(10)
    assert batcher.alive
    batcher.close()


def test_fewer_results_than_jobs_do_not_end_the_thread() -> None:
    batcher = Batcher(most=3)
    with pytest.raises(ValueError, match="shorter"):
        batcher.submit(lambda items: [], "a", 0).result(10)
    assert batcher.alive
    batcher.close()


def test_what_is_cancelled_is_left_out(gathered: Gathered) -> None:
    batcher = Batcher(most=3)
    batcher.submit(gathered.double, "a", 0)
    assert gathered.started.wait(10)
    late, later = (batcher.submit(gathered.double, "b", n) for n in (1, 2))
    assert late.cancel()
    gathered.go.set()
    assert later.result(10) == 4
    assert gathered.batches == [[0], [2]]
    batcher.close()


def test_closing_finishes_what_was_taken(gathered: Gathered) -> None:
    batcher = Batcher(most=1)
    futures = [batcher.submit(gathered.double, "a", n) for n in range(5)]
    gathered.go.set()
    batcher.close()
    assert [future.result(0) for future in futures] == [0, 2, 4, 6, 8]
    assert not batcher.alive
    with pytest.raises(RuntimeError):
        batcher.submit(gathered.double, "a", 1)

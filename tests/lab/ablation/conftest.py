"""Runs that cost nothing: their scores are made up from the seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gcnet.files import write_json
from gcnet.lab.ablation.study import Run

NAMES = ("box_AP", "box_AP50", "box_AP75", "mask_AP", "mask_AP50", "mask_AP75")


def write_scores(folder: Path, seed: int, score: float) -> None:
    """A `result.json` in which everything scored alike."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "result.json", {"seed": seed, "seconds": 1.0, **dict.fromkeys(NAMES, score)})


class FakeJob:
    """A process that ends after a number of looks at it, or never."""

    def __init__(self, code: int | None, *, looks: int = 1, end: Callable[[], None] = lambda: None) -> None:
        self.code, self.looks, self.end = code, looks, end
        self.stopped = self.killed = False

    def poll(self) -> int | None:
        self.looks -= 1
        if self.stopped:
            return 130
        if self.looks <= 0 and self.code is not None:
            self.end()
            return self.code
        return None

    def stop(self) -> None:
        self.stopped = True

    def kill(self) -> None:
        self.killed = True


class FakeStart:
    """Starts fake jobs: runs whose label is in `fails` fail, those in `hangs` never end."""

    def __init__(self, *, fails: tuple[str, ...] = (), hangs: tuple[str, ...] = ()) -> None:
        self.fails, self.hangs = fails, hangs
        self.started: list[str] = []
        self.jobs: list[FakeJob] = []
        self.most = 0

    def __call__(self, run: Run) -> FakeJob:
        self.started.append(run.label)
        if run.label in self.hangs:
            job = FakeJob(None)
        elif run.label in self.fails:
            run.folder.mkdir(parents=True, exist_ok=True)
            (run.folder / "log.txt").write_text("iteration 1\ngcnet: error: loss_cls became NaN\n")
            job = FakeJob(2)
        else:
            job = FakeJob(0, looks=3, end=lambda: write_scores(run.folder, run.seed, 0.1 + run.seed / 100))
        self.most = max(self.most, 1 + sum(job.looks > 0 for job in self.jobs))
        self.jobs.append(job)
        return job


@pytest.fixture
def start() -> type[FakeStart]:
    return FakeStart


@pytest.fixture
def scored() -> Callable[[Path, int, float], None]:
    return write_scores

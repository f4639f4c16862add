"""A study on runs that cost nothing, and once with runs of one iteration.

The scores of the former are made up from the seed.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gcnet.commands.ablate import parse_ablate
from gcnet.engine.train import TrainResult
from gcnet.errors import GCNetError
from gcnet.evaluation.coco_ap import Metrics
from gcnet.files import write_json
from gcnet.lab.ablate import ablate
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.lab.runs import load_data, make_runs, start_process, train_run
from gcnet.lab.study import GRIDS, Run, Study
from gcnet.weights.load import load_model

TINY = "mask_rcnn_tiny_gc4"


NAMES = ("box_AP", "box_AP50", "box_AP75", "mask_AP", "mask_AP50", "mask_AP75")


def write_scores(folder: Path, seed: int, score: float) -> None:
    """A `result.json` in which everything scored alike."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "result.json", {"seed": seed, "seconds": 1.0, **dict.fromkeys(NAMES, score)})


class FakeJob:
    """A process that ends when it is waited for, or when it is stopped."""

    def __init__(self, code: int | None, end: Callable[[], object] = lambda: None) -> None:
        self.code, self.end = code, end
        self.stopped, self.ended = threading.Event(), False

    def wait(self) -> int:
        self.end()
        if self.code is None:
            assert self.stopped.wait(60)
        self.ended = True
        return 143 if self.code is None else self.code

    def terminate(self) -> None:
        self.stopped.set()


class FakeStart:
    """Starts fake jobs: runs whose label is in `fails` fail, those in `hangs` never end."""

    def __init__(self, *, fails: tuple[str, ...] = (), hangs: tuple[str, ...] = ()) -> None:
        self.fails, self.hangs = fails, hangs
        self.started: list[str] = []
        self.jobs: list[FakeJob] = []
        self.most = 0

    def __call__(self, run: Run) -> Any:
        self.started.append(run.label)
        if run.label in self.hangs:
            job = FakeJob(None)
        elif run.label in self.fails:
            run.folder.mkdir(parents=True, exist_ok=True)
            (run.folder / "log.txt").write_text("iteration 1\ngcnet: error: loss_cls became NaN\n")
            job = FakeJob(2)
        else:
            job = FakeJob(0, lambda: write_scores(run.folder, run.seed, 0.1 + run.seed / 100))
        self.jobs.append(job)
        self.most = max(self.most, sum(not job.ended for job in self.jobs))
        return job


def runs_in(out: Path, count: int = 4) -> list[Run]:
    return [Run("gc", seed, out / f"seed-{seed}", {}) for seed in range(count)]


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_all_runs_are_made_in_order_and_no_more_at_a_time_than_allowed(jobs, tmp_path, capsys):
    start = FakeStart()
    assert not make_runs(runs_in(tmp_path), start, jobs=jobs)
    assert start.started == [f"gc, seed {seed}" for seed in range(4)]
    assert start.most <= jobs
    assert all(run.result for run in runs_in(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert "gc, seed 0: box AP 0.100, AP50 0.100" in "\n".join(lines)
    assert lines[-1].endswith("(4 of 4)")


def test_as_many_runs_as_allowed_are_made_at_a_time(tmp_path):
    start, together = FakeStart(), threading.Barrier(3)

    def wait_for_the_others(run: Run) -> Any:
        job = start(run)
        job.end = lambda: (together.wait(60), write_scores(run.folder, run.seed, 0.1))
        return job

    assert not make_runs(runs_in(tmp_path, 3), wait_for_the_others, jobs=3)


def test_finished_runs_are_not_made_again(tmp_path):
    make_runs(runs_in(tmp_path, 2), FakeStart())
    again = FakeStart()
    assert not make_runs(runs_in(tmp_path, 3), again)
    assert again.started == ["gc, seed 2"]


def test_a_failed_run_does_not_stop_the_others_and_is_tried_again(tmp_path, capsys):
    [(failed, reason)] = make_runs(runs_in(tmp_path), FakeStart(fails=("gc, seed 1",)))
    assert (failed.seed, reason) == (1, "loss_cls became NaN")
    assert [run.seed for run in runs_in(tmp_path) if run.result] == [0, 2, 3]
    assert "gc, seed 1: failed: loss_cls became NaN" in capsys.readouterr().out
    again = FakeStart()
    assert not make_runs(runs_in(tmp_path), again)
    assert again.started == ["gc, seed 1"]


def test_a_run_that_the_system_killed_is_told_as_such(tmp_path):
    [run] = runs_in(tmp_path, 1)
    run.folder.mkdir()
    (run.folder / "log.txt").write_text("iteration 30/150 epoch 1 | loss 7.940\n")
    [(_, reason)] = make_runs([run], lambda run: FakeJob(-signal.SIGKILL))
    assert reason == "ended by signal 9 (Killed), as the system does when the memory is full"


def test_a_signal_stops_what_is_under_way_in_good_order(tmp_path):
    start = FakeStart(hangs=("gc, seed 1", "gc, seed 2"))

    def kill_at_the_third(run: Run) -> Any:
        job = start(run)
        if run.seed == 2:
            job.end = lambda: os.kill(os.getpid(), signal.SIGTERM)
        return job

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"):
        make_runs(runs_in(tmp_path), kill_at_the_third, jobs=2)
    assert start.started == ["gc, seed 0", "gc, seed 1", "gc, seed 2"]
    assert [job.stopped.is_set() for job in start.jobs[1:]] == [True, True]
    assert all(job.ended for job in start.jobs)
    assert (tmp_path / "seed-0" / "result.json").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_while_runs_are_handed_out_stops_too(tmp_path, monkeypatch):
    """It came while the pool held a lock, and its handler waited for that."""

    class Interrupted(ThreadPoolExecutor):
        def submit(self, *words: Any) -> Any:
            with self._shutdown_lock:
                signal.raise_signal(signal.SIGTERM)

    def hang(number: int, frame: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("gcnet.lab.runs.ThreadPoolExecutor", Interrupted)
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(20)
    try:
        with pytest.raises(SystemExit, match="143"):
            make_runs(runs_in(tmp_path), FakeStart())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_ctrl_c_waits_for_what_is_under_way_and_begins_nothing(tmp_path):
    """The terminal tells the processes too: they end by themselves."""
    start = FakeStart()

    def press_at_the_second(run: Run) -> Any:
        job = start(run)
        if run.seed == 1:
            job.end = lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(0.2))
        return job

    with pytest.raises(KeyboardInterrupt):
        make_runs(runs_in(tmp_path), press_at_the_second)
    assert start.started == ["gc, seed 0", "gc, seed 1"]
    assert start.jobs[1].ended


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_context_shapes(tmp_path_factory.mktemp("data"), train=4, valid=2)


@pytest.fixture
def options(data: Path, tmp_path: Path) -> Study:
    words = f"position --data {data} --out {tmp_path / 'out'} --seeds 2 --epochs 1 --batch-size 4"
    return parse_ablate(f"{words} --image-size [64,64] --workers 0".split())


def test_a_study_from_data_to_report(options, capsys):
    start = FakeStart()
    ablate(options, start=start)
    assert len(start.started) == 6
    report = json.loads((options.out / "position.json").read_text())
    assert [cell["cell"] for cell in report["cells"]] == ["none", "after1x1", "after_add"]
    assert report["cells"][0]["box_AP"]["mean"] == pytest.approx(0.105)
    printed = capsys.readouterr().out
    assert "position: 3 cells x 2 seeds, 1 iterations each" in printed
    assert "+0.000" in printed

    again = FakeStart()
    ablate(replace(options, seeds=3), start=again)
    assert again.started == ["none, seed 2", "after1x1, seed 2", "after_add, seed 2"]


def test_report_alone_needs_no_options_and_makes_no_runs(options, capsys):
    ablate(options, start=FakeStart())
    (options.out / "position.md").unlink()
    start = FakeStart()
    bare = parse_ablate(["position", "--report", "--out", str(options.out)])
    ablate(bare, start=start)
    assert not start.started
    assert (options.out / "position.md").exists()


def test_failures_come_after_the_report(options):
    with pytest.raises(GCNetError, match="1 of 6 runs failed, such as after_add, seed 0: loss_cls"):
        ablate(options, start=FakeStart(fails=("after_add, seed 0",)))
    assert (options.out / "position.png").exists()


def test_verdicts_are_of_finished_runs_as_the_table_is(options):
    """A run of some --time is validated several times before it ends."""
    labels = ("after_add, seed 0", "after_add, seed 1")
    with pytest.raises(GCNetError, match="2 of 6 runs failed"):
        ablate(options, start=FakeStart(fails=labels))
    for run in options.runs():
        (run.folder / "train").mkdir()
        (run.folder / "train" / "results.json").write_text("[]")
    ablate(replace(options, report_only=True))
    cells = json.loads((options.out / "position.json").read_text())["cells"]
    assert [list(cell["better by"]) for cell in cells] == [["after1x1"], ["none"], []]


def test_nothing_but_failures_is_told_as_such(options, capsys):
    labels = tuple(f"{cell}, seed 0" for cell in ("none", "after1x1", "after_add"))
    timed = replace(options, seeds=1, recipe=replace(options.recipe, time="30s"))
    with pytest.raises(GCNetError, match="3 of 3 runs failed"):
        ablate(timed, start=FakeStart(fails=labels))
    assert "position: 3 cells x 1 seeds, 30s each" in capsys.readouterr().out


def test_a_ratio_without_channels_is_named_before_any_run(options, monkeypatch):
    narrow = replace(GRIDS["ratio"], cells={"1/1000": {"ratio": 1 / 1000}})
    monkeypatch.setitem(GRIDS, "position", narrow)
    start = FakeStart()
    with pytest.raises(GCNetError, match="cell 1/1000 cannot be built"):
        ablate(options, start=start)
    assert not start.started
    assert not options.out.exists()


def test_a_batch_size_that_may_differ_is_refused(options):
    own = replace(options, recipe=replace(options.recipe, batch_size="auto"))
    with pytest.raises(GCNetError, match="batch_size auto may come to another number in each cell"):
        ablate(own, start=FakeStart())
    assert not options.out.exists()


def test_data_without_validation_pictures_is_refused(options, tmp_path):
    data = write_context_shapes(tmp_path / "train-only", train=3, valid=0)
    with pytest.raises(GCNetError, match="no valid split"):
        ablate(replace(options, data=data), start=FakeStart())
    assert not options.out.exists()  # or runs on other data would be refused there
    data = write_context_shapes(tmp_path / "both", train=1, valid=1)
    listed = data / "valid" / "_annotations.coco.json"
    known = json.loads(listed.read_text())
    for nothing in ({"annotations": []}, {"annotations": [], "images": []}):
        write_json(listed, known | nothing)
        with pytest.raises(GCNetError, match=r"there is nothing to compare on: .* has no image with objects"):
            load_data(data)


def prepared(options: Study, cell: str = "after1x1") -> Run:
    run = next(run for run in options.runs() if run.cell == cell)
    options.claim(options.runs())
    return run


def test_a_run_trains_scores_and_is_the_same_again(options, tmp_path, capsys):
    run = prepared(options)
    (run.folder / "train").mkdir()  # cut off before its first checkpoint
    (run.folder / "train" / ".last.ckpt.1.part").write_text("")
    train_run(run.folder)
    other = prepared(replace(options, out=tmp_path / "again"))
    train_run(other.folder)
    first, second = run.result, other.result
    assert first is not None
    assert second is not None
    assert first["seed"] == 0
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    weights, others = _weights(run), _weights(other)
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert "resuming" not in capsys.readouterr().out
    (run.folder / "result.json").unlink()  # killed between training and its result
    train_run(run.folder)
    assert "resuming" in capsys.readouterr().out
    assert run.result is not None
    assert run.result["box_AP50"] == first["box_AP50"]


def test_masks_that_cannot_be_scored_have_no_score(options, monkeypatch):
    """Where the objects of the validation images have no outlines."""
    run, names = prepared(options), ("AP", "AP50", "AP75")
    metrics = Metrics(dict.fromkeys(names, 0.5), dict.fromkeys(names, -1.0), {})
    done = TrainResult(metrics, None, Path("last.safetensors"), 1.0)
    monkeypatch.setattr("gcnet.lab.runs.train", lambda *_, **__: done)
    train_run(run.folder)
    scores = {"box_AP": 0.5, "box_AP50": 0.5, "box_AP75": 0.5}
    assert run.result == {"seed": 0, "seconds": 1.0, **scores}


def _weights(run: Run) -> dict[str, torch.Tensor]:
    return load_model(run.folder / "train" / "last.safetensors").state_dict()


@pytest.mark.slow
def test_processes_make_runs_and_stop_when_asked(options):
    """Two real processes: one comes to its end, the other is asked to stop and leaves a checkpoint."""
    short = prepared(options)
    recipe, apart = replace(options.recipe, epochs=500), options.out.with_name("long")
    long = prepared(replace(options, recipe=recipe, out=apart), "none")
    jobs = [start_process(run) for run in (short, long)]
    try:
        _wait(lambda: (long.folder / "train" / "metrics.csv").exists(), 300)
        jobs[1].terminate()
        assert [job.wait(300) for job in jobs] == [0, 143]
    finally:
        for job in jobs:
            job.kill()
    assert short.result is not None
    assert long.result is None
    assert (long.folder / "train" / "last.ckpt").exists()
    assert "stopped; go on after" in (long.folder / "log.txt").read_text()


def _wait(condition, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)

"""Many runs: how many at a time, what a failure costs, what Ctrl-C leaves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gcnet.lab.ablation.runner import make_runs
from gcnet.lab.ablation.study import Run


def runs_in(out: Path, count: int = 4) -> list[Run]:
    return [Run("gc", seed, out / f"seed-{seed}") for seed in range(count)]


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_all_runs_are_made_in_order_and_no_more_at_a_time_than_allowed(jobs, start, tmp_path, capsys):
    starter = start()
    outcome = make_runs(runs_in(tmp_path), jobs=jobs, start=starter, poll=0)
    assert starter.started == [f"gc, seed {seed}" for seed in range(4)]
    assert starter.most == min(jobs, 4)
    assert len(outcome.finished) == 4
    assert not outcome.failed
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("gc, seed 0: box AP 0.100, AP50 0.100")
    assert lines[-1].endswith("(4 of 4)")


def test_finished_runs_are_not_made_again(start, tmp_path):
    make_runs(runs_in(tmp_path, 2), start=start(), poll=0)
    again = start()
    outcome = make_runs(runs_in(tmp_path, 3), start=again, poll=0)
    assert again.started == ["gc, seed 2"]
    assert [run.seed for run in outcome.finished] == [0, 1, 2]


def test_a_failed_run_does_not_stop_the_others_and_is_tried_again(start, tmp_path, capsys):
    outcome = make_runs(runs_in(tmp_path), start=start(fails=("gc, seed 1",)), poll=0)
    assert [run.seed for run in outcome.finished] == [0, 2, 3]
    [(failed, reason)] = outcome.failed
    assert (failed.seed, reason) == (1, "loss_cls became NaN")
    assert "gc, seed 1: failed: loss_cls became NaN" in capsys.readouterr().out
    again = start()
    assert not make_runs(runs_in(tmp_path), start=again, poll=0).failed
    assert again.started == ["gc, seed 1"]


def test_ctrl_c_stops_what_is_under_way_in_good_order(start, tmp_path, monkeypatch):
    starter = start(hangs=("gc, seed 1", "gc, seed 2"))
    naps = iter(range(100))

    def press(_: float) -> None:
        if next(naps) == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", press)
    with pytest.raises(KeyboardInterrupt):
        make_runs(runs_in(tmp_path), jobs=2, start=starter)
    assert [job.stopped for job in starter.jobs] == [False, True, True]
    assert not any(job.killed for job in starter.jobs)
    assert (tmp_path / "seed-0" / "result.json").exists()


def test_a_second_ctrl_c_kills(start, tmp_path, monkeypatch):
    starter = start(hangs=("gc, seed 0",))
    naps = iter(range(100))

    def press(_: float) -> None:
        if next(naps) >= 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", press)

    def deaf(run: Run):
        job = starter(run)
        job.stop = lambda: None
        return job

    with pytest.raises(KeyboardInterrupt):
        make_runs(runs_in(tmp_path, 1), start=deaf)
    assert starter.jobs[0].killed

"""The whole command: on fakes, and once with runs of one iteration."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gcnet.commands.ablate import parse_ablate
from gcnet.errors import GCNetError
from gcnet.lab.ablation import ablate as module
from gcnet.lab.ablation.ablate import ablate
from gcnet.lab.ablation.options import Options
from gcnet.lab.ablation.run import iterations_done, train_run
from gcnet.lab.ablation.runner import ProcessJob
from gcnet.lab.ablation.study import Run, Study, grid_specs, plan_runs, write_run
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.weights.files import load_model

TINY = "mask_rcnn_tiny_gc4"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_context_shapes(tmp_path_factory.mktemp("data"), train=4, valid=2)


@pytest.fixture
def options(data: Path, tmp_path: Path) -> Options:
    words = f"position --data {data} --out {tmp_path / 'out'} --seeds 2 --epochs 1 --batch-size 4"
    return parse_ablate(f"{words} --image-size [64,64] --workers 0".split())


def test_a_study_from_data_to_report(options, start, capsys):
    starter = start()
    ablate(options, start=starter)
    assert len(starter.started) == 6
    report = json.loads((options.out / "position.json").read_text())
    assert [cell["cell"] for cell in report["cells"]] == ["none", "after1x1", "after_add"]
    assert report["cells"][0]["box_AP"]["mean"] == pytest.approx(0.105)
    assert "+0.000" in capsys.readouterr().out

    again = start()
    ablate(replace(options, seeds=3), start=again)
    assert again.started == ["none, seed 2", "after1x1, seed 2", "after_add, seed 2"]
    shared = start()
    ablate(replace(options, grid="ratio"), start=shared)
    assert len(shared.started) == 6  # 1/8, 1/16 and 1/32: no block and 1/4 are there


def test_report_alone_needs_no_options_and_makes_no_runs(options, start, capsys):
    ablate(options, start=start())
    (options.out / "position.md").unlink()
    starter = start()
    bare = parse_ablate(["position", "--report", "--out", str(options.out)])
    ablate(bare, start=starter)
    assert not starter.started
    assert (options.out / "position.md").exists()


def test_failures_come_after_the_report(options, start):
    with pytest.raises(GCNetError, match="1 of 6 runs failed, such as after_add, seed 0: loss_cls"):
        ablate(options, start=start(fails=("after_add, seed 0",)))
    assert (options.out / "position.png").exists()


def test_nothing_but_failures_is_told_as_such(options, start):
    labels = tuple(f"{cell}, seed 0" for cell in ("none", "after1x1", "after_add"))
    with pytest.raises(GCNetError, match="3 of 3 runs failed"):
        ablate(replace(options, seeds=1), start=start(fails=labels))


def test_a_ratio_without_channels_is_named_before_any_run(options, start, monkeypatch):
    monkeypatch.setattr(module, "grid_specs", _specs_of_no_width)
    starter = start()
    with pytest.raises(GCNetError, match="cell 1/1000 cannot be built"):
        ablate(options, start=starter)
    assert not starter.started


def _specs_of_no_width(study: Study, _: str):
    spec = grid_specs(study, "ratio")["1/4"]
    assert spec.backbone.context is not None
    context = replace(spec.backbone.context, ratio=1 / 1000)
    return {"1/1000": replace(spec, backbone=replace(spec.backbone, context=context))}


def test_data_without_validation_pictures_is_refused(options, start, tmp_path):
    data = write_context_shapes(tmp_path / "train-only", train=3, valid=0)
    with pytest.raises(GCNetError, match="no valid split"):
        ablate(replace(options, data=data), start=start())


def prepared(options: Options, cell: str = "after1x1") -> Run:
    assert options.data is not None
    study = Study(options.model, options.data, options.recipe)
    specs = grid_specs(study, "position")
    run = next(run for run in plan_runs(options.out, specs, [3]) if run.cell == cell)
    write_run(run, study, specs[cell], options.data)
    return run


def test_a_run_trains_scores_and_is_the_same_again(options, tmp_path, capsys):
    run = prepared(options)
    (run.folder / "train").mkdir()  # cut off before its first checkpoint
    (run.folder / "train" / "recipe.yaml").write_text("")
    assert iterations_done(run.folder) == 0
    train_run(run.folder)
    assert iterations_done(run.folder) == 1
    other = prepared(replace(options, out=tmp_path / "again"))
    train_run(other.folder)
    first, second = run.result, other.result
    assert first is not None
    assert second is not None
    assert first["seed"] == 3
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    weights, others = _weights(run), _weights(other)
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert "resuming" not in capsys.readouterr().out
    (run.folder / "result.json").unlink()  # killed between training and its result
    train_run(run.folder)
    assert "resuming" in capsys.readouterr().out
    assert run.result is not None
    assert run.result["box_AP50"] == first["box_AP50"]


def _weights(run: Run) -> dict[str, torch.Tensor]:
    return load_model(run.folder / "train" / "last.safetensors").state_dict()


@pytest.mark.slow
def test_processes_make_runs_and_stop_when_asked(options):
    """Two real processes: one comes to its end, the other is asked to stop and leaves a checkpoint."""
    short = prepared(options)
    long = prepared(replace(options, recipe=replace(options.recipe, epochs=500)), "none")
    jobs = [ProcessJob(run, threads=1) for run in (short, long)]
    try:
        _wait(lambda: iterations_done(long.folder) > 0, 300)
        jobs[1].stop()
        _wait(lambda: all(job.poll() is not None for job in jobs), 300)
        assert [job.poll() for job in jobs] == [0, 130]
    finally:
        for job in jobs:
            job.kill()
    assert short.result is not None
    assert long.result is None
    assert (long.folder / "train" / "last.ckpt").exists()
    assert "stopped; go on with" in (long.folder / "log.txt").read_text()


def _wait(condition, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)

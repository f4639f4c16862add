"""A whole run on stand-ins: what it leaves, and how it goes on after whatever happens to it."""

from __future__ import annotations

import errno
import itertools
import json
import math
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from engine_fakes import (
    AP,
    PER_EPOCH,
    FakeDetector,
    FakeLoader,
    fake_metrics,
    fake_recipe,
    press_ctrl_c,
    run_fake,
)
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from gcnet.commands.train import parse_train
from gcnet.engine import run as engine
from gcnet.engine import runfolder
from gcnet.engine.checkpoint import read_checkpoint
from gcnet.engine.loggers import read_metrics
from gcnet.engine.runfolder import write_recipe
from gcnet.engine.schedule import lr_factor
from gcnet.engine.train import TrainResult
from gcnet.errors import GCNetError
from gcnet.evaluation.coco_ap import Metrics
from gcnet.recipe import Recipe
from gcnet.weights.catalog import find

TOTAL = 3 * PER_EPOCH


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "last.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    run_fake(out, curves=True)
    return out


def test_what_a_run_leaves(unbroken: Path) -> None:
    names = "best.safetensors last.safetensors last.ckpt metrics.json results.json metrics.csv curves.png"
    names += " recipe.yaml versions.json split.json tensorboard live.html"
    assert {path.name for path in unbroken.iterdir()} == set(names.split())
    assert read_checkpoint(unbroken / "last.ckpt")["iteration"] == TOTAL
    assert {"gcnet", "torch", "python"} <= json.loads((unbroken / "versions.json").read_text()).keys()
    assert json.loads((unbroken / "metrics.json").read_text())["mask"]["AP"] == 0.25
    rows = read_metrics(unbroken / "metrics.csv")
    assert [row["iteration"] for row in rows if row["mask_AP"] == 0.25] == [3, 6, 9]
    rates = [row["lr"] for row in rows if not math.isnan(row["lr"])]
    recipe = Recipe(warmup_iterations=2, steps=(2,))
    assert rates == pytest.approx([0.1 * lr_factor(i, recipe, PER_EPOCH) for i in (2, 5, 8)])
    assert all(row["loss"] == pytest.approx(row["loss_cls"] + row["loss_box"], rel=1e-4) for row in rows[::2])


def test_the_recipe_file_is_the_command_line(unbroken: Path, tmp_path: Path) -> None:
    options = yaml.safe_load((unbroken / "recipe.yaml").read_text())
    assert options["model"] == "fake"
    assert options["data"] == "photos"
    write_recipe(
        tmp_path,
        fake_recipe(scale_jitter=(0.5, 1.0), image_size=(64, 48)),
        spec=replace(find("mask_rcnn_tiny_gc4").spec, class_names=("square", "disc")),
        data={"data": "photos"},
        weights=None,
    )
    values, recipe = parse_train(["--config", str(tmp_path / "recipe.yaml")])
    assert recipe == fake_recipe(scale_jitter=(0.5, 1.0), image_size=(64, 48))
    assert (values.model, values.data) == ("mask_rcnn_tiny_gc4", "photos")
    assert (values.weights, values.out) == ("none", str(tmp_path))
    assert values.class_names == ("square", "disc")


def test_the_end_says_how_to_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_fake(tmp_path / "run", epochs=1)
    assert isinstance(result, TrainResult)
    assert result.best == tmp_path / "run" / "best.safetensors"
    assert result.metrics is not None
    assert result.metrics.mask["AP"] == 0.25
    assert f"gcnet predict {result.best}" in capsys.readouterr().out


def test_only_the_best_is_kept_as_best(tmp_path: Path) -> None:
    scores = iter([0.1, 0.3, 0.2])
    run_fake(tmp_path, validate=lambda *_, **__: (fake_metrics(next(scores)), []))
    with safe_open(tmp_path / "best.safetensors", "pt") as file:
        assert json.loads(file.metadata()["provenance"])["iteration"] == 2 * PER_EPOCH


def test_the_last_is_the_best_where_there_is_nothing_to_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = Metrics(dict.fromkeys(AP, -1.0), dict.fromkeys(AP, -1.0), {})
    run_fake(tmp_path, patience=1, validate=lambda *_, **__: (nothing, []))
    with safe_open(tmp_path / "best.safetensors", "pt") as file:
        provenance = json.loads(file.metadata()["provenance"])
    assert provenance["iteration"] == 3 * PER_EPOCH
    assert "mask_AP" not in provenance
    assert f"iteration {PER_EPOCH}/{3 * PER_EPOCH}: nothing to score" in capsys.readouterr().out


def test_without_validation_images(tmp_path: Path) -> None:
    result = run_fake(tmp_path, valid=False)
    assert result.metrics is None
    assert result.best is None
    assert result.last.exists()


def test_validation_only_every_so_often_and_at_the_end(tmp_path: Path) -> None:
    run_fake(tmp_path, validate_every=2)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["iteration"] for row in rows if not math.isnan(row["mask_AP"])] == [6, 9]


@pytest.mark.parametrize("changes", [{"optimizer": "adamw", "clip_norm": 0.1}, {"precision": "bf16"}])
def test_other_recipes_train(tmp_path: Path, changes: dict[str, Any]) -> None:
    run_fake(tmp_path, epochs=1, **changes)
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_an_occupied_folder_is_refused(unbroken: Path) -> None:
    before = weights(unbroken)
    with pytest.raises(GCNetError, match=r"--resume.*--out"):
        run_fake(unbroken)
    assert weights(unbroken).keys() == before.keys()


@pytest.mark.parametrize("out", ["file/run", "/proc/run"])
def test_a_folder_that_cannot_be_written_to(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("in the way")
    detector = FakeDetector()
    with pytest.raises(GCNetError, match="cannot write in"):
        run_fake(tmp_path / out, detector=detector)
    assert detector.calls == 0


def test_a_disk_with_no_room_for_the_first_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(GCNetError, match=r"cannot write .*last\.ckpt: No space left on device; free space"):
        run_fake(tmp_path / "run")
    assert capsys.readouterr().out == ""
    assert not list((tmp_path / "run").iterdir())


def test_models_say_what_they_were_made_from(tmp_path: Path) -> None:
    detector = FakeDetector()
    detector.provenance = {"file": "old.pth"}
    run_fake(tmp_path / "run", detector=detector, epochs=1)
    with safe_open(tmp_path / "run" / "best.safetensors", "pt") as file:
        provenance = json.loads(file.metadata()["provenance"])
    assert provenance == {
        "trained_on": "photos",
        "train_images": 0,
        "fine_tuned_from": {"file": "old.pth"},
        "iteration": PER_EPOCH,
        "mask_AP": 0.25,
        "box_AP": 0.5,
    }
    resumed = FakeDetector()  # made anew, as the command line does: the weights need not be there again
    run_fake(tmp_path / "run", detector=resumed, resume=True, epochs=2)
    assert resumed.provenance["fine_tuned_from"] == {"file": "old.pth"}


def test_a_resumed_run_keeps_its_recorded_weights(tmp_path: Path) -> None:
    run_fake(tmp_path, epochs=1)
    path = tmp_path / "recipe.yaml"
    path.write_text(path.read_text().replace("weights: none", "weights: coco"))
    run_fake(tmp_path, resume=True, epochs=2)
    assert yaml.safe_load(path.read_text())["weights"] == "coco"


def test_resume_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="nothing to resume"):
        run_fake(tmp_path, resume=True)


def test_a_batch_that_cannot_be_shared_out(tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="batch_size 3"):
        run_fake(tmp_path, devices=2, batch_size=3)


def logged(out: Path) -> str:
    """The rows of metrics.csv without times and memory."""
    rows = read_metrics(out / "metrics.csv")
    return str([{k: v for k, v in row.items() if k not in {"seconds", "memory_gb"}} for row in rows])


def interrupted(at: int, number: int = signal.SIGINT) -> FakeDetector:
    detector = FakeDetector()
    press_ctrl_c(detector, at, number)
    return detector


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd"},
        {"optimizer": "adamw"},
        {"optimizer": "adamw", "schedule": "free"},
        {"ema": 0.9, "validation_loss": True},
        {"precision": "fp16", "clip_norm": 0.1},
    ],
)
def test_ctrl_c_in_mid_epoch_then_resume(tmp_path: Path, changes: dict[str, Any], capsys: Any) -> None:
    run_fake(tmp_path / "whole", lr=0.01, **changes)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        run_fake(broken, detector=interrupted(2), lr=0.01, **changes)
    assert read_checkpoint(broken / "last.ckpt")["iteration"] == 2
    assert "--resume" in capsys.readouterr().out
    resumed = FakeDetector(seed=77)  # its weights come from the checkpoint
    run_fake(broken, detector=resumed, resume=True, lr=0.01, **changes)
    assert_same_weights(tmp_path / "whole", broken)
    assert logged(broken) == logged(tmp_path / "whole")
    one, other = (read_checkpoint(out / "last.ckpt") for out in (tmp_path / "whole", broken))
    assert (one["scaler"], str(one["ema"])) == (other["scaler"], str(other["ema"]))


def test_sigterm_keeps_the_iteration(unbroken: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        run_fake(tmp_path, detector=interrupted(5, signal.SIGTERM))
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert read_checkpoint(tmp_path / "last.ckpt")["iteration"] == 5
    run_fake(tmp_path, resume="auto")
    assert_same_weights(unbroken, tmp_path)
    assert logged(tmp_path) == logged(unbroken)


def test_resume_auto_begins_where_there_is_nothing(unbroken: Path, tmp_path: Path) -> None:
    (tmp_path / ".last.ckpt.77.part").write_text("of a run that was killed in its first moment")
    run_fake(tmp_path, resume="auto", epochs=1)
    assert not list(tmp_path.glob(".*"))
    run_fake(tmp_path, resume="auto")
    assert_same_weights(unbroken, tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.jpg").write_text("")
    with pytest.raises(GCNetError, match="not empty"):
        run_fake(tmp_path / "other", resume="auto")


@pytest.mark.parametrize("error", [GCNetError, RuntimeError, BrokenPipeError])
def test_whatever_comes_between_two_iterations_the_state_is_saved(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    plain = FakeLoader.__iter__

    def broken(self: FakeLoader) -> Any:
        yield from itertools.islice(plain(self), 4)
        raise error("4.png cannot be read; restore it")

    monkeypatch.setattr(FakeLoader, "__iter__", broken)
    with pytest.raises(error, match=r"4\.png cannot be read") as caught:
        run_fake(tmp_path)
    assert (error is not GCNetError) or "go on after iteration 4: gcnet train --config" in str(caught.value)
    assert read_checkpoint(tmp_path / "last.ckpt")["iteration"] == 4
    monkeypatch.undo()
    run_fake(tmp_path, resume=True)
    assert_same_weights(unbroken, tmp_path)
    assert logged(tmp_path) == logged(unbroken)


def test_a_terminal_that_is_gone_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who starts the tests may ignore it
    left: list[bool] = []
    monkeypatch.setattr("gcnet.engine.stop._leave_terminal", lambda: left.append(True))
    try:
        with pytest.raises(SystemExit):
            run_fake(tmp_path, detector=interrupted(3, signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert left == [True]
    assert read_checkpoint(tmp_path / "last.ckpt")["iteration"] == 3


def test_a_folder_is_for_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcnet.files.LOADERS_END", 0.1)
    with (
        runfolder.claimed(tmp_path, resume=False),
        pytest.raises(GCNetError, match="another run is writing"),
    ):
        run_fake(tmp_path)
    run_fake(tmp_path, epochs=1)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    run_fake(tmp_path, epochs=1)
    swapped = FakeDetector()
    swapped.spec = replace(swapped.spec, class_names=("disc", "square"))
    with pytest.raises(GCNetError, match=r"its class 0 is 'square', that of the data 'disc'"):
        run_fake(tmp_path, detector=swapped, resume=True)
    path = tmp_path / "last.ckpt"
    state = read_checkpoint(path)
    del state["class_names"]  # as in a checkpoint of an older gcnet: recipe.yaml has them
    torch.save(state, path)
    with pytest.raises(GCNetError, match="its class 0 is 'square'"):
        run_fake(tmp_path, detector=swapped, resume=True)


def test_a_checkpoint_of_an_older_gcnet(unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_fake(tmp_path, detector=interrupted(3))
    path = tmp_path / "last.ckpt"
    state = read_checkpoint(path)
    known = ("format", "iteration", "recipe", "provenance", "detector", "optimizer")
    younger = ("accumulate", "ema", "patience", "validation_loss", "loggers")
    state["recipe"] = {name: value for name, value in state["recipe"].items() if name not in younger}
    torch.save({name: state[name] for name in known}, path)
    run_fake(tmp_path, resume=True)
    assert_same_weights(unbroken, tmp_path)


def test_images_that_changed_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_fake(tmp_path, epochs=1, images=3)
    run_fake(tmp_path, epochs=2, images=3, resume=True)
    assert "have changed" not in capsys.readouterr().out
    run_fake(tmp_path, epochs=3, images=4, resume=True)
    assert "changed since the checkpoint (3 images then, 4 now)" in capsys.readouterr().out


class PlainDetector(FakeDetector):
    """Without random numbers and norms of a batch."""

    def losses(self, batch: Any, targets: Any) -> dict[str, Tensor]:
        assert len(batch) == len(targets)
        self.calls += 1
        return {"loss_cls": (self.layer(batch.images.float().mean((2, 3)) / 255) - 1).square().mean()}


def test_accumulated_parts_are_the_large_batch(tmp_path: Path) -> None:
    once, twice = PlainDetector(), PlainDetector()
    run_fake(tmp_path / "once", detector=once)
    run_fake(tmp_path / "twice", detector=twice, accumulate=2)
    assert (once.calls, twice.calls) == (TOTAL, 2 * TOTAL)
    torch.testing.assert_close(once.layer.weight, twice.layer.weight)
    rows, parts = (read_metrics(tmp_path / name / "metrics.csv") for name in ("once", "twice"))
    assert [row["loss"] for row in rows[::2]] == pytest.approx([row["loss"] for row in parts[::2]], rel=1e-5)


def test_the_average_of_the_weights_is_scored_and_kept(tmp_path: Path) -> None:
    detector = FakeDetector()
    expected = detector.layer.weight.detach().clone()
    weights_of: list[Tensor] = []

    def remember(*_: Any) -> dict[str, Tensor]:
        nonlocal expected
        weights_of.append(detector.layer.weight.detach().clone())
        return plain(*_)

    plain, detector.losses = detector.losses, remember  # type: ignore[method-assign]
    run_fake(tmp_path, detector=detector, ema=0.5)
    for iteration, weight in enumerate([*weights_of[1:], detector.layer.weight.detach()], start=1):
        expected = expected.lerp(weight, 1 - min(0.5, (1 + iteration) / (10 + iteration)))
    average = load_file(tmp_path / "last-ema.safetensors")
    torch.testing.assert_close(average["layer.weight"], expected)
    assert not torch.equal(average["layer.weight"], weights(tmp_path)["layer.weight"])
    assert read_checkpoint(tmp_path / "last.ckpt")["ema"]["layer.weight"].equal(average["layer.weight"])
    with safe_open(tmp_path / "best.safetensors", "pt") as file:
        assert json.loads(file.metadata()["provenance"])["ema"] == 0.5


def test_a_run_ends_when_it_gets_no_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = iter([0.1, 0.3, 0.3, 0.2])
    result = run_fake(
        tmp_path, epochs=9, patience=2, validate=lambda *_, **__: (fake_metrics(next(scores)), [])
    )
    assert "no better mask_AP in 2 validations" in capsys.readouterr().out
    assert result.metrics is not None
    assert result.metrics.mask["AP"] == 0.2
    assert read_checkpoint(tmp_path / "last.ckpt")["iteration"] == 4 * PER_EPOCH
    resumed = FakeDetector()
    run_fake(tmp_path, detector=resumed, epochs=9, patience=2, resume=True)
    assert resumed.calls == 0
    assert len(read_metrics(tmp_path / "metrics.csv")) == 8


def test_fp16_skips_a_step_that_overflows_and_stops_at_a_gradient_that_is_wrong(tmp_path: Path) -> None:
    class Overflowing(FakeDetector):
        def losses(self, *args: Any) -> dict[str, Tensor]:
            losses = super().losses(*args)
            too_much = 1e35 if self.calls > 15 else 1.0
            return {name: loss.float() * too_much for name, loss in losses.items()}

    detector = Overflowing()
    with pytest.raises(GCNetError, match=r"the gradient became NaN or infinite at iteration 2[5-9]"):
        run_fake(tmp_path, detector=detector, precision="fp16", epochs=20, valid=False)
    assert torch.isfinite(detector.layer.weight).all()
    norms = [row["grad_norm"] for row in read_metrics(tmp_path / "metrics.csv")]
    assert math.isnan(norms[0])  # the first scales are too large for any step
    assert all(norm < 100 for norm in norms[2:5])


def test_losses_of_validation_images_are_logged(tmp_path: Path) -> None:
    run_fake(tmp_path, validation_loss=True)
    values = [row["valid_loss"] for row in read_metrics(tmp_path / "metrics.csv")[1::2]]
    assert len(set(values)) == 3
    assert all(0 < value < 10 for value in values)


def test_ctrl_c_in_a_validation_then_resume(unbroken: Path, tmp_path: Path) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        run_fake(tmp_path, validate=interrupted, checkpoint_every=0)
    run_fake(tmp_path, resume=True)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["iteration"] for row in rows if not math.isnan(row["mask_AP"])] == [3, 6, 9]
    assert_same_weights(unbroken, tmp_path)


def test_a_finished_run_resumes_to_the_same(unbroken: Path, tmp_path: Path) -> None:
    run_fake(tmp_path)
    result = run_fake(tmp_path, resume=True)
    assert result.metrics is not None
    assert_same_weights(unbroken, tmp_path)


class SlowDetector(FakeDetector):
    def losses(self, *args: Any) -> dict[str, Tensor]:
        time.sleep(0.1)
        return super().losses(*args)


def _train_slowly(out: Path) -> None:
    run_fake(out, detector=SlowDetector(), checkpoint_every=0)


def test_sigkill_then_resume(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = multiprocessing.get_context("fork").Process(target=_train_slowly, args=(out,))
    process.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (out / "last.ckpt").exists() and read_checkpoint(out / "last.ckpt")["iteration"] >= 4:
            break
        time.sleep(0.02)
    process.kill()
    process.join()
    done = read_checkpoint(out / "last.ckpt")["iteration"]
    assert 4 <= done < TOTAL
    with open(out / "metrics.csv", "a") as file:
        file.write("7,1.2,0.")  # a torn line, and rows after the checkpoint, go
    run_fake(out, resume=True)
    assert_same_weights(unbroken, out)
    assert logged(out) == logged(unbroken)


def test_a_nan_loss_names_the_images_and_keeps_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(GCNetError) as caught:
        run_fake(tmp_path, detector=FakeDetector(nan_at=5))
    message = str(caught.value)
    assert "loss_cls became NaN or infinite at iteration 5" in message
    assert "102, 103" in message
    assert str(tmp_path / "last.ckpt") in message
    state = read_checkpoint(tmp_path / "last.ckpt")
    assert state["iteration"] < 5
    assert all(torch.isfinite(value).all() for value in state["detector"].values())


class ExplodingDetector(FakeDetector):
    """A finite loss whose gradient is not."""

    def losses(self, *args: Any) -> dict[str, Tensor]:
        losses = super().losses(*args)
        return (
            losses | {"loss_box": (self.layer.weight * 0).abs().sum().sqrt()} if self.calls == 2 else losses
        )


def test_an_infinite_gradient_is_not_applied(tmp_path: Path) -> None:
    detector = ExplodingDetector()
    with pytest.raises(GCNetError, match="gradient became NaN or infinite at iteration 2"):
        run_fake(tmp_path, detector=detector)
    assert torch.isfinite(detector.layer.weight).all()


def test_a_disk_that_is_full_from_the_first_epoch_on(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    real = engine.save_checkpoint

    def save(path: Path, detector: Any, recipe: Recipe, *, iteration: int, **state: Any) -> None:
        if iteration:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, detector, recipe, iteration=iteration, **state)

    monkeypatch.setattr(engine, "save_checkpoint", save)
    with pytest.raises(GCNetError, match=r"last\.ckpt could not be written"):
        run_fake(tmp_path)
    assert "warning" in capsys.readouterr().out
    assert read_checkpoint(tmp_path / "last.ckpt")["iteration"] == 0
    assert (tmp_path / "metrics.json").exists()
    assert (tmp_path / "last.safetensors").exists()


def test_a_disk_that_is_full_from_the_start(tmp_path: Path, monkeypatch: Any) -> None:
    def save(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(engine, "save_checkpoint", save)
    detector = FakeDetector()
    with pytest.raises(GCNetError, match="free space"):
        run_fake(tmp_path, detector=detector)
    assert detector.calls == 0

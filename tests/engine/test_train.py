"""A whole run on stand-ins: what it leaves, and how it goes on after whatever happens to it."""

from __future__ import annotations

import errno
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
from engine_fakes import PER_EPOCH, FakeDetector, fake_metrics, fake_recipe, run_fake
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from gcnet.commands.train import parse_train
from gcnet.engine import train as engine
from gcnet.engine.checkpoint import read_checkpoint
from gcnet.engine.loggers import read_metrics
from gcnet.engine.runfolder import write_recipe
from gcnet.engine.schedule import lr_factor
from gcnet.engine.train import TrainResult
from gcnet.errors import GCNetError
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
    run_fake(out)
    return out


def test_what_a_run_leaves(unbroken: Path) -> None:
    names = "best.safetensors last.safetensors last.ckpt metrics.json results.json metrics.csv curves.png"
    names += " recipe.yaml versions.json tensorboard"
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
        data="photos",
        weights=None,
    )
    values, recipe = parse_train(["--config", str(tmp_path / "recipe.yaml")])
    assert recipe == fake_recipe(scale_jitter=(0.5, 1.0), image_size=(64, 48))
    assert (values.model, values.data) == ("mask_rcnn_tiny_gc4", "photos")
    assert (values.weights, values.out) == (None, str(tmp_path))
    assert values.class_names == ["square", "disc"]


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


class InterruptedDetector(FakeDetector):
    """Presses Ctrl-C in the fifth iteration."""

    def losses(self, *args: Any) -> dict[str, Tensor]:
        losses = super().losses(*args)
        if self.calls == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return losses


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_ctrl_c_in_mid_epoch_then_resume(tmp_path: Path, optimizer: str, capsys: Any) -> None:
    run_fake(tmp_path / "whole", optimizer=optimizer, lr=0.01)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        run_fake(broken, detector=InterruptedDetector(), optimizer=optimizer, lr=0.01)
    assert read_checkpoint(broken / "last.ckpt")["iteration"] == 5
    assert "--resume" in capsys.readouterr().out
    resumed = FakeDetector(seed=77)  # its weights come from the checkpoint
    run_fake(broken, detector=resumed, resume=True, optimizer=optimizer, lr=0.01)
    assert resumed.calls == TOTAL - 5
    assert_same_weights(tmp_path / "whole", broken)
    whole, again = (read_metrics(tmp_path / name / "metrics.csv") for name in ("whole", "broken"))
    skip = {"seconds", "memory_gb"}
    assert str([v for k, v in whole[-2].items() if k not in skip]) == str(
        [v for k, v in again[-2].items() if k not in skip]
    )


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
    iterations = [row["iteration"] for row in read_metrics(out / "metrics.csv")]
    assert iterations == sorted(iterations)
    assert iterations[-1] == TOTAL


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

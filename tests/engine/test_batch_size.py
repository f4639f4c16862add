"""The batch size "auto": the largest that fits, with enough iterations left, kept by a resumed run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from engine_fakes import FakeDetector, fake_recipe, press_ctrl_c, run_fake
from safetensors.torch import load_file

from gcnet.commands.train import parse_train
from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.engine import batch_size as module
from gcnet.engine.batch_size import largest
from gcnet.engine.checkpoint import read_checkpoint
from gcnet.engine.processes import find_place
from gcnet.engine.schedule import describe_changes, for_few_images
from gcnet.errors import GCNetError
from gcnet.recipe import Recipe
from gcnet.types import Batch


@pytest.mark.parametrize(
    ("room", "unit", "most", "expected"), [(100, 1, 16, 16), (7, 1, 64, 4), (13, 3, 99, 12)]
)
def test_the_largest_that_fits(room: int, unit: int, most: int, expected: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= room

    assert largest(fits, unit, most) == expected
    assert max(tried) <= most
    with pytest.raises(GCNetError, match="not even 200 images a step fit into the memory"):
        largest(fits, 200, 400)


def test_on_a_cpu_it_is_a_small_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_fake(tmp_path, batch_size="auto", lr_batch_size=16, warmup_iterations=500)
    assert "batch size: 4, on a CPU larger ones are not faster; rate 0.025" in capsys.readouterr().out
    options = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert (options["batch_size"], options["warmup_iterations"]) == (4, 0)


def room_for(images: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has the CPU taken for a GPU whose memory is full beyond some images; what is tried."""
    tried: list[int] = []
    plain = module.take_step

    def take_step(run: Any, losses_of: Any, batch: Batch, targets: Any, stop: Any) -> Any:
        tried.append(run.recipe.batch_size)
        if run.recipe.batch_size > images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(run, losses_of, batch, targets, stop)

    monkeypatch.setattr(module, "take_step", take_step)
    monkeypatch.setattr(module, "_padded", lambda images, shape: images)
    monkeypatch.setattr(module, "_largest_shape", lambda *_: (32, 32))
    monkeypatch.setattr(module, "_is_gpu", lambda place: True)
    for name, value in {"reset_peak_memory_stats": None, "mem_get_info": (100, 100)}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    for name in ("memory_reserved", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: 0)
    return tried


def test_on_a_gpu_it_is_found_by_trial_which_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = room_for(9, monkeypatch)
    options = {"images": 6, "epochs": 4, "lr": 0.01, "lr_batch_size": 2, "steps": None}
    monkeypatch.setattr(module, "ENOUGH", 1)
    run_fake(tmp_path / "auto", batch_size="auto", **options)
    assert tried == [1, 1, 2, 2, 4, 4, 8, 8, 16]
    recipe = read_checkpoint(tmp_path / "auto" / "last.ckpt")["recipe"]
    assert (recipe["batch_size"], recipe["warmup_iterations"]) == (8, 1)
    run_fake(tmp_path / "plain", batch_size=8, warmup_iterations=1, **options)
    one, other = (load_file(tmp_path / name / "last.safetensors") for name in ("auto", "plain"))
    assert all(one[name].equal(other[name]) for name in one)


def test_a_run_keeps_enough_iterations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = room_for(64, monkeypatch)
    run_fake(tmp_path, batch_size="auto", images=6)
    assert max(tried) == 4


def test_a_resumed_run_keeps_its_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"batch_size": "auto", "lr_batch_size": 2, "epochs": 4}
    run_fake(tmp_path / "whole", **options)
    detector = FakeDetector()
    press_ctrl_c(detector, 5)
    with pytest.raises(KeyboardInterrupt):
        run_fake(tmp_path / "broken", detector=detector, **options)
    tried = room_for(64, monkeypatch)
    run_fake(tmp_path / "broken", resume=True, **options)
    assert not tried
    one, other = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "broken"))
    assert all(one[name].equal(other[name]) for name in one)


def test_batches_are_tried_at_the_largest_shape() -> None:
    records = [
        ImageRecord(number, Path(f"{number}.jpg"), width, height, ())
        for number, (width, height) in enumerate([(400, 200), (100, 300), (50, 60)])
    ]
    dataset = DataSet(Path("none.json"), records, ("square",), (1,))
    recipe = Recipe(scale_jitter=(0.5, 1.5))
    assert module._largest_shape(dataset, recipe, (200, 100)) == (320, 320)  # 300 high, 300 wide
    assert module._largest_shape(dataset, replace(recipe, scale_jitter=(1, 1)), (200, 60)) == (192, 128)
    assert module._largest_shape(dataset, Recipe(rotation=9), (200, 60)) == (192, 192)
    batch = Batch(torch.ones(2, 3, 32, 64, dtype=torch.uint8), [(30, 50)] * 2, [(60, 100)] * 2, [1, 2])
    assert module._padded(batch, (96, 32)).images.shape == (2, 3, 96, 64)


def test_auto_is_an_option_and_a_line_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("batch_size: auto\n")
    for words in (["--batch-size", "auto"], ["--config", str(tmp_path / "a.yaml")]):
        assert parse_train(["mask_rcnn_tiny", "--data", "photos", *words])[1].batch_size == "auto"
    assert find_place(fake_recipe(batch_size="auto", devices=2, accumulate=2)).world == 2


def test_few_images_and_auto() -> None:
    recipe = for_few_images(Recipe(batch_size="auto"), 105, {"batch_size"})
    assert recipe == replace(for_few_images(Recipe(), 105, ()), batch_size="auto")
    assert "epochs 38" in str(describe_changes(Recipe(batch_size="auto"), recipe, 105))
    assert for_few_images(Recipe(batch_size="auto"), 2000, {"batch_size"}) == Recipe(batch_size="auto")

"""Checkpoints are whole or absent, and safe to read."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import FakeDetector, fake_recipe, run_fake

from gcnet.engine.checkpoint import (
    changed_fields,
    read_checkpoint,
    restore_model,
    save_checkpoint,
)
from gcnet.engine.schedule import make_optimizer
from gcnet.errors import GCNetError

NAMES = ("square", "disc")


def save(path: Path, detector: FakeDetector, iteration: int = 3) -> None:
    recipe = fake_recipe()
    optimizer = make_optimizer(detector, recipe).state_dict()
    names = list(detector.spec.class_names)
    save_checkpoint(path, detector, recipe, iteration=iteration, optimizer=optimizer, class_names=names)


def test_round_trip(tmp_path: Path) -> None:
    path, detector = tmp_path / "last.ckpt", FakeDetector(seed=1)
    save(path, detector)
    state = read_checkpoint(path)  # reads with weights_only=True
    other = FakeDetector(seed=2)
    restore_model(other, state, path, fake_recipe(), NAMES)
    assert state["iteration"] == 3
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in detector.state_dict().items())
    assert changed_fields(state["recipe"], fake_recipe()) == []
    assert changed_fields(state["recipe"], fake_recipe(lr=1.0, steps=(1,))) == ["lr", "steps"]
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save(path, FakeDetector(), iteration=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # the system then refuses longer files
    try:
        with pytest.raises(OSError, match=r"last|large|write"):
            save(path, FakeDetector(), iteration=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_checkpoint(path)["iteration"] == 1
    assert os.listdir(tmp_path) == ["last.ckpt"]


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", "truncated", "another file of torch"])
def test_what_cannot_be_resumed_from_is_named(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "last.ckpt"
    if content == "truncated":
        save(path, FakeDetector())
        path.write_bytes(path.read_bytes()[:-500])
    elif content == "another file of torch":
        torch.save({"state_dict": {}}, path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(GCNetError, match=r"last\.ckpt") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    run_fake(out, epochs=1)
    return out


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("detector", None),
        ("detector", {"layer.weight": 3}),
        ("detector", {"layer.weight": torch.eye(4).to_sparse()}),
        ("detector", {"layer.weight": torch.zeros(4, 4, device="meta")}),
        ("iteration", "3"),
        ("iteration", -1),
        ("optimizer", {"state": [1]}),
        ("optimizer", {"state": {0: {"momentum_buffer": torch.zeros(7)}}}),
        ("optimizer", {"state": {99: {"momentum_buffer": torch.zeros(7)}}}),
        ("optimizer", {"state": {0: {"momentum_buffer": "x"}}}),
        ("recipe", {}),
        ("provenance", [1]),
        ("sums", {"loss": 1.0}),
        ("ema", {"layer.weight": None}),
        ("images", {}),
        ("class_names", ["square"]),
    ],
)
def test_a_damaged_part_is_one_line(finished: Path, tmp_path: Path, part: str, value: Any) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "last.ckpt"
    state = read_checkpoint(path)
    torch.save(state | {part: value}, path)
    with pytest.raises(GCNetError, match=r"cannot resume from .*last\.ckpt"):
        run_fake(tmp_path, resume=True)


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("executed",)


def test_a_pickle_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "iteration": Evil()}, "last.ckpt")
    with pytest.raises(GCNetError, match="cannot resume"):
        read_checkpoint(Path("last.ckpt"))
    assert os.listdir() == ["last.ckpt"]


def test_another_model_or_optimizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save(path, FakeDetector())
    state = read_checkpoint(path)
    with pytest.raises(GCNetError, match="optimizer sgd"):
        restore_model(FakeDetector(), state, path, fake_recipe(optimizer="adamw"), NAMES)
    other = FakeDetector()
    other.layer = torch.nn.Linear(5, 4)
    with pytest.raises(GCNetError, match=r"another model.*layer\.weight"):
        restore_model(other, state, path, fake_recipe(), NAMES)

"""Schedule-free AdamW is its paper's algorithm, and its average is what a run validates and saves."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from engine_fakes import FakeDetector, fake_metrics, run_fake
from safetensors.torch import load_file
from torch import nn

from gcnet.engine import validation
from gcnet.engine.schedule import lr_factor, make_optimizer
from gcnet.engine.schedule_free import NEAR, SQUARES, ScheduleFreeAdamW
from gcnet.errors import GCNetError
from gcnet.recipe import Recipe

FREE = {"schedule": "free", "optimizer": "adamw", "lr": 0.01}


def test_the_algorithm_of_the_paper() -> None:
    """With x, y and z each written down; the optimizer itself keeps two of them."""
    torch.manual_seed(0)
    model, goal, decay = nn.Linear(4, 3).double(), torch.randn(3, 4).double(), 0.05
    optimizer = ScheduleFreeAdamW(model.parameters(), lr=1.0, weight_decay=decay)
    x = z = model.weight.detach().clone()
    squares, weights = torch.zeros_like(z), 0.0
    for step, rate in enumerate([0.0, 0.01, 0.02, *[0.03] * 20], 1):
        y = (1 - NEAR) * z + NEAR * x
        torch.testing.assert_close(model.weight.detach(), y)
        gradient = y - goal
        squares = SQUARES * squares + (1 - SQUARES) * gradient**2
        size = (squares / (1 - SQUARES**step)).sqrt() + 1e-8
        z = z - rate * (gradient / size + decay * y)
        weights += rate**2
        share = rate**2 / weights if rate else 0.0
        x = (1 - share) * x + share * z
        model.weight.grad, optimizer.param_groups[0]["lr"] = gradient.clone(), rate
        optimizer.step()
    torch.testing.assert_close(optimizer.average(model).weight.detach(), x)
    assert optimizer.average(model).bias.equal(model.bias)  # which had no gradient


def test_the_rate_stays_after_the_warm_up() -> None:
    recipe = Recipe(**FREE, warmup_iterations=10, warmup_factor=0.5)
    assert [lr_factor(iteration, recipe, 100) for iteration in (0, 5, 10, 1199)] == [0.5, 0.75, 1, 1]


def test_shares_of_the_rate() -> None:
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    optimizer = make_optimizer(model, Recipe(**FREE, backbone_lr=0.1))
    assert [group["share"] for group in optimizer.param_groups] == [0.1, 1.0]


def test_the_average_is_validated_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, scored = FakeDetector(), []
    monkeypatch.setattr(validation, "save_model", lambda model, *_, **__: scored.append(copy.deepcopy(model)))
    found = iter([0.1, 0.2, 0.3])
    run_fake(tmp_path, detector=detector, validate=lambda: (fake_metrics(next(found)), []), **FREE)
    last = load_file(tmp_path / "last.safetensors")
    assert len(scored) == 3
    assert last["layer.weight"].equal(scored[-1].layer.weight)
    assert not last["layer.weight"].equal(detector.layer.weight)
    assert last["norm.running_mean"].equal(detector.norm.running_mean)
    assert not (tmp_path / "last-ema.safetensors").exists()


def test_a_run_keeps_its_kind_of_schedule(tmp_path: Path) -> None:
    run_fake(tmp_path, **FREE)
    with pytest.raises(GCNetError, match="trained with schedule free, not cosine; keep the recipe"):
        run_fake(tmp_path, resume=True, **FREE | {"schedule": "cosine", "epochs": 4})


@pytest.mark.parametrize("other", [{"optimizer": "sgd"}, {"ema": 0.9}], ids=str)
def test_what_does_not_go_with_it(other: dict[str, object]) -> None:
    with pytest.raises(GCNetError, match="give optimizer adamw and ema 0, or another schedule"):
        Recipe(**FREE | other)

"""A schedule for a time: what is decided, that the trial leaves no trace, and how the decision lives on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine_fakes import PER_EPOCH, FakeDetector, press_ctrl_c, run_fake, slow_clock
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from gcnet.engine import budget
from gcnet.engine.budget import UNTIMED, VALIDATING, Costs, plan
from gcnet.engine.checkpoint import read_checkpoint
from gcnet.engine.loggers import read_metrics
from gcnet.engine.schedule import VALIDATIONS, for_few_images
from gcnet.errors import GCNetError
from gcnet.recipe import Recipe, seconds_of


def run_timed(out: Path, time: str = "30s", later: Any = lambda look: 0.0, **options: Any) -> Any:
    with slow_clock(later):
        return run_fake(out, time=time, images=6, steps=None, **options)


def same_weights(first: Path, second: Path) -> bool:
    one, other = (load_file(out / "last.safetensors") for out in (first, second))
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize(
    ("word", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("", 0), ("30", 0), ("h", 0)],
)
def test_times(word: str, seconds: float) -> None:
    assert seconds_of(word) == seconds


@pytest.mark.parametrize("word", ["30", "0s", "m", "-3m", "1..2s", "soon", "9" * 400 + "s"])
def test_what_is_no_time(word: str) -> None:
    with pytest.raises(GCNetError, match=r"recipe: time is .*; give a time such as 90s"):
        Recipe(time=word)


@given(
    per_epoch=st.integers(1, 3000),
    iteration=st.floats(0.1, 10),
    validation=st.floats(0, 1000),
    left=st.floats(1, 1e5),
)
def test_a_plan_ends_in_time(per_epoch: int, iteration: float, validation: float, left: float) -> None:
    costs, epoch = Costs(iteration, validation), per_epoch * iteration
    if epoch + validation > left:
        with pytest.raises(GCNetError, match=r"--time 7m is too short.*give --time \d+m"):
            plan(Recipe(time="7m"), per_epoch, costs, left)
        return
    recipe = plan(Recipe(time="7m"), per_epoch, costs, left)
    validations = math.ceil(recipe.epochs / recipe.validate_every)
    taken = recipe.epochs * epoch + validations * validation
    assert taken <= left * (1 + 1e-9)
    assert validations <= VALIDATIONS
    assert validations == 1 or validations * validation <= VALIDATING * left
    assert recipe.warmup_iterations <= recipe.epochs * per_epoch / 10
    assert taken + epoch + validation * VALIDATIONS > left  # no epoch more would fit
    assert recipe.time == ""


def test_few_images_leave_the_epochs_to_the_time() -> None:
    recipe = for_few_images(Recipe(time="30m"), 105, ())
    assert recipe == Recipe(time="30m", batch_size=4)


def test_the_trial_leaves_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_timed(tmp_path / "timed", lr=0.01)
    said = capsys.readouterr().out
    options = yaml.safe_load((tmp_path / "timed" / "recipe.yaml").read_text())
    epochs = options["epochs"]
    assert f"time: 0.5 s an iteration and 0.5 s a validation, so {epochs} epochs of 3 iterations with" in said
    assert 10 < epochs < 17  # of 1.5 s, with 11 validations of 0.5 s, in 28.5 s less the trial
    assert (options["time"], options["warmup_iterations"], options["validate_every"]) == ("", 2, 2)
    run_fake(tmp_path / "plain", epochs=epochs, validate_every=2, images=6, steps=None, lr=0.01)
    assert same_weights(tmp_path / "timed", tmp_path / "plain")
    timed, plain = (read_metrics(tmp_path / name / "metrics.csv") for name in ("timed", "plain"))
    assert [row["loss"] for row in timed[::2]] == pytest.approx(
        [row["loss"] for row in plain[::2]], nan_ok=True
    )


def test_the_losses_of_a_validation_are_timed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_losses: list[int] = []
    monkeypatch.setattr(budget, "validation_losses", lambda *_, most: with_losses.append(most))
    run_timed(tmp_path / "without")
    assert not with_losses
    run_timed(tmp_path / "with", validation_loss=True)
    assert len(with_losses) == 1 <= with_losses[0] <= budget.SAMPLE


def test_a_resumed_run_keeps_what_was_decided(tmp_path: Path) -> None:
    run_timed(tmp_path / "whole", lr=0.01)
    detector = FakeDetector()
    press_ctrl_c(detector, 30)
    with pytest.raises(KeyboardInterrupt):
        run_timed(tmp_path / "broken", lr=0.01, detector=detector)
    assert read_checkpoint(tmp_path / "broken" / "last.ckpt")["iteration"] > 0
    run_timed(tmp_path / "broken", "10h", lr=0.01, resume=True)
    assert same_weights(tmp_path / "whole", tmp_path / "broken")


def test_a_signal_in_the_trial_ends_it(tmp_path: Path) -> None:
    detector = FakeDetector()
    press_ctrl_c(detector, UNTIMED + 1)
    with pytest.raises(KeyboardInterrupt):
        run_timed(tmp_path, detector=detector)
    run_timed(tmp_path, resume="auto")


def test_a_run_that_turns_out_slower_gets_fewer_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_timed(tmp_path, later=lambda look: max(0.0, look - 15) * 7)
    assert "more than at first, so" in capsys.readouterr().out
    state = read_checkpoint(tmp_path / "last.ckpt")
    epochs = state["recipe"]["epochs"]
    assert epochs < 25
    assert state["iteration"] == epochs * PER_EPOCH
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["epochs"] == epochs
    assert run_timed(tmp_path, resume=True).metrics is not None
    assert read_checkpoint(tmp_path / "last.ckpt")["iteration"] == epochs * PER_EPOCH


def test_a_time_that_is_over_ends_the_run_at_the_next_validation(tmp_path: Path) -> None:
    run_timed(tmp_path, later=lambda look: 1000.0 * (look > 15))
    assert read_checkpoint(tmp_path / "last.ckpt")["recipe"]["epochs"] == 2  # the first validation
    assert len([row for row in read_metrics(tmp_path / "metrics.csv") if row["mask_AP"] == 0.25]) == 1


def test_not_even_one_epoch(tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match=r"--time 1s is too short: 0 s of it are left, and one epoch"):
        run_timed(tmp_path, "1s")
    assert not list(tmp_path.iterdir())

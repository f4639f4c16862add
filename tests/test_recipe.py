"""The recipe checks itself and scales its rate."""

from __future__ import annotations

from typing import Any

import pytest

from gcnet.errors import GCNetError
from gcnet.recipe import Recipe


def test_the_rate_follows_the_batch_size() -> None:
    assert Recipe().scaled_lr() == 0.02
    assert Recipe(batch_size=4).scaled_lr() == pytest.approx(0.005)
    assert Recipe(batch_size=4, lr_batch_size=0).scaled_lr() == 0.02


@pytest.mark.parametrize(("epochs", "steps"), [(12, (8, 11)), (24, (16, 22)), (36, (24, 33)), (1, (1, 1))])
def test_steps_follow_the_epochs(epochs: int, steps: tuple[int, ...]) -> None:
    assert Recipe(epochs=epochs).step_epochs() == steps
    assert Recipe(epochs=epochs, steps=(3,)).step_epochs() == (3,)
    assert Recipe(epochs=epochs, steps=()).step_epochs() == ()


@pytest.mark.parametrize(
    "field",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"clip_norm": -1.0},
        {"clip_norm": float("nan")},
        {"weight_decay": -1.0},
        {"momentum": -1.0},
        {"warmup_factor": -1.0},
        {"color_jitter": -1.0},
        {"seed": -1},
        {"flip": 7.0},
        {"image_size": (800, 0)},
        {"scale_jitter": (2.0, 1.0)},
    ],
)
def test_impossible_values_are_named(field: dict[str, Any]) -> None:
    with pytest.raises(GCNetError, match=next(iter(field))):
        Recipe(**field)


@pytest.mark.parametrize("name", ["freeze", "schedule", "optimizer", "precision"])
def test_unknown_words_are_refused(name: str) -> None:
    recipe = Recipe()
    object.__setattr__(recipe, name, "c9")  # the checks of types in tests come before the recipe's own
    with pytest.raises(GCNetError, match=f"recipe: {name} is 'c9'; give "):
        recipe.__post_init__()

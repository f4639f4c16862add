"""The recipe checks itself and scales its rate."""

from __future__ import annotations

from typing import Any

import pytest

from gcnet.engine.recipe import Recipe
from gcnet.errors import GCNetError


def test_the_rate_follows_the_batch_size() -> None:
    assert Recipe().scaled_lr() == 0.02
    assert Recipe(batch_size=4).scaled_lr() == pytest.approx(0.005)
    assert Recipe(batch_size=4, lr_batch_size=0).scaled_lr() == 0.02


@pytest.mark.parametrize(
    "field",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"clip_norm": -1.0},
        {"scale_jitter": (2.0, 1.0)},
    ],
)
def test_impossible_values_are_named(field: dict[str, Any]) -> None:
    with pytest.raises(GCNetError, match=next(iter(field))):
        Recipe(**field)

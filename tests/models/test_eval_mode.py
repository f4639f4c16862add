"""A model's mode is given back, whatever happens."""

from __future__ import annotations

import pytest
from torch import nn

from gcnet.models.eval_mode import eval_mode


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back_after_an_error(training: bool) -> None:
    model = nn.Linear(1, 1).train(training)
    modes = []

    def fail() -> None:
        with eval_mode(model):
            modes.append(model.training)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert modes == [False]
    assert model.training == training

"""Learning rate and seeds as functions of the iteration."""

from __future__ import annotations

import math

import pytest
import torch

from gcnet.engine.schedule import lr_factor, seed_iteration
from gcnet.recipe import Recipe


def test_step_schedule_of_the_paper() -> None:
    recipe, per_epoch = Recipe(), 1000
    assert lr_factor(0, recipe, per_epoch) == pytest.approx(0.001)
    assert lr_factor(250, recipe, per_epoch) == pytest.approx(0.001 + 0.999 / 2)
    for iteration, expected in [(500, 1), (7_999, 1), (8_000, 0.1), (10_999, 0.1), (11_000, 0.01)]:
        assert lr_factor(iteration, recipe, per_epoch) == pytest.approx(expected)


def test_warmup_may_reach_past_a_step() -> None:
    recipe = Recipe(warmup_iterations=100, warmup_factor=0.0, steps=(1,))
    assert lr_factor(50, recipe, 40) == pytest.approx(0.5 * 0.1)


def test_cosine_falls_from_one_to_nothing() -> None:
    recipe = Recipe(epochs=10, schedule="cosine", warmup_iterations=0)
    factors = [lr_factor(i, recipe, 10) for i in range(100)]
    assert factors[0] == 1
    assert factors[50] == pytest.approx(0.5)
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))
    assert lr_factor(1000, recipe, 10) == pytest.approx(0)


def test_one_cycle_rises_over_three_tenths_and_falls_to_nothing() -> None:
    recipe = Recipe(epochs=10, schedule="onecycle", warmup_iterations=7, warmup_factor=0.1)
    factors = [lr_factor(i, recipe, 10) for i in range(101)]
    assert factors[:31] == pytest.approx([0.1 + 0.9 * i / 30 for i in range(31)])
    assert factors[30:] == pytest.approx([(1 + math.cos(math.pi * i / 70)) / 2 for i in range(71)])


def test_the_other_schedules_are_to_the_bit_what_they_were() -> None:
    recipe = Recipe(epochs=7, schedule="cosine", warmup_iterations=9, warmup_factor=0.01)
    for iteration in range(70):
        warmup = 0.01 + (1 - 0.01) * (iteration / 9) if iteration < 9 else 1.0
        assert lr_factor(iteration, recipe, 10) == warmup * 0.5 * (1 + math.cos(math.pi * (iteration / 70)))


def test_draws_depend_on_seed_iteration_and_rank() -> None:
    def draw(*key: int) -> float:
        seed_iteration(*key)
        return float(torch.rand(()))

    keys = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw(3, 7, 1) == draw(3, 7, 1)

"""COCO's schedule for small data sets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcnet.engine.schedule import ENOUGH, SHORT, describe_changes, for_few_images
from gcnet.recipe import Recipe


def iterations(recipe: Recipe, images: int) -> int:
    return recipe.epochs * -(-images // recipe.batch_size)


@pytest.mark.parametrize("images", [2000, 117_266])
def test_larger_data_sets_keep_the_schedule(images: int) -> None:
    assert for_few_images(Recipe(), images, ()) == Recipe()
    assert describe_changes(Recipe(), Recipe(), images) is None


def test_a_hundred_images() -> None:
    recipe = for_few_images(Recipe(), 105, ())
    assert (recipe.batch_size, recipe.epochs, recipe.warmup_iterations) == (4, 38, 102)
    assert recipe.validate_every == 4
    assert recipe.scaled_lr() == pytest.approx(0.005)
    line = describe_changes(Recipe(), recipe, 105)
    assert line is not None
    assert "105 images are few, so batch_size 4, epochs 38, warmup_iterations 102" in line
    assert "rate 0.005" in line


@given(images=st.integers(1, 5000), devices=st.sampled_from([1, 2, 4, 8]))
def test_whatever_the_number_of_images(images: int, devices: int) -> None:
    recipe = for_few_images(Recipe(), images, (), devices=devices)
    total = iterations(recipe, images)
    assert recipe.epochs >= Recipe().epochs
    assert recipe.batch_size % devices == 0
    assert total >= min(ENOUGH, SHORT)
    assert recipe.warmup_iterations <= max(total / 10, Recipe().warmup_iterations * (total >= SHORT))
    assert recipe.epochs / recipe.validate_every <= 12


@pytest.mark.parametrize(
    "chosen",
    [
        {"epochs": 3},
        {"batch_size": 8},
        {"warmup_iterations": 500},
        {"validate_every": 1},
        {"epochs": 1, "batch_size": 16, "warmup_iterations": 7, "validate_every": 1},
    ],
)
def test_what_the_user_chose_stays(chosen: dict[str, int]) -> None:
    recipe = replace(Recipe(), **chosen)
    after = for_few_images(recipe, 105, set(chosen))
    assert all(getattr(after, name) == value for name, value in chosen.items())
    assert "warmup_iterations" in chosen or after.warmup_iterations <= iterations(after, 105) // 10
    assert replace(after, **{n: getattr(recipe, n) for n in ("batch_size", "epochs", "validate_every")}) == (
        replace(recipe, warmup_iterations=after.warmup_iterations)  # nothing else has changed
    )

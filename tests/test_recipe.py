"""The recipe checks itself and scales its rate."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gcnet.errors import GCNetError
from gcnet.recipe import ClassificationRecipe, Recipe


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
        {"steps": (8, -1)},
        {"max_detections": 1_000_000},
    ],
)
def test_impossible_values_are_named(field: dict[str, Any]) -> None:
    with pytest.raises(GCNetError, match=next(iter(field))):
        Recipe(**field)


@pytest.mark.parametrize(
    ("name", "value", "form"),
    [
        ("freeze", "c9", "own|none|stem"),
        ("schedule", None, "step|cosine"),
        ("epochs", "3", "INTEGER"),
        ("epochs", 2.5, "INTEGER"),
        ("lr", "fast", "NUMBER"),
        ("batch_size", "many", "INTEGER|auto"),
        ("steps", 8, "[INTEGER,...]"),
        ("loggers", "wandb", "[WORD,...]"),
        ("scale_jitter", (0.8,), "[NUMBER,NUMBER]"),
        ("flip", True, "NUMBER"),  # a probability: it would be the mirror image always
        ("epochs", True, "INTEGER"),
    ],
)
def test_values_of_another_kind_are_named(name: str, value: object, form: str) -> None:
    recipe = Recipe()
    object.__setattr__(recipe, name, value)  # the checks of types in tests come before the recipe's own
    with pytest.raises(GCNetError, match=re.escape(f"recipe: {name} is {value!r}; give {form}")):
        recipe.__post_init__()


def test_lists_and_whole_numbers_are_taken() -> None:
    recipe = Recipe(steps=(3,))
    object.__setattr__(recipe, "steps", [3, 5])
    object.__setattr__(recipe, "lr", 1)
    recipe.__post_init__()
    assert recipe.steps == (3, 5)


def test_a_classifier_is_validated_on_images_as_they_are() -> None:
    changes = {"flip": 1.0, "color_jitter": 1.0, "quarter_turns": 1.0, "rotation": 90.0, "mixup": 0.2}
    still = ClassificationRecipe(**changes).without_augmentation()
    assert {name: getattr(still, name) for name in changes} == dict.fromkeys(changes, 0.0)
    assert still.scale_jitter == (1.0, 1.0)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; give 0 or more, less than 1"),
        ({"scale_jitter": (0.5, 1.5)}, "a crop shows at most 1, the whole"),
        ({"image_size": (64, 128)}, "give the side to resize to and a square within it"),
        ({"copy_paste": 0.5}, "copy_paste is 0.5; it is for detectors"),
        ({"crop": 0.5}, "crop is 0.5; it is for detectors; scale_jitter crops"),
    ],
)
def test_what_only_classifiers_refuse(field: dict[str, Any], message: str) -> None:
    with pytest.raises(GCNetError, match=message):
        ClassificationRecipe(**field)

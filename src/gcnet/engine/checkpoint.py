"""The state of a run on disk: written whole or not at all, read without running code."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gcnet.console import listed
from gcnet.engine.schedule import TIMED_FIELDS
from gcnet.errors import GCNetError
from gcnet.files import write_atomically
from gcnet.recipe import Recipe

FORMAT = 1


def save_checkpoint(path: Path, model: nn.Module, recipe: Recipe, **state: Any) -> None:
    """Writes the state that a run needs to resume: tensors and plain values.

    Raises:
        OSError: the disk is full or the folder gone; an older checkpoint at `path` is untouched.
    """
    everything = {
        "format": FORMAT,
        "recipe": asdict(recipe),
        "provenance": getattr(model, "provenance", {}),
        "detector": model.state_dict(),  # or the classifier; the key is that of the format
        **state,
    }
    write_atomically(path, lambda file: torch.save(everything, file))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote, onto the CPU.

    Raises:
        GCNetError: there is no such file, or it is damaged or something else.
    """
    anew = "train anew with another --out"
    if not path.is_file():
        raise GCNetError(
            f"nothing to resume: {path} does not exist; train without --resume, into an empty --out"
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # of a damaged file
            state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["format"]
    except Exception as error:
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise GCNetError(
            f"cannot resume from {path}: not a readable checkpoint of gcnet train ({reason}); {anew}"
        ) from error
    if found != FORMAT:
        raise GCNetError(f"cannot resume from {path}: its format is {found}, this gcnet reads {FORMAT}")
    if damaged := [name for name, is_sound in _SOUND.items() if not is_sound(state.get(name))]:
        raise GCNetError(f"cannot resume from {path}: its {listed(damaged)} is damaged; {anew}")
    return state


def _is_dense(value: Any) -> bool:
    """Whether it is a dense tensor with all its numbers in memory."""
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def _are_tensors(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and _is_dense(tensor) for name, tensor in value.items()
    )


def _are_sums(value: Any) -> bool:
    """Whether it is the sum and count of each number of an incomplete row."""
    return isinstance(value, dict) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(number, float) for number in pair)
        for pair in value.values()
    )


def _are_moments(value: Any) -> bool:
    """Whether it has tensors and numbers by name for each parameter, by its number."""
    moments = value.get("state") if isinstance(value, dict) else None
    return isinstance(moments, dict) and all(
        isinstance(number, int)
        and isinstance(moment, dict)
        and all(_is_dense(one) or one is None or isinstance(one, int | float) for one in moment.values())
        for number, moment in moments.items()
    )


# What has to be true of the parts of a checkpoint; older ones lack some.
_SOUND: dict[str, Callable[[Any], bool]] = {
    "recipe": lambda value: isinstance(value, dict) and "optimizer" in value,
    "detector": _are_tensors,
    "iteration": lambda value: isinstance(value, int) and value >= 0,
    "optimizer": _are_moments,
    "provenance": lambda value: value is None or isinstance(value, dict),
    "sums": lambda value: value is None or _are_sums(value),
    "ema": lambda value: value is None or _are_tensors(value),
    "scaler": lambda value: value is None or isinstance(value, dict),
    "class_names": lambda value: value is None or isinstance(value, list | tuple),
    "images": lambda value: value is None or (isinstance(value, dict) and "count" in value),
}


def restore_moments(optimizer: Optimizer, state: dict[str, Any], path: Path) -> None:
    """Loads the optimizer's moments; its rates come from the recipe and the iteration.

    Raises:
        GCNetError: they are not those of the optimizer's parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = state["optimizer"]["state"]
    for number, moment in moments.items():
        tensors = [value for value in moment.values() if isinstance(value, Tensor) and value.dim()]
        if number >= len(parameters) or any(value.shape != parameters[number].shape for value in tensors):
            raise GCNetError(
                f"cannot resume from {path}: moment {number} of the optimizer fits no parameter; "
                "train anew with another --out"
            )
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})


def restore_model(
    model: nn.Module, state: dict[str, Any], path: Path, recipe: Recipe, class_names: Sequence[str]
) -> None:
    """Loads the checkpoint's weights into `model`, in place.

    Raises:
        GCNetError: it is the checkpoint of another model, class list or optimizer.
    """
    saved, own = state["detector"], model.state_dict()
    common = {name for name in saved.keys() & own.keys() if saved[name].shape == own[name].shape}
    differing = (saved.keys() | own.keys()) - common
    if differing:
        raise GCNetError(
            f"cannot resume from {path}: it belongs to another model or class list "
            f"({len(differing)} tensors differ, such as {min(differing)}); "
            "use the model and data it was trained with"
        )
    trained = state.get("class_names") or class_names  # older checkpoints have none
    for label, (old, new) in enumerate(zip_longest(trained, class_names)):
        if old != new:
            raise GCNetError(
                f"cannot resume from {path}: its class {label} is {old!r}, that of the data {new!r}; "
                "use the classes it was trained with, in their order"
            )
    for name in ("optimizer", "freeze", "schedule"):  # they decide which moments there are, and of what
        own, before = getattr(recipe, name), state["recipe"].get(name, getattr(type(recipe), name))
        if before != own and (name != "schedule" or "free" in (before, own)):
            raise GCNetError(
                f"cannot resume from {path}: it was trained with {name} {before}, "
                f"not {own}; keep the recipe, or use another --out"
            )
    model.load_state_dict(saved)


def changed_fields(saved: dict[str, Any], recipe: Recipe) -> list[str]:
    """The names of the recipe's fields whose values differ from those of a checkpoint."""
    now = asdict(recipe)
    defaults = asdict(type(recipe)())  # of fields that are younger than the checkpoint
    return [name for name in now if saved.get(name, defaults[name]) != now[name]]


def decided_before(recipe: Recipe, saved: dict[str, Any]) -> Recipe:
    """`recipe` with what the run decided when it began: its epochs for a `time`, or batch size.

    `saved` is the recipe of its checkpoint.
    """
    names = TIMED_FIELDS if recipe.time else ()
    if recipe.batch_size == "auto":
        names = (*names, "batch_size", "warmup_iterations")
    numbers = {name: saved.get(name) for name in names}
    if damaged := [name for name, number in numbers.items() if not isinstance(number, int)]:
        raise GCNetError(f"cannot resume: {listed(damaged)} of the checkpoint's recipe is damaged")
    return replace(recipe, time="", **numbers)

"""Specs that come from files: every field is of its type and within bounds before a network is made of it."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gcnet.models.spec import kind_of

LARGEST = 100_000  # of whole numbers; also most classes
LONGEST = 1_000  # text, in characters
MOST_BLOCKS = 256  # of one stage
MAY_BE_ZERO = {"frozen_stages", "box_convs", "mask_convs", "only", "level"}
POSITIVE = {"anchor_scale", "anchor_ratios", "finest_scale", "ratio", "stds", "image_std"}
MAY_BE_NEGATIVE = {"image_mean"}


def check_spec(kind: type, values: object, where: str = "spec") -> None:
    """Checks the values that a file has for a dataclass, and for those in it.

    Raises:
        ValueError: one is of another type, or outside of its bounds; it says which.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {_short(values)}, not the fields of a {kind.__name__}")
    hints = get_type_hints(kind)
    for field in fields(kind):
        if field.name in values:
            _check(hints[field.name], values[field.name], field.name, f"{where}.{field.name}")


def _check(hint: Any, value: object, name: str, where: str) -> None:
    if get_origin(hint) in (Union, types.UnionType):
        _check_any(get_args(hint), value, name, where)
    elif is_dataclass(hint) and isinstance(hint, type):
        check_spec(hint, value, where)
    elif get_origin(hint) is tuple:
        _check_sequence(get_args(hint), value, name, where)
    elif get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{where} is {_short(value)}, not one of {', '.join(map(str, get_args(hint)))}")
    elif not _fits(hint, value, name):
        raise ValueError(f"{where} is {_short(value)}, which it cannot be")


def _check_any(hints: tuple[Any, ...], value: object, name: str, where: str) -> None:
    """Raises the error of the last type, unless the value is of one of the types."""
    kinds = [hint for hint in hints if is_dataclass(hint)]
    if isinstance(value, dict) and kinds:
        hints = (kind_of(kinds, value),)
    reason = None
    for hint in hints:
        if hint is type(None):
            if value is None:
                return None
            continue
        try:
            return _check(hint, value, name, where)
        except ValueError as error:
            reason = error
    raise reason or ValueError(f"{where} is {_short(value)}")


def _check_sequence(hints: tuple[Any, ...], value: object, name: str, where: str) -> None:
    if not isinstance(value, list | tuple) or len(value) > LARGEST:
        raise ValueError(f"{where} is {_short(value)}, not a list")
    each = hints[:1] * len(value) if hints[1:] == (...,) else hints
    if len(each) != len(value):
        raise ValueError(f"{where} has {len(value)} entries instead of {len(each)}")
    for index, (hint, entry) in enumerate(zip(each, value, strict=True)):
        _check(hint, entry, name, f"{where}[{index}]")


def _fits(hint: Any, value: object, name: str) -> bool:
    if hint is bool:
        return isinstance(value, bool)
    if hint is str:
        return isinstance(value, str) and len(value) <= LONGEST
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        return False
    if hint is int:
        least, most = (0 if name in MAY_BE_ZERO else 1), (MOST_BLOCKS if name == "blocks" else LARGEST)
        return isinstance(value, int) and least <= value <= most
    if value == 0 and name in POSITIVE:
        return False
    return value >= 0 or name in MAY_BE_NEGATIVE


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else text[:37] + "..."

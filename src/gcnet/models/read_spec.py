"""Reads specs from files: each value is checked for type and bounds before a network is made."""

from __future__ import annotations

import types
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gcnet.context_spec import ContextSpec, own_options
from gcnet.errors import GCNetError

LARGEST = 100_000  # of whole numbers; also most classes
LONGEST = 1_000  # text, in characters
MOST = {"blocks": 256, "scales": 64, "sampling": 16}  # that cost time or memory before all else is known
MAY_BE_ZERO = {"frozen_stages", "box_convs", "mask_convs", "only", "level", "sampling"}
POSITIVE = {"anchor_scale", "anchor_ratios", "finest_scale", "ratio", "stds", "image_std", "sigma"}
MAY_BE_NEGATIVE = {"image_mean"}


def read_spec(kind: type, values: object, where: str = "spec") -> Any:
    """A dataclass of `kind` with `values`, those of `dataclasses.asdict`, whose tuples JSON has made lists.

    Raises ValueError if one is of another type, or outside of its bounds; it says which.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {_short(values)}, not the fields of a {kind.__name__}")
    hints = get_type_hints(kind)
    if unknown := values.keys() - hints.keys():
        raise ValueError(f"{kind.__name__} has no field {sorted(unknown)}")
    read = {name: _read(hints[name], value, name, f"{where}.{name}") for name, value in values.items()}
    return kind(**own_options(read) if kind is ContextSpec else read)


def check_spec(spec: Any) -> None:
    """Raises GCNetError for a spec that `read_spec` would not read again from the model's file.

    So it does for one without classes.
    """
    if not spec.class_names:
        raise GCNetError("a model has one class or more; give their names or their number")
    try:
        read_spec(type(spec), asdict(spec))
    except ValueError as error:
        raise GCNetError(f"no file can hold this model: {error}; correct it") from None


def _read(hint: Any, value: object, name: str, where: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return _read_any(get_args(hint), value, name, where)
    if is_dataclass(hint) and isinstance(hint, type):
        return read_spec(hint, value, where)
    if get_origin(hint) is tuple:
        return _read_sequence(get_args(hint), value, name, where)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{where} is {_short(value)}, not one of {', '.join(map(str, get_args(hint)))}")
    elif not _fits(hint, value, name):
        raise ValueError(f"{where} is {_short(value)}, which it cannot be")
    return value


def _read_any(hints: tuple[Any, ...], value: object, name: str, where: str) -> Any:
    """By the first of some types that fits. Raises the error of the last one."""
    if value is None and type(None) in hints:
        return None
    kinds: list[Any] = [hint for hint in hints if is_dataclass(hint)]
    if isinstance(value, dict) and kinds:
        whole = (kind for kind in kinds if value.keys() <= {field.name for field in fields(kind)})
        return read_spec(next(whole, kinds[0]), value, where)
    reason = ValueError(f"{where} is {_short(value)}")
    for hint in (hint for hint in hints if hint is not type(None)):
        try:
            return _read(hint, value, name, where)
        except ValueError as error:
            reason = error
    raise reason


def _read_sequence(hints: tuple[Any, ...], value: object, name: str, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} is {_short(value)}, not a list")
    if len(value) > LARGEST:
        raise ValueError(f"{where} has {len(value)} entries, more than {LARGEST}")
    each = hints[:1] * len(value) if hints[1:] == (...,) else hints
    if len(each) != len(value):
        raise ValueError(f"{where} has {len(value)} entries instead of {len(each)}")
    pairs = enumerate(zip(each, value, strict=True))
    return tuple(_read(hint, entry, name, f"{where}[{index}]") for index, (hint, entry) in pairs)


def _fits(hint: Any, value: object, name: str) -> bool:
    if hint is bool:
        return isinstance(value, bool)
    if hint is str:
        return isinstance(value, str) and len(value) <= LONGEST
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        return False
    if hint is int:
        least, most = (0 if name in MAY_BE_ZERO else 1), MOST.get(name, LARGEST)
        return isinstance(value, int) and least <= value <= most
    if value == 0 and name in POSITIVE:
        return False
    return value >= 0 or name in MAY_BE_NEGATIVE


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else text[:37] + "..."

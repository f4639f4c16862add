"""Options of several commands, checked before anything slow is imported."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from inspect import Parameter, cleandoc, isfunction, signature
from types import NoneType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin

import yaml

import gcnet
from gcnet.api.choices import ModelChoice
from gcnet.console import FORMS, did_you_mean, form_of, shown
from gcnet.errors import GCNetError
from gcnet.files import AnyPath
from gcnet.models.spec import ModelSpec

_ENTRY = r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {8}.*)*)"  # of a docstring's list of arguments


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises GCNetError with one line, which names the nearest option."""

    def __init__(self, verb: str, usage: str, description: str | None, **options: Any) -> None:
        usage = f"gcnet {verb} {usage} [options]"
        super().__init__(
            prog=f"gcnet {verb}", usage=usage, description=description, allow_abbrev=False, **options
        )
        self.switches: dict[str, list[str]] = {}  # options without a value, and the values they may have

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parses the arguments, options and others in any order; `--batch_size` is `--batch-size`."""
        joined: list[str] = []
        for word in map(_dashed, words):
            if joined and word in self.switches.get(joined[-1], ()):
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return self.parse_intermixed_args([f"{w}=true" if w in self.switches else w for w in joined])

    def add_options(
        self,
        source: Any,
        names: Collection[str] | None = None,
        *,
        but: Collection[str] = (),
        defaults: Mapping[str, Any] | None = None,
        given_alone: bool = False,
        **others: Mapping[str, Any],
    ) -> None:
        """Adds the arguments of a function, or the fields of a dataclass, as options with their help.

        Args:
            source: the function or the dataclass.
            names: names of the options to add, if not all.
            but: names of options to leave out.
            defaults: defaults on the command line that differ from those of `source`.
            given_alone: the values hold only options that were given; help shows the defaults nonetheless.
            others: by name, arguments of `add_argument` that replace those from type and docstring; `kind`
                is another type.
        """
        helps = help_of(source)
        for name, one in signature(source).parameters.items():
            left_out = name in but or (names is not None and name not in names)
            if left_out or one.kind is Parameter.VAR_KEYWORD:
                continue
            default = (defaults or {}).get(name, one.default)
            option = name if default is Parameter.empty else f"--{name.replace('_', '-')}"
            common = {} if given_alone else COMMON.get(name, {})
            changed = {"kind": one.annotation, **common, **others.get(name, {})}
            kind = changed.pop("kind")
            text = changed.pop("help", helps.get(name, ""))  # none under `python -OO`
            if given_alone:
                text, default = text + _shown_default(default), argparse.SUPPRESS
            self.add_option(option, kind, text, **{"default": default} | changed)

    def add_option(self, option: str, kind: Any, help: str, default: Any = None, **others: Any) -> None:
        """Adds an option with values of a type or from a parser; `others` are passed to argparse.

        A name without dashes is a required positional argument. A bool that is false by default is a switch,
        set by the option alone or by `true`; one that is true by default has `--option` and `--no-option`. A
        sequence takes one or more values.
        """
        help = (help + _shown_default(default)).replace("%", "%%")
        kind = AnyPath if isinstance(kind, str) else kind  # or what only Python can give
        if kind is bool and default is True:
            self.add_argument(option, action=argparse.BooleanOptionalAction, default=True, help=help)
            return
        values = next((one for one in (kind, *get_args(kind)) if get_origin(one) is Sequence), None)
        if values is not None:
            (kind,) = get_args(values)
            others = {"nargs": "+"} | others
            if option.startswith("-"):
                others, default = {"action": "extend"} | others, list(default or ())
        if option.startswith("-"):
            others["default"] = default
        else:
            others.setdefault("metavar", option.upper())
        form = _form_of(kind)
        if bool in (kind, *get_args(kind)):
            self.switches[option] = form.split("|")
            form = f"[{form}]"
        self.add_argument(option, **{"type": partial(_read, kind), "metavar": form, "help": help} | others)

    def error(self, message: str) -> NoReturn:
        raise GCNetError(f"{self.prog}: {suggest(message, self._option_string_actions)}")


def _dashed(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def _read(kind: Any, word: str) -> Any:
    """As `value_of`, with errors as argparse reports them."""
    try:
        return value_of(word, kind)
    except GCNetError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except (ValueError, yaml.YAMLError, RecursionError):
        raise argparse.ArgumentTypeError(f"give {_form_of(kind)}, not {shown(word)}") from None


def _form_of(kind: Any) -> str:
    """As `form_of`, for the command line, where a list needs no brackets: 8,11 or [8,11]."""
    return form_of(kind).strip("[]")


def value_of(word: str, kind: Any) -> Any:
    """Parses an argument as a value of a type. Raises ValueError or YAMLError if it is not one."""
    if isfunction(kind):
        return kind(word)
    parts = get_args(kind)
    if os.PathLike[str] in parts:
        return word
    if get_origin(kind) in (Union, UnionType):
        for one in sorted(parts, key=lambda part: part is not NoneType):
            with suppress(ValueError, yaml.YAMLError):
                return value_of(word, one)
        raise ValueError(word)
    if get_origin(kind) is tuple:
        values = yaml.safe_load(word if word.startswith("[") else f"[{word}]")
        if (
            not word
            or not isinstance(values, list)
            or (parts[-1] is not Ellipsis and len(values) != len(parts))
        ):
            raise ValueError(word)
        return tuple(value_of(str(value), parts[0]) for value in values)
    known = {NoneType: {"null": None}, bool: {"true": True, "false": False}}
    words = known.get(kind) or {part: part for part in parts}
    if words and word not in words:
        raise ValueError(word)
    return words[word] if words else kind(word)


def _shown_default(value: Any) -> str:
    """A default as help shows it; empty for None and the like, which the text explains."""
    if value in (Parameter.empty, argparse.SUPPRESS, None, "", ()):
        return ""
    if isinstance(value, bool):
        return f" ({str(value).lower()})"
    if isinstance(value, tuple):
        return f" ({','.join(map(str, value))})"
    return f" ({value:,})" if isinstance(value, int) and value >= 10_000 else f" ({value})"


def help_of(source: Any) -> dict[str, str]:
    """The help of each argument or field, from the docstrings of a function or dataclass and its bases.

    For "as `gcnet.predict` takes it" the help is the one there. Text after "In Python" is left out.
    """
    found: dict[str, str] = {}
    for part in reversed(getattr(source, "__mro__", [source])):
        # Python 3.13 keeps docstrings without the indentation of the code, those before with it.
        for names, text in re.findall(_ENTRY, cleandoc(part.__doc__ or ""), re.MULTILINE):
            text = " ".join(text.split()).partition(" In Python ")[0]
            other = re.search(r"^as `gcnet\.(\w+)` takes", text)
            told = help_of(getattr(gcnet, other[1])) if other else {}
            found |= {name: told.get(name, text.rstrip(".")) for name in names.split(", ")}
    return {name: re.sub(r"`(\w+)`", partial(_as_option, found), text) for name, text in found.items()}


def _as_option(names: Collection[str], found: re.Match[str]) -> str:
    """`` `tile` `` as --tile, if it is the name of an option."""
    return f"--{found[1].replace('_', '-')}" if found[1] in names else found[0]


def suggest(message: str, options: Iterable[str]) -> str:
    """Adds the nearest option to an error about an unknown one."""
    unknown = [word for word in message.replace("'", " ").split() if word.startswith("--")]
    if "unrecognized" not in message or not unknown:
        return message
    hint = did_you_mean(unknown[0].split("=")[0], options)
    return f"{message}; {hint}" if hint else message


def number(kind: type[int] | type[float], least: float, most: float = math.inf) -> Callable[[str], float]:
    """A parser for numbers from `least` to `most`, for the value of an option."""
    limits = f"{least} or more" if most == math.inf else f"{least} to {most}"

    def read(word: str) -> float:
        with suppress(ValueError):
            if least <= (value := kind(word)) <= most:
                return value
        raise argparse.ArgumentTypeError(f"give {limits}, not {shown(word)}")

    read.__name__ = FORMS[kind]
    return read


def size_in(multiples: int) -> Callable[[str], tuple[int, int]]:
    """A parser for sizes such as 800x1344: (height, width), both multiples of a number."""

    def size(word: str) -> tuple[int, int]:
        height, _, width = word.lower().partition("x")
        if not all(side.isdecimal() and int(side) and int(side) % multiples == 0 for side in (height, width)):
            whole = f" in multiples of {multiples}" if multiples > 1 else ""
            raise argparse.ArgumentTypeError(f"give HEIGHTxWIDTH{whole} such as 800x1344, not {shown(word)}")
        return int(height), int(width)

    return size


def split(word: str) -> str:
    """The name of a split; names such as `val2017` mean the validation split."""
    return "valid" if word.startswith("val") else word


def numbers(what: str, count: int | None = None) -> Callable[[str], tuple[float, ...]]:
    """A parser for numbers such as 0.8,1,1.25; `what` they are is for the error."""

    def read(word: str) -> tuple[float, ...]:
        with suppress(ValueError):
            found = tuple(map(float, word.split(",")))
            if count in (None, len(found)):
                return found
        raise argparse.ArgumentTypeError(f"give {what}, not {shown(word)}")

    return read


# Options whose values on the command line differ from Python's, in all commands; those of a whole recipe are
# held against its limits.
COMMON: dict[str, dict[str, Any]] = {
    name: {"kind": number(int, 1)}
    for name in ("batch_size", "top", "tile", "max_detections", "max_pixels", "images_a_file")
}
COMMON |= {
    "workers": {"kind": number(int, 0)},
    "mirror": {"nargs": None, "action": "append", "metavar": "PATH"},
    "split": {"kind": split},
    "scales": {"kind": numbers("numbers such as 0.8,1,1.25"), "metavar": "F,F,..."},
}


MODEL = ("model", "weights", "mirror", "device")  # of `gcnet.predict`, for commands with a model


def model_of(options: argparse.Namespace) -> ModelChoice:
    """The model that the options choose."""
    given = vars(options)
    names = [one.name for one in fields(ModelChoice) if one.init and one.name in given]
    return ModelChoice(**{name: given[name] for name in names})


def only_detector(model: Any) -> Any:
    """The model, for commands that take detectors alone. Raises GCNetError for a classifier."""
    if not isinstance(model.spec, ModelSpec):
        raise GCNetError(f"{model.spec.name} is an image classifier; this command takes detectors")
    return model

"""Options of several commands, checked before anything slow is imported."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml

from gcnet.console import did_you_mean, shown
from gcnet.errors import GCNetError
from gcnet.image_files import MAX_PIXELS
from gcnet.models.spec import Precision
from gcnet.recipe import DIVISION, Recipe
from gcnet.weights.start import load_trained

if TYPE_CHECKING:
    from gcnet.models.detector import Detector
    from gcnet.weights.fetch import Source

MODEL_HELP = (
    "a name that `gcnet models` lists (its published weights, or --weights), one of our .safetensors files, "
    "a run folder, a checkpoint such as an mmdetection .pth, or OWNER/NAME on the Hugging Face hub"
)
WEIGHTS_HELP = "our .safetensors or an mmdetection .pth of this model, or `coco`: the published ones"
MIRROR_HELP = (
    "an address or folder with the published files, asked if the publisher fails; can be repeated "
    "(GCNET_MIRRORS lists more)"
)

ANNOTATIONS_HELP = "an annotation file, where --data cannot say it; with --images"
IMAGES_HELP = "the folder of the images, where it cannot be found from the annotations"

PRECISIONS = get_args(Precision)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises GCNetError with one line, which names the nearest option."""

    def __init__(self, verb: str, description: str, **options: Any) -> None:
        super().__init__(prog=f"gcnet {verb}", description=description, allow_abbrev=False, **options)
        self.switches: dict[str, list[str]] = {}  # options that stand alone, and what may follow them

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The values of the words, options and others in any order; `--batch_size` is `--batch-size`."""
        joined: list[str] = []
        for word in map(_dashed, words):
            if joined and word in self.switches.get(joined[-1], ()):
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return self.parse_intermixed_args([f"{w}=true" if w in self.switches else w for w in joined])

    def add_switch(self, option: str, help: str, kind: Any = bool, **others: Any) -> None:
        """An option that is on alone or with `true`; `kind` may allow other words."""
        self.switches[option] = form_of(kind).split("|")
        self.add_value(option, kind, help, **({"default": False} | others))

    def add_value(self, option: str, kind: Any, help: str, **others: Any) -> None:
        """An option whose value is of a type, as in a dataclass."""

        def read(word: str) -> Any:
            try:
                return value_of(word, kind)
            except (ValueError, yaml.YAMLError, RecursionError):
                raise argparse.ArgumentTypeError(f"give {form_of(kind)}, not {shown(word)}") from None

        self.add_argument(option, type=read, metavar=form_of(kind), help=help, **others)

    def add_recipe(self, recipe: Recipe) -> None:
        """The fields of a recipe, whose values help shows; what is not given is not among the values."""
        kinds, helps = get_type_hints(type(recipe)), _field_docs(type(recipe))
        for field in fields(recipe):
            option, own = f"--{field.name.replace('_', '-')}", getattr(recipe, field.name)
            text = f"{helps[field.name]} ({_shown_default(own)})".replace("%", "%%")
            add = self.add_switch if field.default is False else self.add_value
            add(option, help=text, kind=kinds[field.name], default=argparse.SUPPRESS)

    def error(self, message: str) -> NoReturn:
        raise GCNetError(f"{self.prog}: {suggest(message, self._option_string_actions)}")


def _dashed(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def value_of(word: str, kind: Any) -> Any:
    """What a word means as a value of a type. Raises ValueError or YAMLError where it is none."""
    parts = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        for one in sorted(parts, key=lambda part: part is not NoneType):
            with suppress(ValueError, yaml.YAMLError):
                return value_of(word, one)
        raise ValueError(word)
    if get_origin(kind) is tuple:
        values = yaml.safe_load(word)
        if not isinstance(values, list) or (parts[-1] is not Ellipsis and len(values) != len(parts)):
            raise ValueError(word)
        return tuple(value_of(str(value), parts[0]) for value in values)
    known = {NoneType: {"null": None}, bool: {"true": True, "false": False}}
    words = known.get(kind) or {part: part for part in parts}
    if words and word not in words:
        raise ValueError(word)
    return words[word] if words else kind(word)


def form_of(kind: Any) -> str:
    """How the values of a type are written."""
    parts = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return "|".join(form_of(part) for part in parts if part is not NoneType)
    if get_origin(kind) is tuple:
        return f"[{','.join('...' if part is Ellipsis else form_of(part) for part in parts)}]"
    plain = {bool: "true|false", int: "INTEGER", float: "NUMBER", str: "WORD"}
    return plain.get(kind) or "|".join(map(str, parts))


def _shown_default(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value in (None, "") else str(value)


def _field_docs(kind: type[Recipe]) -> dict[str, str]:
    """What the docstrings of a recipe and its bases say of each field."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        for name, text in re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", base.__doc__ or "", re.MULTILINE):
            found[name] = " ".join(text.split()).rstrip(".")
    return found


def suggest(message: str, options: Iterable[str]) -> str:
    """Adds the nearest option to a complaint about an unknown one."""
    unknown = [word for word in message.replace("'", " ").split() if word.startswith("--")]
    if "unrecognized" not in message or not unknown:
        return message
    hint = did_you_mean(unknown[0].split("=")[0], options)
    return f"{message}; {hint}" if hint else message


def at_least(least: int) -> Callable[[str], int]:
    """The `type` of an option that is a whole number of `least` or more."""

    def number(word: str) -> int:
        if not word.lstrip("-").isdecimal() or int(word) < least:
            raise argparse.ArgumentTypeError(f"give {least} or more, not {word}")
        return int(word)

    return number


def add_model(parser: argparse.ArgumentParser) -> None:
    """MODEL and --weights, as `find_source` takes them, --mirror and --device, as `load_trained` does."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--weights", help=WEIGHTS_HELP)
    add_mirror(parser)
    add_device(parser)


def add_mirror(parser: argparse.ArgumentParser) -> None:
    """--mirror, as `load_trained` takes it."""
    parser.add_argument("--mirror", action="append", default=[], metavar="BASE", help=MIRROR_HELP)


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device, as `choose_device` takes it."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")


def add_split(parser: argparse.ArgumentParser) -> None:
    """--split of a data set; by the name of its folder, `val2017`, the validation split is meant too."""
    parser.add_argument(
        "--split",
        type=lambda word: "valid" if word.startswith("val") else word,
        default="valid",
        metavar="SPLIT",
        help="train, valid or test (valid)",
    )


def add_division(parser: Parser) -> None:
    """How a data set is read that comes in one part: `division_of` has the values for `load_splits`."""
    parser.add_argument(
        "--val-fraction",
        type=float,
        default=0.2,
        help="share held out for validation where the data has no splits (0.2)",
    )
    parser.add_argument(
        "--group-by",
        default="",
        metavar="WORD",
        help="a field of COCO's images, or a regular expression for their paths, that keeps some together",
    )
    parser.add_argument(
        "--split-file",
        default="",
        metavar="FILE",
        help="the split.json of a run, whose images are held out again",
    )
    parser.add_switch("--crowd-as-objects", "take what is marked iscrowd as objects")


def division_of(options: argparse.Namespace) -> dict[str, Any]:
    """What `add_division` added."""
    return {name: getattr(options, name) for name in DIVISION}


def add_max_detections(parser: argparse.ArgumentParser) -> None:
    """--max-detections of a detector."""
    parser.add_argument(
        "--max-detections",
        type=at_least(1),
        metavar="N",
        help="of a detector: most detections of an image (as it was trained, or 100)",
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """--precision of a detector at inference."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="of a detector's network: bf16 and fp16 are faster on some hardware, and a little off (fp32)",
    )


def add_tiles(parser: argparse.ArgumentParser) -> None:
    """--tile and --overlap of a detector at inference."""
    parser.add_argument(
        "--tile",
        type=at_least(1),
        metavar="N",
        help="of a detector: look at larger images in squares of N pixels as well, for small objects",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="how much of a tile's side lies in the next tile (0.2)",
    )


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """--max-pixels of images that are read."""
    parser.add_argument(
        "--max-pixels",
        type=at_least(1),
        default=MAX_PIXELS,
        metavar="N",
        help=f"images of more are not read ({MAX_PIXELS:,})",
    )


def add_compile(parser: argparse.ArgumentParser) -> None:
    """--compile of a detector at inference."""
    parser.add_argument(
        "--compile",
        action="store_true",
        help="a detector on a GPU: compile it first, which takes a minute once and is kept; same results",
    )


def load_detector(source: Source, device: str, mirrors: Sequence[str] = ()) -> Detector:
    """As `load_trained`, for commands that take detectors alone."""
    trained = load_trained(source, device, mirrors)

    from gcnet.models.detector import Detector

    if not isinstance(trained, Detector):
        raise GCNetError(f"{trained.spec.name} is an image classifier; this command takes detectors")
    return trained

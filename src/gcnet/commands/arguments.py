"""Options of several commands, checked before anything slow is imported.

`train` and `ablate` take the fields of a `Recipe` as options, on the command line and in YAML files alike:
jsonargparse makes them from the dataclass, and names unknown keys and wrong types. The others are argparse.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_args

from gcnet.console import did_you_mean
from gcnet.errors import GCNetError
from gcnet.image_files import MAX_PIXELS
from gcnet.models.spec import Precision
from gcnet.recipe import Recipe
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

DIVISION = ("val_fraction", "group_by", "split_file", "crowd_as_objects")  # of `load_splits`
PRECISIONS = get_args(Precision)

Kind = TypeVar("Kind", bound=Recipe)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises GCNetError with one line, which names the nearest option."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(prog=f"gcnet {verb}", description=description, allow_abbrev=False)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The values of the words, options and others in any order; `--batch_size` is `--batch-size`."""
        return self.parse_intermixed_args([_dashed(word) for word in words])

    def error(self, message: str) -> NoReturn:
        raise GCNetError(f"{self.prog}: {suggest(message, self._option_string_actions)}")


def _dashed(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


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


def add_division(parser: argparse.ArgumentParser) -> None:
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
    add_switch(parser, "--crowd-as-objects", "take what is marked iscrowd as objects")


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


def make_parser(verb: str, *, usage: str, description: str) -> Any:
    """A jsonargparse parser for `parse_words`, without options yet."""
    try:
        from jsonargparse import ArgumentParser
    except ImportError:
        raise GCNetError(f"gcnet {verb} needs what training needs: pip install 'gcnet[train]'") from None

    class DashedParser(ArgumentParser):
        def format_help(self, *args: Any, **kwargs: Any) -> str:
            shown = super().format_help(*args, **kwargs)
            return re.sub("--[a-z_]+", lambda option: option.group().replace("_", "-"), shown)

    return DashedParser(
        prog=f"gcnet {verb}", usage=usage, description=description, exit_on_error=False, allow_abbrev=False
    )


def add_recipe(parser: Any, recipe: Recipe) -> None:
    """The fields of the recipe under their own names; its values are their defaults."""
    parser.add_class_arguments(type(recipe), nested_key=None)
    parser.set_defaults(asdict(recipe))


# From jsonargparse's messages, which speak of Python's types, to ours.
_PLAIN_WORDS = (
    ("Parser key", "option"),
    (r"<class '(\w+)'>", r"\1"),
    (r"(?s)Does not validate .*Subtypes: \[(.*)\]\s+Errors:.*Given value: ", r"Expected \1, not "),
    (r"Expected an? (.*)\. Got value: ", r"Expected \1, not "),
    (r"typing\.Literal\[(.*?)\]", r"\1"),
    (", NoneType", ""),
)


def add_switch(parser: argparse.ArgumentParser, option: str, help: str) -> None:
    """An option that is on or off: alone or with `true` it is on, as in a recipe."""
    words = {"true": True, "false": False}
    parser.add_argument(
        option,
        nargs="?",
        const=True,
        default=False,
        type=lambda word: words.get(word, word),
        choices=(True, False),
        metavar="true|false",
        help=help,
    )


def parse_words(parser: Any, words: Sequence[str]) -> Any:
    """The values of the options. Raises GCNetError with one line, which names the nearest option."""
    try:
        return parser.parse_args([underscored(word) for word in with_values(words)])
    except argparse.ArgumentError as error:
        message = str(error)
        for pattern, words in _PLAIN_WORDS:
            message = re.sub(pattern, words, message)
        if "tuple[" in message or "list[" in message or " tuple" in message:
            message += "; several values are written [1,2]"
        raise GCNetError(f"{parser.prog}: {suggest(message, parser._option_string_actions)}") from error


# Options of recipes that are on or off: alone they are on.
SWITCHES = {
    "--resume",
    "--remove_context",
    *(f"--{field.name}" for field in fields(Recipe) if field.default is False),
}


def with_values(words: Sequence[str]) -> list[str]:
    """The words, with each switch and its value as one: `--resume` and `--resume auto` as `--resume=...`."""
    joined: list[str] = []
    for word in words:
        if joined and word in ("true", "false", "auto") and underscored(joined[-1]) in SWITCHES:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return [f"{word}=true" if underscored(word) in SWITCHES else word for word in joined]


def recipe_of(kind: type[Kind], values: Any) -> Kind:
    """The recipe among the values."""
    return kind(**{field.name: getattr(values, field.name) for field in fields(kind)})


def underscored(word: str) -> str:
    """`--batch-size=2` as `--batch_size=2`, the name of the field; help shows dashes, and both are taken."""
    name, equals, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if word.startswith("--") else word

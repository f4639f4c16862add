"""What the words of a command mean, checked before anything slow is imported.

`gcnet train` is special: its options are the fields of the frozen `Recipe`, on the command line and in
YAML files alike (jsonargparse). The other commands are small enough for argparse.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from gcnet.errors import GCNetError
from gcnet.models.spec import Precision

if TYPE_CHECKING:
    from gcnet.engine.recipe import Recipe
    from gcnet.models.classifier import Classifier
    from gcnet.models.detector import Detector
    from gcnet.zoo.catalog import Row
    from gcnet.zoo.classifiers import ClassifierRow

MODEL_HELP = (
    "a name that `gcnet models` lists (its published weights, or --weights), one of our .safetensors files, "
    "a run folder, or an mmdetection .pth"
)
WEIGHTS_HELP = "our .safetensors or an mmdetection .pth of this model, or `coco`: the published ones"
MIRROR_HELP = (
    "an address or folder with the published files, asked if the publisher fails; can be repeated "
    "(GCNET_MIRRORS lists more)"
)

CONVERT_HELP = (
    "a .pth of mmdetection or of the GCNet authors, a .safetensors of ours, a run folder, or a name that "
    "`gcnet models` lists"
)
START_HELP = (
    "what to start from: `coco` (the published weights), `imagenet` (the backbone alone), `none` (random "
    "numbers), our .safetensors, a run folder or an mmdetection .pth; `auto`: coco, imagenet where that "
    "cannot be had, none for a tiny model"
)


PRECISIONS = get_args(Precision)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` with the nearest of the known words, or nothing."""
    near = get_close_matches(word, list(known), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one line, with the nearest option there is."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(prog=f"gcnet {verb}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise GCNetError(f"{self.prog}: {suggest(message, self._option_string_actions)}")


def suggest(message: str, options: Iterable[str]) -> str:
    """Adds the nearest option to a complaint about an unknown one."""
    unknown = [word for word in message.replace("'", " ").split() if word.startswith("--")]
    known = {option.lstrip("-"): option for option in options}
    if "unrecognized" not in message or not unknown:
        return message
    near = get_close_matches(unknown[0].lstrip("-").split("=")[0], known, n=1)
    return message + (f'; did you mean "{known[near[0]]}"?' if near else "")


def add_model(parser: argparse.ArgumentParser) -> None:
    """MODEL, --weights, --mirror and --device, as `fetch_weights` and `load_detector` take them."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--weights", help=WEIGHTS_HELP)
    parser.add_argument("--mirror", action="append", default=[], metavar="BASE", help=MIRROR_HELP)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")


def add_precision(parser: argparse.ArgumentParser) -> None:
    """--precision of a detector at inference."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="of a detector's network: bf16 and fp16 are faster on some hardware, and a little off (fp32)",
    )


def check_writable(folder: Path) -> None:
    """Raises if `folder` cannot be made or written in. Makes nothing: a later error leaves no trace."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise GCNetError(f"cannot write to {folder}: {existing} is not a folder; choose another --out")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise GCNetError(f"cannot write to {folder}: no permission in {existing}; choose another --out")


def check_data(folder: Path) -> None:
    """Raises if there is no such folder, without the seconds that a look into it takes to import."""
    if not folder.is_dir():
        raise GCNetError(f"--data {folder} is not a folder; give that of a data set")


def find_weights(model: str) -> Path | None:
    """The file that `model` stands for: itself, or the best of a run folder; None for a catalog name."""
    path = Path(model)
    if path.is_dir():
        for name in ("best.safetensors", "last.safetensors", "model.safetensors"):  # the hub's comes last
            if (path / name).is_file():
                return path / name
        raise GCNetError(f"{path} is a folder without best, last or model.safetensors: not a run of gcnet")
    if path.is_file():
        return path
    if path.suffix == ".safetensors" or len(path.parts) > 1:
        raise GCNetError(f"no such file or folder: {path}")
    return None


def check_model(model: str, weights: str | None) -> None:
    """Raises for a model that cannot be loaded, before anything slow is imported."""
    file = find_weights(model)
    if file and weights:
        raise GCNetError(
            f"{file} brings its own weights: leave out --weights, or give a name in place of the file"
        )
    if not file:
        find_row(model, weights)


def find_row(name: str, weights: str | None) -> Row | ClassifierRow:
    """The row of a catalog name, once it is sure that there are weights for it, at hand or published."""
    from gcnet.zoo.catalog import find

    row = find(name)
    if weights in (None, "coco") and row.weights is None:
        raise GCNetError(
            f"{row.name} has no published weights: add --weights FILE, or give a run folder in its place"
        )
    check_weights(weights)
    return row


def fetch_weights(model: str, weights: str | None, mirrors: Sequence[str]) -> str | None:
    """`weights`; for a catalog name without any, or with `coco`, the published file, fetched if need be.

    Called before anything slow is imported: whoever is offline knows it in a moment.
    """
    if find_weights(model) or weights not in (None, "coco"):
        return weights
    from gcnet.zoo.catalog import find
    from gcnet.zoo.download import published_weights

    return str(published_weights(find(model), mirrors=mirrors))


def check_weights(weights: str | None) -> None:
    """Raises for weights that are neither a file nor one of the words for some."""
    if weights in (None, "coco", "imagenet"):
        return
    if Path(weights).is_dir():
        find_weights(weights)
    elif not Path(weights).is_file():
        raise GCNetError(f"--weights: no such file: {weights}")


def load_detector(model: str, weights: str | None, device: str = "auto") -> Detector:
    """As `load_trained`, for commands that take detectors alone."""
    trained = load_trained(model, weights, device)

    from gcnet.models.detector import Detector

    if not isinstance(trained, Detector):
        raise GCNetError(
            f"{model} is an image classifier ({trained.spec.name}); this command takes detectors"
        )
    return trained


def load_trained(model: str, weights: str | None, device: str = "auto") -> Detector | Classifier:
    """The model that `MODEL --weights W --device D` means, in eval mode."""
    from gcnet.zoo.create import create_model
    from gcnet.zoo.open import open_model

    device = choose_device(device)
    file = find_weights(model)
    trained = open_model(file) if file else create_model(model, weights=weights)
    try:
        return trained.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise GCNetError(f"--device {device}: {error}") from error


def choose_device(device: str) -> str:
    """The device that the word of --device stands for."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise GCNetError(f"--device {device}: PyTorch sees no CUDA device here; use --device cpu")
    return device


def parse_train(argv: list[str]) -> tuple[argparse.Namespace, Recipe]:
    """Options and recipe of `gcnet train`.

    Later wins: the model's own recipe, then the file given with --config, then the command line. The
    model's name must be known first, wherever it stands, because the defaults come from it.
    """
    from gcnet.engine.recipe import Recipe
    from gcnet.zoo.catalog import find

    model, config, rest = split_train(argv)
    from_file = read_config(config) if config else {}
    model = model or from_file.get("model")
    row = find(model) if model else None
    parser = train_parser(row)
    words = [f"--config={config}"] if config else []
    words += [underscored(word) for word in rest] + ([f"--model={model}"] if model else [])
    try:
        values = parser.parse_args(words)
    except argparse.ArgumentError as error:
        message = str(error).replace("Parser key", "option")
        raise GCNetError(f"gcnet train: {suggest(message, parser._option_string_actions)}") from error
    if not values.model:
        raise GCNetError("gcnet train: which model? `gcnet models` lists them: gcnet train MODEL --data DIR")
    if not values.data:
        raise GCNetError("gcnet train: which pictures? add --data DIR (see docs/train-your-own.md)")
    values.weights = None if values.weights == "none" else values.weights
    if values.weights != "auto" and not values.resume:  # a run that goes on has them in its checkpoint
        check_weights(values.weights)
        if values.weights not in (None, "coco", "imagenet"):
            values.weights = str(find_weights(values.weights))
    values.given = {*from_file, *(underscored(word)[2:].split("=")[0] for word in rest if word[:2] == "--")}
    kind = type(row.recipe) if row else Recipe
    recipe = kind(**{field.name: getattr(values, field.name) for field in fields(kind)})
    return values, recipe


def train_parser(row: Row | ClassifierRow | None) -> Any:
    """The options of `gcnet train`: the recipe's fields under their own names, as in the config file."""
    from jsonargparse import ArgumentParser

    from gcnet.engine.recipe import Recipe

    parser = ArgumentParser(
        prog="gcnet train",
        usage="gcnet train MODEL --data DIR [--out DIR] [--resume] [--config FILE] [options]",
        description="Trains a model. Defaults are the model's own recipe.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--model", help="the same as MODEL, for config files")
    parser.add_argument(
        "--config", action="config", help="a YAML file of options, such as a run's recipe.yaml"
    )
    parser.add_argument("--data", help="a COCO-format data set; of a classifier, train/CLASS/ and val/CLASS/")
    parser.add_argument(
        "--out",
        default=f"runs/{row.name if row else 'MODEL'}",
        help="folder for checkpoints, logs and curves",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    parser.add_argument("--weights", default="auto", help=START_HELP)
    parser.add_argument("--mirror", help=MIRROR_HELP.replace("; can be repeated", ""))
    parser.add_argument("--class_names", type=list[str] | None, help="checked against the data, if given")
    recipe = row.recipe if row else Recipe()
    parser.add_class_arguments(type(recipe), nested_key=None)
    parser.set_defaults(asdict(recipe))
    return parser


def split_train(argv: list[str]) -> tuple[str | None, str | None, list[str]]:
    """The MODEL and the --config file among the words of `gcnet train`, and the other words."""
    flags = ("--resume", "--help", "-h", "--print_config", "--print-config")
    model, config, rest = None, None, []
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            if model is not None:
                raise GCNetError(f"gcnet train: one model at a time, not {model!r} and {word!r}")
            model = word
        elif name in ("--config", "--model"):
            value = value if equals else next(words, "")
            if not value:
                raise GCNetError(f"gcnet train: {name} needs a value after it")
            config, model = (value, model) if name == "--config" else (config, value)
        elif equals or word in flags:
            rest.append(word)
        else:
            rest += [word, *([value] if (value := next(words, None)) is not None else [])]
    return model, config, rest


def read_config(path: str) -> dict[str, Any]:
    """A YAML mapping, or an error that names the file."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise GCNetError(f"--config {path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise GCNetError(
            f"--config {path} should be a list of `option: value` lines, such as a run's recipe.yaml"
        )
    return values


def underscored(word: str) -> str:
    """`--batch-size=2` as `--batch_size=2`: the fields have underscores, fingers prefer dashes."""
    name, equals, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if word.startswith("--") else word

"""`gcnet train` trains a detector on a data set, or a classifier on folders of images.

Its options are the fields of the model's `Recipe`: `gcnet train MODEL --help` shows the defaults of a model.
The command line overrules the file given with --config, which overrules the model's own recipe.
"""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from gcnet.api.train import check_recipe, train
from gcnet.commands.arguments import Parser, help_of
from gcnet.console import shown
from gcnet.errors import GCNetError
from gcnet.files import AnyPath
from gcnet.recipe import ClassificationRecipe, Recipe
from gcnet.weights.catalog import find
from gcnet.weights.saved import saved_recipe
from gcnet.weights.start import find_file

LARGEST_CONFIG = 1 << 20  # bytes
WORDS = ("model", "data", "annotations", "images", "out", "weights", "mirror", "add_context")  # no numbers
NOT_IN_FILES = ("config", "print_config", "help", "named")
FIELDS = [field.name for field in fields(ClassificationRecipe)]
TEXTS = [field.name for field in fields(ClassificationRecipe) if isinstance(field.default, str)]


def run(argv: list[str]) -> int:
    """Trains, and first says what the training starts from and how the recipe was changed."""
    options, recipe = parse_train(argv)
    given = {name: getattr(recipe, name) for name in options.given}
    words = {name: value for name, value in vars(options).items() if name not in (*NOT_IN_FILES, "given")}
    train(**words, **given)
    return 0


def parse_train(argv: list[str]) -> tuple[argparse.Namespace, Recipe]:
    """The options, the recipe, and which of its fields were given (`given`).

    Raises GCNetError for whatever is wrong with them.
    """
    parser = _parser("MODEL", ClassificationRecipe())  # has the options of a detector's, too
    options = parser.parse(argv)
    if options.config:
        options = parser.parse([*read_config(options.config), *argv])
    if len(options.named) > 1:
        raise GCNetError(f"gcnet train: one model at a time, not {' and '.join(options.named)}")
    model = options.model = next(iter(options.named), options.model)
    file, name, own = find_file(model) if model else None, model, Recipe()
    if model:
        own = saved_recipe(file.place) if file else find(model).recipe
        name = Path(model).stem if file else find(model).name
    if options.help:
        _parser(name or "MODEL", own).print_help()
        raise SystemExit(0)
    options.given = {field: options.__dict__.pop(field) for field in FIELDS if field in options}
    recipe = check_recipe(own, options.given)
    options.out = options.out or f"runs/{name}"
    if options.print_config:
        _print_config(vars(options) | vars(recipe))
        raise SystemExit(0)
    if not model:
        raise GCNetError("gcnet train: which model? `gcnet models` lists them: gcnet train MODEL --data DIR")
    return options, recipe


def _print_config(values: dict[str, Any]) -> None:
    """Prints values as a file that `--config` reads."""
    plain = {name: value for name, value in values.items() if name not in (*NOT_IN_FILES, "given")}
    print(yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, allow_unicode=True), end="")


def _parser(name: str, recipe: Recipe) -> Parser:
    usage = "MODEL_OR_FILE --data DIR [--out DIR] [--resume [auto]] [--config FILE]"
    parser = Parser("train", usage, __doc__, add_help=False)  # help depends on the model
    parser.add_argument("named", nargs="*", metavar="MODEL_OR_FILE", help=help_of(train).get("model"))
    parser.add_argument(
        "-h", "--help", action="store_true", help="show this, with the defaults of MODEL_OR_FILE"
    )
    parser.add_option("--model", str, "the same as MODEL_OR_FILE, for config files")
    parser.add_option("--config", AnyPath, "a YAML file of options, such as a run's recipe.yaml")
    parser.add_argument("--print-config", action="store_true", help="print all options as such a file")
    parser.add_options(
        train,
        but=("model",),
        defaults={"out": None, "ratio": "1/16"},
        out={"help": f"for checkpoints, logs and curves (runs/{name})"},
        class_names={"kind": tuple[str, ...], "nargs": None, "default": None},
    )
    parser.add_options(type(recipe), defaults=vars(recipe), given_alone=True)
    return parser


class _Loader(yaml.SafeLoader):  # the faster one cannot read a path that is no UTF-8
    """Refuses aliases, which could stand for more than memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has aliases")
        return super().compose_node(parent, index)


def read_config(path: str) -> list[str]:
    """The options in a YAML file, as arguments of the command line.

    Raises GCNetError for what is no option with a number, a word, yes or no, or a list of those.
    """
    data = Path(path).read_bytes()
    if len(data) > LARGEST_CONFIG:
        raise GCNetError(f"--config {path} has {len(data)} bytes; a recipe has fewer than {LARGEST_CONFIG}")
    try:
        values = yaml.load(data.decode("utf-8"), Loader=_Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise GCNetError(f"--config {path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise GCNetError(
            f"--config {path} should be a list of `option: value` lines, such as a run's recipe.yaml"
        )
    words = []
    for name, value in values.items():
        if not isinstance(name, str) or not name.isidentifier() or name in NOT_IN_FILES:
            raise GCNetError(f"--config {path}: no option {shown(name)} can stand in a file")
        if value is None and not (name in FIELDS and name not in TEXTS):  # not given
            continue
        repeated = value if name == "mirror" and isinstance(value, list) else [value]
        for one in repeated:
            if not _is_plain(one) or (name in WORDS and not isinstance(one, str)):
                kind = "a word" if name in WORDS else "a number, a word, true or false, or a list of those"
                raise GCNetError(f"--config {path}: {name} is {shown(value)}; give {kind}")
            words.append(f"--{name}={one if isinstance(one, str) else _as_yaml(one)}")
    return words


def _as_yaml(value: Any) -> str:
    """A plain value on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("...\n").rstrip()


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, str) or (_is_plain(one) and not isinstance(one, list)) for one in value)
    if isinstance(value, str):
        return re.sub("[\udc80-\udcff]", "", value).isprintable()  # bytes of a path that are no UTF-8
    return value is None or isinstance(value, int | float)

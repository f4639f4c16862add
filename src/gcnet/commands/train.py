"""`gcnet train`: a detector on a COCO-format data set, a classifier on folders of images.

Its options are the fields of the model's `Recipe`. Later wins: the model's own recipe, then the file given
with --config, then the command line.
"""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any, Literal

from gcnet.api import train
from gcnet.commands.arguments import (
    ANNOTATIONS_HELP,
    IMAGES_HELP,
    MIRROR_HELP,
    add_recipe,
    make_parser,
    parse_words,
    recipe_of,
    underscored,
    with_values,
)
from gcnet.console import shown
from gcnet.context_spec import parse_context
from gcnet.errors import GCNetError
from gcnet.recipe import Recipe
from gcnet.weights.catalog import find
from gcnet.weights.saved import saved_recipe
from gcnet.weights.start import find_file

START_HELP = (
    "what to start from: `coco` (the published weights), `imagenet` (the backbone alone), `none` (random "
    "numbers), our .safetensors, a run folder or an mmdetection .pth; `auto`: coco, imagenet where that "
    "cannot be had, none for a tiny model"
)


LARGEST_CONFIG, DEEPEST = 1 << 20, 4  # bytes, and lists in lists
WORDS = ("model", "data", "annotations", "images", "out", "weights", "mirror")  # options that take no numbers
NOT_IN_FILES = ("config", "print_config", "help")


def run(argv: list[str]) -> int:
    """Trains, after saying what from and with what changes to the recipe."""
    options, recipe = parse_train(argv)
    given = {name: value for name, value in vars(recipe).items() if name in options.given}
    train(
        options.model,
        options.data,
        out=options.out,
        annotations=options.annotations,
        images=options.images,
        resume=options.resume,
        weights=options.weights,
        mirror=[options.mirror] if options.mirror else [],
        class_names=options.class_names,
        backbone_weights=options.backbone_weights,
        add_context=options.add_context,
        ratio=options.ratio,
        stages=options.stages,
        remove_context=options.remove_context,
        **given,
    )
    return 0


def parse_train(argv: list[str]) -> tuple[Namespace, Recipe]:
    """Options and recipe. Raises GCNetError for whatever is wrong with them.

    The model's name must be known first, wherever it stands, because the defaults come from it.
    """
    model, config, rest = split_words(argv)
    from_file = read_config(config) if config else {}
    written = [f"--{name}={word}" for name, word in from_file.items() if name != "model"]
    model = model or from_file.get("model")
    file, own, name = find_file(model) if model else None, None, model
    if model:
        own = saved_recipe(file.place) if file else find(model).recipe
        name = Path(model).stem if file else find(model).name
    values = parse_words(_parser(name, own), written + rest + ([f"--model={model}"] if model else []))
    if not values.model:
        raise GCNetError("gcnet train: which model? `gcnet models` lists them: gcnet train MODEL --data DIR")
    if file and values.weights != "auto":
        raise GCNetError(f"{model} brings its own weights: leave out --weights, or give a name in its place")
    parse_context(values.add_context, values.ratio, values.stages)
    if not values.data and not values.annotations:
        raise GCNetError("gcnet train: which images? add --data DIR (see docs/your-data.md)")
    values.given = {*from_file, *(underscored(word)[2:].split("=")[0] for word in rest if word[:2] == "--")}
    return values, recipe_of(type(own or Recipe()), values)


def _parser(name: str | None, own: Recipe | None) -> Any:
    parser = make_parser(
        "train",
        usage="gcnet train MODEL_OR_FILE --data DIR [--out DIR] [--resume [auto]] [--config FILE] [options]",
        description="Trains a model. Defaults are the model's own recipe.",
    )
    parser.add_argument("--model", help="the same as MODEL_OR_FILE, for config files")
    parser.add_argument(
        "--config", action="config", help="a YAML file of options, such as a run's recipe.yaml"
    )
    parser.add_argument(
        "--data", help="a data set or its annotation file; of a classifier, train/CLASS/ and val/CLASS/"
    )
    parser.add_argument("--annotations", type=str | None, help=ANNOTATIONS_HELP)
    parser.add_argument("--images", type=str | None, help=IMAGES_HELP)
    out = f"runs/{name or 'MODEL'}"
    parser.add_argument("--out", default=out, help="folder for checkpoints, logs and curves")
    parser.add_argument(
        "--resume",
        type=bool | Literal["auto"],
        default=False,
        help="go on from the last checkpoint in --out; `auto`: begin if there is none",
    )
    parser.add_argument("--weights", default="auto", help=START_HELP)
    parser.add_argument("--mirror", type=str | None, help=MIRROR_HELP.replace("; can be repeated", ""))
    parser.add_argument("--class_names", type=list[str] | None, help="checked against the data, if given")
    parser.add_argument(
        "--backbone_weights",
        type=str | None,
        metavar="FILE",
        help="a ResNet to start from, by any library",
    )
    parser.add_argument(
        "--add_context",
        type=str | None,
        metavar="BLOCK",
        help="blocks for a model without: gc, snl or nl",
    )
    parser.add_argument("--ratio", default="1/16", help="of the added blocks' bottleneck, such as 1/4")
    parser.add_argument("--stages", default="c3-c5", help="that get the added blocks")
    parser.add_argument("--remove_context", type=bool, default=False, help="take out the model's blocks")
    add_recipe(parser, own or Recipe())
    return parser


def split_words(argv: list[str]) -> tuple[str | None, str | None, list[str]]:
    """The MODEL and the --config file among the words of `gcnet train`, and the other words."""
    flags = ("--help", "-h", "--print_config", "--print-config")
    model, config, rest = None, None, []
    words = iter(with_values(argv))
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


def read_config(path: str) -> dict[str, str]:
    """The options in a YAML file, as the words that they would be on the command line.

    Raises GCNetError for what is no option with a number, a word, yes or no, or a list of those. Aliases,
    which could stand for more than memory holds, are refused.
    """
    import yaml

    data = Path(path).read_bytes()
    if len(data) > LARGEST_CONFIG:
        raise GCNetError(f"--config {path} has {len(data)} bytes; a recipe has fewer than {LARGEST_CONFIG}")
    try:
        values = _plain_yaml(data.decode("utf-8"))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise GCNetError(f"--config {path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise GCNetError(
            f"--config {path} should be a list of `option: value` lines, such as a run's recipe.yaml"
        )
    words = {}
    for name, value in values.items():
        if not isinstance(name, str) or not name.isidentifier() or name in NOT_IN_FILES:
            raise GCNetError(f"--config {path}: no option {shown(name)} can stand in a file")
        if name in WORDS and value is None:
            continue
        if not _is_plain(value) or (name in WORDS and not isinstance(value, str)):
            kind = "a word" if name in WORDS else "a number, a word, true or false, or a list of those"
            raise GCNetError(f"--config {path}: {name} is {shown(value)}; give {kind}")
        words[name] = value if isinstance(value, str) else json.dumps(value)
    return words


def _plain_yaml(text: str) -> Any:
    """What YAML holds, unless it has aliases or lists in lists in lists, as no recipe has."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
            return None
    return yaml.load(text, Loader=loader)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(one) and not isinstance(one, list) for one in value)
    return value.isprintable() if isinstance(value, str) else value is None or isinstance(value, int | float)

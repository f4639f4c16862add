"""Commands whose options are the fields of a `Recipe`, on the command line and in YAML files alike.

jsonargparse makes options of frozen dataclasses, and names unknown keys and wrong types.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, TypeVar

from gcnet.commands.arguments import suggest
from gcnet.errors import GCNetError
from gcnet.recipe import Recipe

Kind = TypeVar("Kind", bound=Recipe)


def make_parser(verb: str, *, usage: str, description: str) -> Any:
    """A jsonargparse parser for `parse_words`, without options yet."""
    from jsonargparse import ArgumentParser

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


def parse_words(parser: Any, words: Sequence[str]) -> Any:
    """The values, or one line with the nearest option there is."""
    try:
        return parser.parse_args([underscored(word) for word in words])
    except argparse.ArgumentError as error:
        message = str(error).replace("Parser key", "option")
        raise GCNetError(f"{parser.prog}: {suggest(message, parser._option_string_actions)}") from error


def recipe_of(kind: type[Kind], values: Any) -> Kind:
    """The recipe among the values."""
    return kind(**{field.name: getattr(values, field.name) for field in fields(kind)})


def underscored(word: str) -> str:
    """`--batch-size=2` as `--batch_size=2`, the name of the field; help shows dashes, and both are taken."""
    name, equals, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if word.startswith("--") else word

"""Reads the header of a .safetensors without torch: who wrote it, and its model's recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gcnet.errors import GCNetError
from gcnet.recipe import ClassificationRecipe, Recipe
from gcnet.weights.catalog import Weights, find

LONGEST = 8 << 20  # bytes of a header; those of 1,000 tensors take 100 kB


def is_safetensors(path: Path) -> bool:
    """Whether it is such a file, by its name or its beginning."""
    with open(path, "rb") as file:
        begin = file.read(9)
    return path.suffix == ".safetensors" or (
        begin[8:] == b"{" and int.from_bytes(begin[:8], "little") <= LONGEST
    )


def is_foreign(path: Path) -> bool:
    """Whether it is no file of ours, but perhaps weights of other people's. Damaged ones count as ours."""
    if not path.is_file():
        return path.suffix != ".safetensors"
    if not is_safetensors(path):
        return True
    metadata = _metadata(path)
    return metadata is not None and metadata.get("format") != "gcnet"


def saved_recipe(place: Path | Weights | str) -> Recipe:
    """The recipe of the model in a file, as far as its header says; a detector's for other files."""
    metadata: dict[str, Any] = {}
    if isinstance(place, Path) and place.suffix == ".safetensors":
        metadata = _metadata(place) or {}
    try:
        return find(json.loads(metadata["spec"])["name"]).recipe
    except (GCNetError, LookupError, TypeError, ValueError, RecursionError):
        return ClassificationRecipe() if metadata.get("kind") == "classifier" else Recipe()


def _metadata(path: Path) -> dict[str, Any] | None:
    """What the header says beside its tensors; None if it is damaged."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= LONGEST else b""
    try:
        found = json.loads(header).get("__metadata__")
    except (AttributeError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else {}

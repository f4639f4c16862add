"""What the header of one of our files tells without torch: which recipe its model is trained by."""

from __future__ import annotations

import json
from pathlib import Path

from gcnet.errors import GCNetError
from gcnet.recipe import ClassificationRecipe, Recipe
from gcnet.weights.catalog import Weights, find

LONGEST = 100 << 20  # bytes of a header, as safetensors itself has it


def saved_recipe(place: Path | Weights | str) -> Recipe:
    """The recipe of the model in a file, as far as its header says; a detector's for other files."""
    metadata = _metadata(place) if isinstance(place, Path) and place.suffix == ".safetensors" else {}
    try:
        return find(json.loads(metadata["spec"])["name"]).recipe
    except (GCNetError, LookupError, TypeError, ValueError, RecursionError):
        return ClassificationRecipe() if metadata.get("kind") == "classifier" else Recipe()


def _metadata(path: Path) -> dict[str, str]:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= LONGEST else b""
    try:
        found = json.loads(header)["__metadata__"]
    except (LookupError, TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

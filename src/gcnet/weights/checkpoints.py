"""Other people's checkpoints: where the weights are in them, and what else they say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError, safe_open
from torch import Tensor

from gcnet.errors import GCNetError
from gcnet.weights.archives import MOST_TENSORS, check_claims, damaged, open_checkpoint
from gcnet.weights.pickles import Array, View

# Names of the weights' dictionary, the averaged ones first: those are what is evaluated.
AVERAGED = ("state_dict_ema", "model_ema", "ema_model", "ema")
WRAPPERS = (*AVERAGED, "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
PARTS = ("teacher", "student")
PREFIXES = (
    *("module.", "model.", "_orig_mod.", "state_dict.", "net.", "network.", "detector."),
    *("ema.", "ema_model.", "teacher.", "student."),
)
DEEPEST = 6  # wrappers around wrappers


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds and says of itself.

    Attributes:
        tensors: the weights by name, without the prefixes of wrappers (`module.`). Where averaged weights
            were kept beside the trained ones, these are those that upstream evaluates: the averaged ones.
        class_names: in the order of the labels, or None if the file does not say.
        origin: versions, epoch, iteration and the like, as far as the file says.
        config: the text of the configuration that it was trained with, if it is kept.
    """

    tensors: dict[str, Tensor]
    class_names: tuple[str, ...] | None = None
    origin: dict[str, str | int | float] = field(default_factory=dict)
    config: str | None = None


def read_checkpoint(path: str | Path, *, part: str | None = None) -> Checkpoint:
    """The weights of a checkpoint, wherever in it they are, and what it says of itself.

    Optimiser states, logs and second copies of the weights are passed over.

    Args:
        path: what `torch.save` or `pickle.dump` wrote, or a .safetensors.
        part: "teacher" or "student", of a file that holds both.

    Raises:
        GCNetError: the file is missing or damaged, holds no tensors, or would have to run code to be read.
    """
    path = Path(path)
    if not path.is_file():
        raise GCNetError(f"there is no checkpoint {path}")
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
        return Checkpoint(_plain_names({name: tensors[name] for name in _part_of(path, tensors, part)}))
    pickled = open_checkpoint(path)
    whole = pickled.content if isinstance(pickled.content, dict) else {}
    named, place = _weights(path, whole, part)
    named = {name: value for name, value in named.items() if isinstance(name, str)}
    tensors = pickled.tensors({name: named[name] for name in _part_of(path, named, part)})
    if not tensors:
        raise GCNetError(f"{path} holds no tensors: it is not a model checkpoint")
    meta = whole.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    origin = _origin(meta) | ({"averaged": f"the weights under {place}"} if place in AVERAGED else {})
    return Checkpoint(_plain_names(tensors), _class_names(meta, whole), origin, _config(meta))


def _weights(path: Path, content: dict[Any, Any], part: str | None) -> tuple[dict[Any, Any], str]:
    """The innermost dictionary of weights, and the name that it has."""
    found = ""
    while inner := [name for name in (*WRAPPERS, *PARTS) if _holds_weights(content.get(name))]:
        both = set(PARTS) <= set(inner)
        found = (part or _ask(path)) if both else inner[0]
        content = content[found]
    return content, found


def _holds_weights(value: object, deepest: int = 2) -> bool:
    """Whether there are tensors in a dictionary, or in what wraps some in it."""
    if not isinstance(value, dict) or len(value) > MOST_TENSORS:
        return False
    if any(isinstance(entry, View | Array) for entry in value.values()):
        return True
    return deepest > 0 and any(_holds_weights(value.get(name), deepest - 1) for name in (*WRAPPERS, *PARTS))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file that is not ours."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            check_claims(path, [0] * len(names))
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(path, error) from error


def _part_of(path: Path, names: Iterable[str], part: str | None) -> list[str]:
    """The names of a teacher's or a student's tensors, where a file holds both; else all names."""
    names = list(names)
    if any(name.startswith("ema_model.") for name in names):  # beside the trained ones
        return [name for name in names if name.startswith("ema_model.")]
    if not all(any(name.startswith(f"{kind}.") for name in names) for kind in PARTS):
        return names
    part = part or _ask(path)
    return [name for name in names if name.startswith(f"{part}.")]


def _ask(path: Path) -> NoReturn:
    raise GCNetError(
        f"{path} holds a teacher and a student: say which, `gcnet convert {path} {path.stem}.safetensors "
        "--part teacher` (mmdetection predicts with it) or `--part student`"
    )


def _plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without wrappers' prefixes and averaging's own bookkeeping.

    mmcv 2.x keeps a second set as buffers of the model, `ema_backbone_conv1_weight`; whichever set was
    evaluated last lies under the plain names, and that is the averaged one.
    """
    named = {name: value for name, value in tensors.items() if name not in ("steps", "n_averaged")}
    for _ in range(DEEPEST):
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in named)), None)
        if not named or prefix is None:
            break
        named = {name.removeprefix(prefix): value for name, value in named.items()}
    return {name: value for name, value in named.items() if not re.fullmatch(r"ema_[^.]*", name)}


def _class_names(*places: Mapping[str, Any]) -> tuple[str, ...] | None:
    """mmdetection 2.x writes `CLASSES`, 3.x `dataset_meta` with `classes` (early 3.x `CLASSES`) in it."""
    inner = [place["dataset_meta"] for place in places if isinstance(place.get("dataset_meta"), dict)]
    keys = ("classes", "CLASSES", "class_names")
    for names in (place.get(key) for place in (*places, *inner) for key in keys):
        if isinstance(names, str):  # ("person") instead of ("person",) is a common slip
            return (names,)
        if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def _origin(meta: Mapping[str, Any]) -> dict[str, str | int | float]:
    origin = {}
    for name in ("mmdet_version", "mmengine_version", "experiment_name", "time", "epoch", "iter", "seed"):
        value = meta.get(name)
        if isinstance(value, str | int | float):
            origin[name] = value
    return origin


def _config(meta: Mapping[str, Any]) -> str | None:
    return next((meta[key] for key in ("config", "cfg") if isinstance(meta.get(key), str)), None)

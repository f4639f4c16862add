"""Finds the weights in other people's checkpoints, and the facts that come with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from gcnet.console import listed, printable
from gcnet.errors import GCNetError
from gcnet.weights.archives import SAVE_WEIGHTS, check_claims, damaged, open_checkpoint, open_safetensors
from gcnet.weights.pickles import Array, Inert, View
from gcnet.weights.saved import is_safetensors

# Words in the places of averaged weights, which are what is evaluated, and of the others by rank.
AVERAGED = re.compile(r"(^|_)(ema|shadow|swa|averaged?)(_|$)", re.IGNORECASE)
RANKED = ("state_dict", "model_state_dict", "model", "net")
PARTS = ("teacher", "student")
# Words before the names of a model that is no detector; a detector's parts are known by themselves.
PREFIXES = ("module.", "model.", "_orig_mod.", "state_dict.", "net.", "network.")
_DETECTOR = re.compile(r"(?:(.*?)\.)??(backbone|rpn_head|rpn|proposal_generator)\.")
# The bookkeeping of averaging, and what mmcv 2.x keeps as a second set of weights; whichever set was
# evaluated last lies under the plain names, and that is the averaged one.
_BOOKKEEPING = re.compile(r"steps|n_averaged|ema_[^.]*")
# Counts of profilers, states of losses, and a classifier that the backbone once had.
_UNUSED = re.compile(
    r"(.*\.)?(_extra_state|total_ops|total_params)|(.*\.)?(loss_\w+|criterion)\..*|backbone\.fc\..*"
)
DEEPEST = 6  # wrappers around wrappers
LONGEST_NAME = 200  # of a class, in characters


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a checkpoint, and its metadata.

    Attributes:
        tensors: the weights by name, without the prefixes of wrappers (`module.`). Where averaged weights
            were kept beside the trained ones, these are those that upstream evaluates: the averaged ones.
        class_names: in the order of the labels, or None if the file does not say.
        origin: versions, epoch, iteration and the like, as far as the file says.
        config: the configuration that it was trained with, if it is kept: its text, or its values.
    """

    tensors: dict[str, Tensor]
    class_names: tuple[str, ...] | None = None
    origin: dict[str, str | int | float] = field(default_factory=dict)
    config: str | dict[str, Any] | None = None


@dataclass(frozen=True)
class _Model:
    """The unread tensors of one model in a file by name, and the path of keys that leads to them."""

    place: tuple[str, ...]
    named: dict[str, Any]
    is_detector: bool = False

    @property
    def is_averaged(self) -> bool:
        return any(AVERAGED.search(word) for word in self.place)

    @property
    def rank(self) -> int:
        return RANKED.index(self.place[-1]) if self.place[-1:] and self.place[-1] in RANKED else len(RANKED)


def read_checkpoint(path: str | Path, *, part: str | None = None) -> Checkpoint:
    """The weights of a checkpoint, wherever they are in it, and its metadata.

    Optimiser states, logs and second copies of the weights are passed over.

    Args:
        path: what `torch.save` or `pickle.dump` wrote, or a .safetensors.
        part: a word in the place of the weights, such as "teacher" or "student", of a file with several.

    Raises:
        GCNetError: the file is missing or damaged, holds no tensors, or would have to run code to be read.
    """
    path = Path(path)
    if not path.is_file():
        raise GCNetError(f"there is no checkpoint {path}")
    if is_safetensors(path):
        tensors = _read_safetensors(path)
        return Checkpoint(_weights(_choose(path, tensors, part).named))
    pickled = open_checkpoint(path)
    model = _choose(path, pickled.content, part)
    held = (value for _, value in _containers(pickled.content))
    whole = next((_by_name(value) for value in held if isinstance(value, dict)), {})
    meta = _by_name(whole.get("meta"))
    origin = _origin(meta)
    if model.is_averaged:
        origin["averaged"] = f"the weights under {'.'.join(model.place)}"
    tensors = _weights(pickled.tensors(model.named))
    return Checkpoint(tensors, _class_names(meta, whole), origin, _config(meta, whole))


def _models(content: Any) -> Iterator[_Model]:
    """All candidates for the weights, outer ones first: tensors under names with a dot.

    Names without one count where the place is known, or is the whole file.
    """
    for place, value in _containers(content):
        named = _by_name(value)
        tensors = {name: entry for name, entry in named.items() if isinstance(entry, View | Array | Tensor)}
        if any("." in name for name in tensors) or (tensors and (place[-1:] or RANKED[:1])[0] in RANKED):
            yield from _apart(tensors, place)


def _containers(content: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The dictionaries and lists in a file, outer ones first, with the path of keys that leads to each.

    Each comes once: those that hold themselves, or one another many times, would have no end.
    """
    seen: set[int] = set()
    left: list[tuple[int, tuple[str, ...], Any]] = [(0, (), content)]
    while left:
        depth, place, value = left.pop()
        if depth > DEEPEST or id(value) in seen or not isinstance(value, dict | list | tuple):
            continue
        seen.add(id(value))
        yield place, value
        inner = [(depth + 1, (*place, name), entry) for name, entry in _by_name(value).items()]
        if isinstance(value, list | tuple):
            inner = [(depth + 1, place, entry) for entry in value[:DEEPEST]]
        left += reversed([one for one in inner if not isinstance(one[-1], Array)])


def _apart(tensors: dict[str, Any], place: tuple[str, ...]) -> Iterator[_Model]:
    """The models among tensors, by the prefixes of names; only the detectors, if there are any."""
    parts: dict[str, set[str]] = {}
    for name in tensors:
        if match := _DETECTOR.match(name):
            parts.setdefault(match[1] or "", set()).add(match[2])
    detectors = [start for start, found in parts.items() if len(found) > 1]  # a backbone and proposals
    others = {name.partition(".")[0] for name in tensors if "." in name}
    starts = detectors or sorted(word for word in others if word in PARTS or AVERAGED.search(word))
    of_start: dict[str, dict[str, Any]] = {start: {} for start in starts}
    left: dict[str, Any] = {}
    for name, value in tensors.items():
        start = name.rpartition(".")[0]
        while start and start not in of_start:
            start = start.rpartition(".")[0]
        of_start.get(start, left)[name.removeprefix(f"{start}.") if start else name] = value
    for start in sorted(starts, key=len, reverse=True):
        yield _Model((*place, *start.split(".")) if start else place, of_start[start], bool(detectors))
    if left and not detectors:
        yield _Model(place, left)


def _choose(path: Path, content: Any, part: str | None) -> _Model:
    """The model that mmdetection would evaluate. Raises GCNetError if that is not known."""
    models = list(_models(content))
    if not models:
        raise GCNetError(f"{path} holds no tensors by name: {_instead(content)}")
    models = _these_or_all(models, lambda model: model.is_detector)
    if part not in (None, *PARTS) and not any(part in model.place for model in models):
        raise GCNetError(f"{path} has no part {part}; leave out --part, or give a word that its error names")
    models = _these_or_all(models, lambda model: part in model.place)
    if part not in PARTS and all(any(word in model.place for model in models) for word in PARTS):
        raise GCNetError(
            f"{path} holds a teacher and a student: say which, `gcnet convert {path} OUT.safetensors "
            "--part teacher` (mmdetection 3.x predicts with it) or `--part student`"
        )
    if any(model.place[:1] == ("state_dict",) for model in models):  # mmengine's is the averaged one
        models = _these_or_all(models, lambda model: model.place[:1] != ("ema_state_dict",))
    models = _these_or_all(models, lambda model: model.is_averaged)
    best = min(model.rank for model in models)
    models = [model for model in models if model.rank == best]
    if len(models) > 1 and models[0].is_detector:
        places = [".".join(model.place) or "the whole" for model in models]
        raise GCNetError(f"{path} holds several models ({listed(places, 4)}): say which with --part WORD")
    return max(models, key=lambda model: len(model.named))


def _these_or_all(models: list[_Model], is_one: Callable[[_Model], bool]) -> list[_Model]:
    """Those that are one, or if none is all."""
    return [model for model in models if is_one(model)] or models


def _weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without prefixes of wrappers, and without those that are no weights."""
    named = {name: value for name, value in tensors.items() if not _BOOKKEEPING.fullmatch(name)}
    for _ in range(DEEPEST):
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in named)), "")
        named = {name.removeprefix(prefix): value for name, value in named.items()}
    no_weight = re.compile(f"{_BOOKKEEPING.pattern}|{_UNUSED.pattern}")
    return {name: value for name, value in named.items() if not no_weight.fullmatch(name)}


def _instead(content: Any) -> str:
    """What a file holds if it holds no weights, for the error."""
    if any(isinstance(value, Inert) and "_modules" in value for _, value in _containers(content)):
        return f"it is a whole model and not its weights; {SAVE_WEIGHTS}"
    names = [printable(name)[:40] for name in _by_name(content)]
    return f"it has {listed(names, 4)}" if names else "it is not a model checkpoint"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file that is not ours."""
    try:
        with open_safetensors(path) as file:
            names = list(file.keys())
            check_claims(path, [0] * len(names))
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(path, error) from error


def _by_name(value: Any) -> dict[str, Any]:
    """The entries of a dictionary with text keys, some of which are written as bytes."""
    if not isinstance(value, dict):
        return {}
    return {_text(name): entry for name, entry in value.items() if isinstance(name, str | bytes)}


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", errors="replace")


def _class_names(*places: Mapping[str, Any]) -> tuple[str, ...] | None:
    """mmdetection 2.x writes `CLASSES`, 3.x `dataset_meta` with `classes` (early 3.x `CLASSES`) in it.

    Others have lists of the same names, or dictionaries by number.
    """
    inner = [_by_name(place.get(name)) for place in places for name in ("dataset_meta", "hyper_parameters")]
    keys = ("classes", "CLASSES", "class_names", "names", "id2label")
    for names in (place.get(key) for place in (*places, *inner) for key in keys):
        if isinstance(names, str):  # ("person") instead of ("person",) is a common slip
            names = [names]
        if isinstance(names, Array):
            names = names.texts()
        if isinstance(names, dict):
            names = [names.get(number, names.get(str(number))) for number in range(len(names))]
        if isinstance(names, list | tuple) and names:
            texts = [_text(name) for name in names if isinstance(name, str | bytes)]
            if len(texts) == len(names) and all(0 < len(text) <= LONGEST_NAME for text in texts):
                return tuple(texts)
    return None


def _origin(meta: Mapping[str, Any]) -> dict[str, str | int | float]:
    names = ("mmdet_version", "mmengine_version", "experiment_name", "time", "epoch", "iter", "seed")
    return {name: meta[name] for name in names if isinstance(meta.get(name), str | int | float)}


def _config(meta: Mapping[str, Any], whole: Mapping[str, Any]) -> str | dict[str, Any] | None:
    """The configuration. Outside of `meta` only its text: other things often have this name."""
    kept = [meta.get("config"), meta.get("cfg")]
    others = (text for text in (whole.get("config"), whole.get("cfg")) if isinstance(text, str))
    for config in (*kept, *others):
        if isinstance(config, str | bytes) and config:
            return _text(config)
        if isinstance(config, dict) and config:
            return _by_name(config.get("_cfg_dict", config))
    return None

"""Reads other people's .pth files without running the code that a pickle can carry."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcnet.errors import GCNetError


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


class _Inert:
    """Stands in for objects of training logs whose content nobody needs: takes anything, keeps nothing."""

    def __new__(cls, *args: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _InertDict:
    """The same for dictionaries: items can be put in. The unpickler knows no subclass, hence no subclass."""

    def __new__(cls, *args: object) -> OrderedDict[Any, Any]:
        return OrderedDict()


class _InertList:
    """The same for lists."""

    def __new__(cls, *args: object) -> list[Any]:
        return []


# Numpy numbers are read as what they are: an epoch can be one. Files written with numpy 1.x know the
# constructor under its old address.
_SCALAR = import_module("numpy._core.multiarray").scalar
_NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool", "O", "U1")
_HARMLESS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    _SCALAR,
    np.dtype,
    *{type(np.dtype(kind)) for kind in _NUMBERS},
]
# The rest of what the trainers of OpenMMLab leave beside the weights. None of these classes is imported:
# a name stands for a class of ours that does nothing, so that a file that abuses one of them does nothing.
_STAND_INS = {
    _Inert: """mmengine.logging.history_buffer.HistoryBuffer mmcv.runner.log_buffer.LogBuffer
        mmengine.config.config.Config mmcv.utils.config.Config
        mmengine.config.lazy.LazyObject mmengine.config.lazy.LazyAttr
        numpy.ndarray numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct
        datetime.date datetime.datetime datetime.timedelta datetime.timezone
        pathlib.Path pathlib.PosixPath pathlib.WindowsPath pathlib.PurePosixPath pathlib.PureWindowsPath
        pathlib._local.PosixPath pathlib._local.WindowsPath
        builtins.getattr
        builtins.list builtins.dict builtins.tuple builtins.int builtins.float builtins.str""",
    _InertDict: """mmengine.config.config.ConfigDict mmcv.utils.config.ConfigDict addict.addict.Dict
        collections.defaultdict""",
    _InertList: "collections.deque",
}
_INERT = [(stand_in, name) for stand_in, names in _STAND_INS.items() for name in names.split()]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The weights of a PyTorch checkpoint (of its `state_dict` if it has one), and what it says of itself.

    Optimiser states, logs and second copies of the weights are passed over.

    Raises:
        GCNetError: the file is missing or damaged, holds no tensors, or would have to run code to be read.
    """
    path = Path(path)
    if not path.is_file():
        raise GCNetError(f"there is no checkpoint {path}")
    content = _load(path)
    whole = content if isinstance(content, dict) else {}
    state = whole.get("state_dict")
    tensors = state if isinstance(state, dict) else whole
    tensors = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
    if not tensors:
        raise GCNetError(f"{path} holds no tensors: it is not a model checkpoint")
    meta = whole.get("meta") if isinstance(state, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    return Checkpoint(_plain_names(tensors), _class_names(meta), _origin(meta), _config(meta))


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_HARMLESS + _INERT):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise GCNetError(_refusal(path, str(error))) from error
    except Exception as error:  # a damaged pickle can raise almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GCNetError(f"{path} is damaged or not a PyTorch checkpoint ({reason}); get it again") from error


def _refusal(path: Path, message: str) -> str:
    """Names what the file wants to run: all of it for a zip archive, else the first that was met."""
    known = {name for _, name in _INERT}
    try:
        wanted = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a zip archive: the list cannot be read without unpickling
        wanted = re.findall(r"GLOBAL (\S+)", message)[:1]
    wanted = [name for name in wanted if name not in known and not name.startswith("numpy.")]
    if wanted:
        names = ", ".join(wanted[:5])
        return f"{path} was not opened: it wants to run {names}; take only weights from strangers"
    return f"{path} was not opened: it is damaged, or holds something else than plain weights"


def _plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without wrappers' prefixes and averaging's own bookkeeping.

    mmcv 2.x keeps a second set as buffers of the model, `ema_backbone_conv1_weight`; whichever set was
    evaluated last lies under the plain names, and that is the averaged one.
    """
    named = {name: value for name, value in tensors.items() if name not in ("steps", "n_averaged")}
    for _ in range(4):
        prefix = next((p for p in ("module.", "model.") if all(name.startswith(p) for name in named)), None)
        if not named or prefix is None:
            break
        named = {name.removeprefix(prefix): value for name, value in named.items()}
    return {name: value for name, value in named.items() if not re.fullmatch(r"ema_[^.]*", name)}


def _class_names(meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    """mmdetection 2.x writes `CLASSES`, 3.x `dataset_meta` with `classes` (early 3.x `CLASSES`) in it."""
    dataset = meta.get("dataset_meta")
    places = [meta, *([dataset] if isinstance(dataset, dict) else [])]
    for names in (place.get(key) for place in places for key in ("classes", "CLASSES")):
        if isinstance(names, str):  # ("person") instead of ("person",) is a common slip
            return (names,)
        if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def _origin(meta: Mapping[str, Any]) -> dict[str, str | int | float]:
    origin = {}
    for name in ("mmdet_version", "mmengine_version", "experiment_name", "time", "epoch", "iter", "seed"):
        value = meta.get(name)
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, str | int | float):
            origin[name] = value
    return origin


def _config(meta: Mapping[str, Any]) -> str | None:
    return next((meta[key] for key in ("config", "cfg") if isinstance(meta.get(key), str)), None)

"""Reads other people's .pth files without running the code that a pickle can carry."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcnet.errors import GCNetError

# Bytes of tensors that a small file may claim: many views of few numbers are a model too.
UNBACKED = 432 << 20
MOST_TENSORS = 20_000
WRAPPERS = ("state_dict", "model_state_dict", "model")  # of the weights; the first that is there
PARTS = ("teacher", "student")
PREFIXES = ("module.", "model.", "_orig_mod.", "state_dict.", "net.", "detector.")


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint.

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
    """Stands in for objects whose content is not needed: takes anything, keeps nothing."""

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


class _DType:
    """Stands in for `numpy.dtype`, whose own state can make NumPy follow addresses that a file chooses."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code = code if isinstance(code, str) else ""
        self.order = "="

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        self.order = order if order in ("<", ">") else "="


def _scalar(dtype: object = None, data: object = b"", *_: object) -> int | float | bool | str | _Inert:
    """The number or text that a NumPy scalar means; all that is not one of these is taken for empty."""
    if not isinstance(dtype, _DType) or not isinstance(data, bytes):
        return _Inert()
    order = dtype.order if dtype.order != "=" else "<"
    if dtype.code[:1] == "U":
        return data.decode("utf-32-le" if order == "<" else "utf-32-be", errors="replace")
    code = _FORMATS.get(dtype.code)
    if code is None or struct.calcsize(code) != len(data):
        return _Inert()
    return struct.unpack(order + code, data)[0]


# NumPy's names of number types, and those of `struct`.
_FORMATS = dict(
    zip(["b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"], "?bBhHiIqQefd", strict=True)
)
_STAND_INS: list[Any] = [
    (_DType, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
]
# The rest of what the trainers of OpenMMLab leave beside the weights. None of these classes is imported:
# a name stands for a class of ours that does nothing, so that a file that abuses one of them does nothing.
_INERT = {
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
_STAND_INS += [(stand_in, name) for stand_in, names in _INERT.items() for name in names.split()]


def read_checkpoint(path: str | Path, *, part: str | None = None) -> Checkpoint:
    """The weights of a PyTorch checkpoint (of its `state_dict` if it has one), and what it says of itself.

    Optimiser states, logs and second copies of the weights are passed over.

    Args:
        part: "teacher" or "student", of a file that holds both.

    Raises:
        GCNetError: the file is missing or damaged, holds no tensors, or would have to run code to be read.
    """
    path = Path(path)
    if not path.is_file():
        raise GCNetError(f"there is no checkpoint {path}")
    _check_archive(path)
    content = _load(path)
    whole = content if isinstance(content, dict) else {}
    state = next((whole[key] for key in WRAPPERS if isinstance(whole.get(key), dict)), None)
    tensors = state if isinstance(state, dict) else whole
    tensors = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
    if not tensors:
        raise GCNetError(f"{path} holds no tensors: it is not a model checkpoint")
    _check_tensors(path, tensors)
    meta = whole.get("meta") if isinstance(state, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    return Checkpoint(
        _plain_names(_part_of(path, tensors, part)), _class_names(meta), _origin(meta), _config(meta)
    )


def _check_archive(path: Path) -> None:
    """Raises if the parts of a zip archive say that they are larger than the file: they would be unpacked."""
    claimed = 0
    with suppress(zipfile.BadZipFile, OSError, ValueError, NotImplementedError):  # torch says what is wrong
        if zipfile.is_zipfile(path):
            claimed = sum(part.file_size for part in zipfile.ZipFile(path).infolist())
    if claimed > path.stat().st_size:
        raise GCNetError(
            f"refused: {path} unpacks to {claimed / 1e6:.0f} MB, more than the file has; save it with "
            "torch.save, which does not compress"
        )


def _check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises for tensors that are not plain numbers, or more of them than fits the size of the file."""
    for name, tensor in tensors.items():
        plain = tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_complex())
        if not plain or tensor.is_meta:
            raise GCNetError(
                f"{path}: {name} is sparse, quantised, complex or without values; only plain tensors are read"
            )
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > max(path.stat().st_size, UNBACKED) or len(tensors) > MOST_TENSORS:
        raise GCNetError(
            f"refused: {path} says that it holds {len(tensors)} tensors of {claimed / 1e6:.0f} MB, more than "
            "there is in the file"
        )


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise GCNetError(_refusal(path, str(error))) from error
    except Exception as error:  # a damaged pickle can raise almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GCNetError(f"{path} is damaged or not a PyTorch checkpoint ({reason}); get it again") from error


def _refusal(path: Path, message: str) -> str:
    """Names the functions that loading the file would run: all for a zip archive, else the first one."""
    known = {name for _, name in _STAND_INS}
    try:
        wanted = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a zip archive: the list cannot be read without unpickling
        wanted = re.findall(r"GLOBAL (\S+)", message)[:1]
    wanted = [name for name in wanted if name not in known and not name.startswith("numpy.")]
    if wanted:
        names = ", ".join(wanted[:5])
        return f"refused: loading {path} would run {names}; only load checkpoints that you trust"
    return f"refused: {path} is damaged, or holds something else than plain weights"


def _part_of(path: Path, tensors: dict[str, Tensor], part: str | None) -> dict[str, Tensor]:
    """The tensors of a teacher or a student, where a file holds both."""
    both = all(any(name.startswith(f"{kind}.") for name in tensors) for kind in PARTS)
    if not both:
        return tensors
    if part is None:
        raise GCNetError(
            f"{path} holds a teacher and a student: say which, `gcnet convert {path} "
            f"{path.stem}.safetensors --part teacher` (mmdetection predicts with it) or `--part student`"
        )
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}


def _plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without wrappers' prefixes and averaging's own bookkeeping.

    mmcv 2.x keeps a second set as buffers of the model, `ema_backbone_conv1_weight`; whichever set was
    evaluated last lies under the plain names, and that is the averaged one.
    """
    named = {name: value for name, value in tensors.items() if name not in ("steps", "n_averaged")}
    for _ in range(4):
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in named)), None)
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
        if isinstance(value, str | int | float):
            origin[name] = value
    return origin


def _config(meta: Mapping[str, Any]) -> str | None:
    return next((meta[key] for key in ("config", "cfg") if isinstance(meta.get(key), str)), None)

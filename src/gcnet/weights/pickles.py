"""Reads pickles without running anything, and without the libraries that wrote them.

A pickle is a program that names functions to call. Here every name stands for an object of ours: plain
values, numbers and arrays are read, all else becomes an object that stores its arguments and does nothing.
"""

from __future__ import annotations

import pickle
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

MOST_STEPS = 4_000_000  # of a pickle, each of which can make an object; those of published files take 60,000

# Of storages by their class.
PLAIN = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_STORAGES = PLAIN | {
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "QInt8": torch.qint8,
    "QUInt8": torch.quint8,
    "QInt32": torch.qint32,
}
NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")  # NumPy's codes of arrays
_SCALARS = (*NUMBERS, "u2", "u4", "u8")
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # of Python 2


class RefusedError(Exception):
    """A pickle names something that cannot be in a file of weights."""


class Inert(dict[Any, Any]):
    """Any object that nobody needs: it takes items and state, and does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def append(self, _: object) -> None:
        pass

    extend = add = append

    def set_state(self, state: object) -> None:
        """What a pickle gives an object that it has made."""
        if isinstance(state, dict):
            self.update(state)

    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType] (it may be a key)


class Stored(Inert):
    """A configuration of mmcv or mmengine: the dictionary that it was made from, or holds as `_cfg_dict`."""

    def __new__(cls, given: object = None, *_: object) -> Any:
        return given if isinstance(given, dict) else super().__new__(cls)  # itself: a copy would take memory

    def set_state(self, state: object) -> None:
        first = state[0] if isinstance(state, tuple) and state else None
        super().set_state({"_cfg_dict": first} if isinstance(first, dict) else state)


class DType(Inert):
    """`numpy.dtype`, of which the code and the order of bytes are all that counts."""

    def __init__(self, code: object = "", *_: object) -> None:
        super().__init__()
        self.code, self.order = code if isinstance(code, str) else "", "<"

    def set_state(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.order = ">"

    def text(self, data: bytes) -> str:
        """What bytes of an array of texts say."""
        return data.decode("utf-32-le" if self.order == "<" else "utf-32-be", errors="replace")


class Array(Inert):
    """A NumPy array: shape, type and bytes."""

    shape: Any = None
    dtype: Any = None
    data: Any = None
    fortran: bool = False  # the first index runs fastest

    def set_state(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) == 5:
            _, self.shape, self.dtype, fortran, self.data = state
            self.fortran = bool(fortran)

    def texts(self) -> list[Any]:
        """What is in an array of objects or of texts; nothing of another one."""
        if isinstance(self.data, list):
            return self.data
        code = self.dtype.code if isinstance(self.dtype, DType) else ""
        width = 4 * int(code[1:]) if code[:1] == "U" and code[1:].isdecimal() else 0
        if not width or not isinstance(self.data, bytes):
            return []
        parts = (self.data[at : at + width] for at in range(0, len(self.data), width))
        return [self.dtype.text(part).rstrip("\0") for part in parts]


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers that lie elsewhere in the file."""

    key: str
    dtype: torch.dtype | None
    count: int


@dataclass(frozen=True, eq=False)
class View:
    """A tensor that is not read yet: a view of a storage. Without a storage it is no plain tensor."""

    storage: Storage | None = None
    offset: int = 0
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()

    @staticmethod
    def of(storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> View:
        """As `torch._utils._rebuild_tensor_v2` takes it."""
        sizes = (*size, *stride, offset) if isinstance(size, tuple) and isinstance(stride, tuple) else ("",)
        whole = all(type(number) is int and number >= 0 for number in sizes)
        plain = isinstance(storage, Storage) and storage.dtype in PLAIN.values()
        if not whole or not plain or len(size) != len(stride):
            return View()
        return View(storage, offset, size, stride)


def _scalar(dtype: object = None, data: object = b"", *_: object) -> Any:
    """The number or text that a NumPy scalar means."""
    data = data.encode("latin1") if isinstance(data, str) else data  # written by Python 2
    if not isinstance(dtype, DType) or not isinstance(data, bytes):
        return Inert()
    if dtype.code[:1] == "U":
        return dtype.text(data)
    if dtype.code not in _SCALARS or np.dtype(dtype.code).itemsize != len(data):
        return Inert()
    return np.frombuffer(data, dtype.order + dtype.code)[0].item()


def _array(
    data: object = None, dtype: object = None, shape: object = None, order: object = "C", *_: object
) -> Array:
    array = Array()
    array.data, array.dtype, array.shape, array.fortran = data, dtype, shape, order == "F"
    return array


def _pairs(pairs: object = (), *_: object) -> dict[Any, Any]:
    return dict(pairs) if isinstance(pairs, list | tuple) else {}


def _bytes(text: object = "", *_: object) -> object:
    return text.encode("latin1") if isinstance(text, str) else b""


def _first(first: object = None, *_: object) -> object:
    return first


def _typed(function: Any, _: object, args: tuple[object, ...], *__: object) -> object:
    """A subclass of a tensor, or one with attributes: the tensor in it."""
    return function(*args)


_KNOWN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _pairs,
    "_codecs.encode": _bytes,
    "numpy.dtype": DType,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": View.of,
    "torch._utils._rebuild_tensor_v2": View.of,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch._tensor._rebuild_from_type_v2": _typed,
}
for _core in ("core", "_core"):  # of NumPy 1 and 2
    _KNOWN[f"numpy.{_core}.multiarray.scalar"] = _scalar
    _KNOWN[f"numpy.{_core}.multiarray._reconstruct"] = Array
    _KNOWN[f"numpy.{_core}.numeric._frombuffer"] = _array
for _config in ("mmcv.utils.config", "mmengine.config.config"):
    _KNOWN |= {f"{_config}.ConfigDict": Stored, f"{_config}.Config": Stored}
# Names of Python's own modules that trainings store. Names of other packages become empty objects.
_PATHS = "Path PosixPath WindowsPath PurePosixPath PureWindowsPath"
_HARMLESS = {
    "argparse": "Namespace",
    "builtins": "bool bytearray bytes complex dict Ellipsis float frozenset getattr int list long "
    "NotImplemented object range set slice str tuple type unicode xrange",
    "collections": "ChainMap Counter defaultdict deque UserDict UserList UserString",
    "copyreg": "_reconstructor",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "enum": "Enum Flag IntEnum IntFlag",
    "functools": "partial",
    "ipaddress": "IPv4Address IPv6Address",
    "logging": "Logger getLogger",
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "random": "Random",
    "re": "Pattern _compile compile",
    "types": "MappingProxyType SimpleNamespace",
    "uuid": "SafeUUID UUID",
    "zoneinfo": "ZoneInfo ZoneInfo._unpickle",
}


_InPython: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue] (and not the one in C)


class Unpickler(_InPython):
    """Python's own, for which every name is one of ours.

    `refused` are names that nothing stands in for, `storages` all that is pointed to.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="latin1")
        self.refused: list[str] = []
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        module = _OLD_MODULES.get(module, module)
        package, name, last = module.partition(".")[0], f"{module}.{name}", name
        if name in _KNOWN:
            return _KNOWN[name]
        if package == "torch" and last.endswith("Storage"):
            return type(last, (Inert,), {"dtype": _STORAGES.get(last.removesuffix("Storage"))})
        if name.startswith(("torch._utils._rebuild", "torch.sparse")):
            return lambda *_: View()
        if package in sys.stdlib_module_names and last not in _HARMLESS.get(module, "").split():
            self.refused.append(name)
        return type("Some", (Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and pid[:1] == ("module",) and len(pid) > 1:
            return pid[1]  # a class, with its source beside it
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or type(pid[4]) is not int:
            raise pickle.UnpicklingError("it points to something that is no storage")
        view = pid[5] if len(pid) > 5 else None
        if view is not None:
            raise pickle.UnpicklingError("storages within storages are not read")
        storage = Storage(str(pid[2]), getattr(pid[1], "dtype", None), pid[4])
        return self.storages.setdefault(storage.key, storage)

    # The same dispatch by opcode, with these in place of its own.
    dispatch: ClassVar = dict(_InPython.dispatch)

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, Inert):
            made.set_state(state)

    def load_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack[-1]
        if not callable(function):  # all that can be called is from `find_class`
            raise RefusedError("it calls what it has made itself")
        self.stack[-1] = function(*args)

    def load_bytearray8(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(length))  # and not room for so many bytes, whatever comes

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def load_pickle(file: Any) -> tuple[Any, dict[str, Storage]]:
    """The next pickle's object, and the storages that it points to."""
    unpickler = Unpickler(_Counted(file))
    content = unpickler.load()
    if unpickler.refused:
        names = ", ".join(dict.fromkeys(unpickler.refused[:5]))
        raise RefusedError(f"loading it would run {names}; only load checkpoints that you trust")
    return content, unpickler.storages


class _Counted:
    """A file for an unpickler, whose every step reads at least once: so many steps and no more."""

    def __init__(self, file: Any) -> None:
        self.file, self.left, self.readline = file, MOST_STEPS, file.readline

    def read(self, count: int) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise ValueError("it holds too many objects")
        return self.file.read(count)

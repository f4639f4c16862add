"""Files of weights: a plain pickle, `torch.save`'s of today or before torch 1.6, or safetensors.

A tensor is read only after its declared size has been checked against the file.
"""

from __future__ import annotations

import io
import math
import mmap
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from gcnet.console import listed, shown
from gcnet.errors import GCNetError
from gcnet.weights.pickles import NUMBERS, Array, DType, RefusedError, Storage, View, load_pickle

# Bytes of tensors that a small file may claim: many views of few numbers are a model too.
UNBACKED = 720 << 20
MOST_TENSORS = 20_000
PACKED = (
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"7z\xbc\xaf",
    b"\x28\xb5\x2f\xfd",
    b"Rar!",
)  # how such files begin
SAVE_WEIGHTS = "save model.state_dict() instead"
LEGACY = 0x1950A86A20F9469CFC6C  # the first object of files that torch wrote before 1.6


@dataclass
class Pickled:
    """The content of a file: its objects, in which tensors are unread views, and how to read them.

    `read` gives the bytes of a storage.
    """

    path: Path
    content: Any
    read: Callable[[Storage], bytes | memoryview]
    storages: dict[str, Tensor] = field(default_factory=dict)

    def tensors(self, named: Mapping[str, Any]) -> dict[str, Tensor]:
        """The tensors among named objects.

        Raises GCNetError if they are not plain numbers, or there are more of them than fits the size of the
        file.
        """
        found = {name: value for name, value in named.items() if isinstance(value, View | Array)}
        for name, value in found.items():
            if isinstance(value, View) and value.storage is None:
                raise GCNetError(
                    f"{self.path}: {name} is sparse, quantised, complex or without values; only plain "
                    "tensors are read"
                )
        check_claims(self.path, [_claim(value) for value in found.values()])
        try:
            return {name: self._tensor(value) for name, value in found.items()}
        except Exception as error:  # a damaged archive can raise almost anything
            raise damaged(self.path, error) from error

    def _tensor(self, value: View | Array) -> Tensor:
        if isinstance(value, Array):
            return _from_array(value)
        storage = value.storage
        assert storage is not None
        assert storage.dtype is not None
        if storage.key not in self.storages:
            data = self.read(storage)
            if len(data) != storage.count * storage.dtype.itemsize:
                raise ValueError(f"storage {storage.key} is not of its size")
            self.storages[storage.key] = _numbers(data, storage.dtype)
        whole = self.storages[storage.key]
        steps = zip(value.size, value.stride, strict=True)
        last = value.offset + sum((size - 1) * stride for size, stride in steps)
        if math.prod(value.size) and last >= len(whole):
            raise ValueError("a tensor reaches beyond its storage")
        return whole.as_strided(value.size, value.stride, value.offset)


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """The library's reader of a file. It takes no path that is not UTF-8, but a handle of such a file."""
    with ExitStack() as stack:
        name = str(path)
        if re.search("[\udc80-\udcff]", name):
            name = f"/dev/fd/{stack.enter_context(open(path, 'rb')).fileno()}"
        yield stack.enter_context(safe_open(name, framework="pt"))


def open_checkpoint(path: Path) -> Pickled:
    """Opens a pickle, or a file that `torch.save` wrote, now or before torch 1.6.

    Raises GCNetError if the file is damaged, or names what cannot be in a file of weights.
    """
    with open(path, "rb") as file:
        if file.read(6).startswith(PACKED):
            raise GCNetError(f"{path} is compressed: unpack it and give what is in it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read_zip(path) if zipfile.is_zipfile(path) else _read_stream(path)
    except RefusedError as error:
        raise GCNetError(f"refused: {path}: {error}") from None
    except GCNetError:
        raise
    except Exception as error:  # a damaged pickle can raise almost anything
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> GCNetError:
    """The message for a file that a library could not read."""
    reason = shown((str(error).splitlines() or [""])[0], 90) or type(error).__name__
    return GCNetError(f"{path} is damaged or not a PyTorch checkpoint ({reason}); get it again")


def check_claims(path: Path, sizes: list[int]) -> None:
    """Raises if the declared tensors have more bytes than fit the size of the file."""
    claimed = sum(sizes)
    if claimed > max(path.stat().st_size, UNBACKED) or len(sizes) > MOST_TENSORS:
        raise GCNetError(
            f"refused: {path} says that it holds {len(sizes)} tensors of {claimed / 1e6:.0f} MB, more than "
            "there is in the file"
        )


def _read_zip(path: Path) -> Pickled:
    archive = zipfile.ZipFile(path)
    parts = {part.filename: part for part in archive.infolist()}
    claimed = sum(part.file_size for part in parts.values())
    if claimed > path.stat().st_size:
        raise GCNetError(
            f"refused: {path} unpacks to {claimed / 1e6:.0f} MB, more than the file has; save it with "
            "torch.save, which does not compress"
        )
    main = next((name for name in parts if name.endswith("data.pkl")), None)
    if main is None:
        raise GCNetError(
            f"{path} is an archive of other files ({listed(list(parts), 3)}): unpack it and give one of them"
        )
    folder = main.removesuffix("data.pkl")
    if any(name.startswith(f"{folder}code/") for name in parts):
        raise GCNetError(f"{path} is a TorchScript program: {SAVE_WEIGHTS}")
    if f"{folder}byteorder" in parts and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("its numbers are in the order of big-endian machines")
    content, _ = load_pickle(io.BytesIO(archive.read(main)))
    return Pickled(path, content, lambda storage: archive.read(f"{folder}data/{storage.key}"))


def _read_stream(path: Path) -> Pickled:
    """A plain pickle, or the old format: five of them, then each storage's count and numbers."""
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    content, _ = load_pickle(data)
    if content != LEGACY:
        return Pickled(path, content, lambda storage: b"")
    for _ in ("version", "machine"):
        load_pickle(data)
    content, storages = load_pickle(data)
    keys, _ = load_pickle(data)
    places, place = {}, data.tell()
    for key in map(str, keys):
        storage = storages[key]
        if storage.dtype is None:
            raise ValueError(f"storage {key} is of no known type")
        length = storage.count * storage.dtype.itemsize
        places[key] = slice(place + 8, place + 8 + length)
        place += 8 + length
    return Pickled(path, content, lambda storage: data[places[storage.key]])


def _claim(value: View | Array) -> int:
    if isinstance(value, Array):
        return len(value.data) if isinstance(value.data, bytes) else 0
    assert value.storage is not None
    assert value.storage.dtype is not None
    return math.prod(value.size) * value.storage.dtype.itemsize


def _from_array(array: Array) -> Tensor:
    data, kind = array.data, array.dtype
    data = data.encode("latin1") if isinstance(data, str) else data  # written by Python 2
    plain = isinstance(kind, DType) and kind.code in NUMBERS and kind.order == "<"
    if not plain or not isinstance(data, bytes) or not isinstance(array.shape, tuple):
        raise ValueError("an array is not of plain numbers")
    found = np.frombuffer(data, kind.code).reshape(array.shape, order="F" if array.fortran else "C")
    return torch.from_numpy(found.copy())


def _numbers(data: bytes | memoryview, dtype: torch.dtype) -> Tensor:
    """A copy of the numbers in some bytes."""
    found = torch.empty(len(data) // dtype.itemsize, dtype=dtype)
    found.view(torch.uint8).numpy()[:] = np.frombuffer(data, np.uint8)
    return found

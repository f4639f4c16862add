"""Reads other people's .pth files without running the code that a pickle can carry."""

from __future__ import annotations

import pickle
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcnet.errors import GCNetError

# What training logs leave in checkpoints and cannot run anything: numpy numbers. Files written with
# numpy 1.x know the constructor under its old address.
_SCALAR = import_module("numpy._core.multiarray").scalar
_HARMLESS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    _SCALAR,
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64", "bool")},
]


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch checkpoint by name: of its `state_dict` if it has one.

    Raises:
        GCNetError: the file is missing or damaged, holds no tensors, or would have to run code to be read.
    """
    path = Path(path)
    if not path.is_file():
        raise GCNetError(f"there is no checkpoint {path}")
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise GCNetError(_refusal(path)) from error
    except Exception as error:  # a damaged pickle can raise almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GCNetError(f"{path} is damaged or not a PyTorch checkpoint ({reason}); get it again") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise GCNetError(f"{path} holds no tensors: it is not a model checkpoint")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _refusal(path: Path) -> str:
    try:
        wanted = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a zip archive: the list cannot be read without unpickling
        wanted = []
    if wanted:
        names = ", ".join(wanted[:5])
        return f"{path} was not opened: it wants to run {names}; take only weights from strangers"
    return f"{path} was not opened: it is damaged, or holds something else than plain weights"

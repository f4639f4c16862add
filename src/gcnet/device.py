"""The device of a model, and how its process reuses memory. torch is imported on first use."""

from __future__ import annotations

import ctypes
from typing import Any

from gcnet.errors import GCNetError
from gcnet.launch import find_launch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Lets the process keep freed memory for later use, and not return it to the system.

    A large map is otherwise memory that the system must first fill with zeros, page by page, whenever a layer
    makes one: a sixth of a training step on a CPU. The process then holds until its end what it needed at
    most. True if it was done; only the C library of most Linux systems can.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another system, or another C library
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def choose_device(device: str) -> str:
    """The device that --device names; each of several processes has a GPU of its own.

    Raises:
        GCNetError: it is not a device's, or of one that is not there.
    """
    import torch

    if device == "auto":
        if not torch.cuda.is_available():
            return "cpu"
        launch, gpus = find_launch(), torch.cuda.device_count()
        return f"cuda:{launch[2] % gpus}" if launch and gpus > 1 else "cuda"
    try:
        wanted = torch.device(device)
        those = torch.get_device_module(wanted)  # there is none of "meta"
    except RuntimeError:
        raise GCNetError(f"--device {device}: no such device; give auto, cpu, cuda or cuda:N") from None
    kind = wanted.type
    if not those.is_available():
        raise GCNetError(f"--device {device}: PyTorch sees no {kind.upper()} device here; use --device cpu")
    if (wanted.index or 0) >= those.device_count():
        raise GCNetError(f"--device {device}: PyTorch sees {those.device_count()}, the first is {kind}:0")
    return device


def on_gpu(tensor: Any) -> bool:
    """Whether to compute with a tensor as suits a GPU; files for other runtimes hold what suits a CPU."""
    import torch

    return tensor.device.type != "cpu" and not torch.compiler.is_exporting()

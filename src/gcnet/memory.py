"""How this process gets its memory."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Lets the process use memory again that it freed, rather than give it back to the system each time.

    A large map is otherwise memory that the system must first fill with zeros, page by page, whenever a layer
    makes one: a sixth of a training step on a CPU. The process then holds until its end what it needed at
    most. True if it was done; only the C library of most Linux systems can.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))

"""Where things are kept between runs: fetched weights, compiled code."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`GCNET_HOME`, else `gcnet` in the XDG cache."""
    home = os.environ.get("GCNET_HOME")
    return Path(home).expanduser() if home else user_cache() / "gcnet"


def user_cache() -> Path:
    """`XDG_CACHE_HOME`, else `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()

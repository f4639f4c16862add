"""Published weights and the folder that keeps them. No torch here: `gcnet models` asks what is at hand."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from gcnet.cache_folder import cache_folder, user_cache
from gcnet.errors import GCNetError


@dataclass(frozen=True)
class Weights:
    """A published file: its address, and the first hex digits of its SHA-256 as the publisher gives them."""

    url: str
    sha256: str

    @property
    def file(self) -> str:
        """The file's name, which stays as published: it names the content."""
        return self.url.rsplit("/", 1)[1]


def store() -> Path:
    """The folder of fetched weights: `weights` in our cache."""
    return cache_folder() / "weights"


def find_cached(weights: Weights) -> Path | None:
    """The file if it is at hand, unread: in our folder, or where torch.hub (and mmdetection) put theirs."""
    return next((path for path in (store() / weights.file, _hub() / weights.file) if path.is_file()), None)


def read_cached(weights: Weights) -> Path | None:
    """The file if it is at hand and whole; None if it has to be fetched.

    It is read through each time: half a second for the largest row, and a file that was copied here by
    hand, or damaged since, is noticed.

    Raises:
        GCNetError: the file in our folder is not the published one. It may be the user's: it stays.
    """
    ours, hub = store() / weights.file, _hub() / weights.file
    if ours.is_file():
        digest = sha256(ours)
        if not digest.startswith(weights.sha256):
            raise GCNetError(
                f"{ours} is not the published file: its SHA-256 begins with {digest[:8]}, not "
                f"{weights.sha256}; delete it, and it is fetched again"
            )
        return ours
    return hub if hub.is_file() and sha256(hub).startswith(weights.sha256) else None


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hub() -> Path:
    home = os.environ.get("TORCH_HOME")
    return (Path(home).expanduser() if home else user_cache() / "torch") / "hub" / "checkpoints"

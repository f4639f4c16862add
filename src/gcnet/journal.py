"""What a long call has done so far, on disk as it is done: whatever ends it, the same call goes on from it.

`unfinished.jsonl` says in its first line of which call, then has a line for each image. A call that comes to
its end removes it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gcnet.errors import GCNetError
from gcnet.files import disk_errors

NAME = "unfinished.jsonl"


class Journal:
    """The journal of a call that writes in `folder`.

    Args:
        call: plain values that all results depend on, by name.
        notes: plain values that the call made up when it first began.

    Attributes:
        done: what an earlier call recorded, by key.
        notes: those of the first call.

    Raises:
        GCNetError: the folder holds what another call has not finished, or cannot be written to.
    """

    def __init__(self, folder: Path, call: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
        self.path = folder / NAME
        self.done: dict[str, Any] = {}
        self.notes = dict(notes)
        header, whole = self._read()
        if header is not None:
            before, self.notes = header["call"], header["notes"]
            if changed := [name for name in {**before, **call} if before.get(name) != call.get(name)]:
                raise GCNetError(
                    f"{folder} holds the unfinished work of another call (its {', '.join(changed)} differs): "
                    f"repeat that one to go on, delete {NAME}, or give another --out"
                )
        with disk_errors(self.path):
            self._file = open(self.path, "ab")  # noqa: SIM115 (closed by `close`)
            self._file.truncate(whole)  # a line that was cut off
            if header is None:
                self._write({"call": dict(call), "notes": self.notes})

    def add(self, key: str, value: Any) -> None:
        """Records what came of an item. Raises GCNetError where the disk does not take it."""
        with disk_errors(self.path):
            self._write([key, value])

    def close(self, *, finished: bool) -> None:
        """Ends the writing; the journal of a finished call goes."""
        with contextlib.suppress(OSError):  # it said so before
            self._file.close()
        if finished:
            self.path.unlink(missing_ok=True)

    def _write(self, value: Any) -> None:
        self._file.write(json.dumps(value, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def _read(self) -> tuple[dict[str, Any] | None, int]:
        """The first line, and how many bytes are whole lines. Lines that are damaged are done again."""
        if not self.path.is_file():
            return None, 0
        header, whole = None, 0
        with open(self.path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                with contextlib.suppress(ValueError, TypeError):
                    value = json.loads(line)
                    if header is not None:
                        key, found = value
                        self.done[key] = found
                    elif isinstance(value, dict) and value.keys() == {"call", "notes"}:
                        header = value
        return header, whole if header is not None else 0

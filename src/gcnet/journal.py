"""The journal of a long call: the result of each item is written at once, so that the same call can continue.

The first line of `unfinished.jsonl` describes the call; each further line is an item. A call that finishes
removes the file, and so does one that was refused. Memory holds only the offset of each item's line.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gcnet.errors import GCNetError
from gcnet.files import disk_errors

NAME = "unfinished.jsonl"


class Journal:
    """The journal of a call that writes in `folder`; a context, which ends with the call.

    Args:
        call: plain values that all results depend on, by name.
        notes: plain values that the call made up when it first began.

    Attributes:
        folder: where it is.
        notes: those of the first call.

    Raises:
        GCNetError: the folder holds what another call has not finished, or cannot be written to.
    """

    def __init__(self, folder: Path, call: Mapping[str, Any], notes: Mapping[str, Any] = {}) -> None:
        self.folder, self.path = folder, folder / NAME
        self.notes = dict(notes)
        header, whole = self._read_header()
        if header is not None:
            before = header["call"]
            changed = [name for name in {**before, **call} if before.get(name) != call.get(name)]
            if not changed:
                self.notes = header["notes"]
            elif next(self.entries(), None) is None:  # it was killed before it had done anything
                header, whole = None, 0
            else:
                raise GCNetError(
                    f"{folder} holds the unfinished work of another call (its {', '.join(changed)} differs): "
                    f"repeat that one to go on, delete {NAME}, or give another --out"
                )
        with disk_errors(self.path):
            # Unbuffered: a line that the disk did not take is not tried again by the next one.
            self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 (closed by `__exit__`)
            self._file.truncate(whole)  # a line that was cut off
            if header is None:
                self._write({"call": dict(call), "notes": self.notes})
        self._reader = open(self.path, "rb")  # noqa: SIM115 (closed by `__exit__`)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Closes the journal; that of a call that ends well, or has recorded nothing, is removed."""
        self._reader.close()
        with contextlib.suppress(OSError):  # the error was raised before
            self._file.close()
        with contextlib.suppress(FileNotFoundError):  # somebody removed it
            if error is None or next(self.entries(), None) is None:
                self.path.unlink()

    def add(self, key: str, value: Any) -> int:
        """Records the result of an item, and returns its offset for `at`.

        Raises GCNetError where the disk does not take it.
        """
        with disk_errors(self.path):
            return self._write([key, value])

    def entries(self) -> Iterator[tuple[int, str, Any]]:
        """Offset, key and value of each recorded item, in order; damaged lines are left out."""
        for place, line in self._lines():
            entry = _value_of(line)
            if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str):
                yield place, entry[0], entry[1]

    def at(self, place: int) -> Any:
        """The value that was recorded at an offset."""
        self._reader.seek(place)
        return json.loads(self._reader.readline())[1]

    def _write(self, value: Any) -> int:
        place = self._file.seek(0, os.SEEK_END)
        rest = memoryview(json.dumps(value, allow_nan=False).encode() + b"\n")
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(place)
            raise
        return place

    def _read_header(self) -> tuple[dict[str, Any] | None, int]:
        """The line that names the call, and how many bytes are whole lines."""
        header, whole = None, 0
        for place, line in self._lines():
            if header is None and isinstance(value := _value_of(line), dict):
                header = value if value.keys() == {"call", "notes"} else None
            whole = place + len(line)
        return header, whole if header is not None else 0

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that were not cut off, each with its offset; none if there is no file."""
        place = 0
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield place, line
                    place += len(line)


def _value_of(line: bytes) -> Any:
    """The value of a line; None of a damaged one."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(line)

"""What is recorded is there again, whatever ended the call."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

import pytest

from gcnet.errors import GCNetError
from gcnet.files import DiskFullError
from gcnet.journal import NAME, Journal

CALL = {"model": "m"}


def test_entries_come_back_in_order_and_by_place(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), Journal(tmp_path, CALL, {"a": 1}) as journal:
        places = [journal.add(key, {"n": key}) for key in ("x", "ü", "x")]
        raise KeyboardInterrupt
    with open(tmp_path / NAME, "a") as file:
        file.write('{"damaged": 1}\nnothing\n["cut off"')
    with Journal(tmp_path, CALL, {"a": 2}) as again:
        assert again.notes == {"a": 1}
        assert list(again.entries()) == [
            (place, key, {"n": key}) for place, key in zip(places, "xüx", strict=True)
        ]
        assert again.at(again.add("y", 5)) == 5
        assert again.at(places[1]) == {"n": "ü"}
    assert not (tmp_path / NAME).exists()


def test_another_call_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path, CALL) as journal:
        journal.add("x", 1)
        with pytest.raises(GCNetError, match=r"another call \(its model differs\)"):
            Journal(tmp_path, {"model": "n"})


def test_a_call_that_was_killed_before_its_first_entry_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"call": {"model": "m"}, "notes": {"a": 1}}\n["cut off"')
    with suppress(KeyboardInterrupt), Journal(tmp_path, {"model": "n"}, {"a": 2}) as journal:
        journal.add("x", 1)
        raise KeyboardInterrupt
    with Journal(tmp_path, {"model": "n"}) as again:
        assert again.notes == {"a": 2}
        assert [(key, value) for _, key, value in again.entries()] == [("x", 1)]


def test_a_line_that_the_disk_does_not_take_leaves_nothing(tmp_path: Path) -> None:
    written: list[memoryview] = []

    class Full:
        def write(self, data: memoryview) -> int:
            if written:
                raise OSError(errno.ENOSPC, "no space")
            written.append(data)
            return file.write(data[:4])

        def __getattr__(self, name: str) -> object:
            return getattr(file, name)

    with Journal(tmp_path, CALL) as journal:
        journal.add("x", 1)
        file, journal._file = journal._file, Full()  # type: ignore[assignment]
        with pytest.raises(DiskFullError, match="no space"):
            journal.add("y", 2)
        journal._file = file
        journal.add("z", 3)
        assert [(key, value) for _, key, value in journal.entries()] == [("x", 1), ("z", 3)]

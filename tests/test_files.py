from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from gcnet.errors import GCNetError
from gcnet.files import check_writable, prepare_folder, write_atomically, write_bytes, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_json(path, [{"a": 1}, {"a": 2}])
    assert path.read_text() == '[\n{"a": 1},\n{"a": 2}\n]\n'

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(GCNetError, match=r"cannot write .*x\.json: No space left"):
        write_bytes(path, b"new")
    assert json.loads(path.read_text()) == [{"a": 1}, {"a": 2}]
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_prepare_folder_makes_it_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert not list(folder.iterdir())


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file: object) -> None:
        file.write(b"new, in p")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_bytes(tmp_path / "file", b"text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_check_writable_makes_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())

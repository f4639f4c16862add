from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gcnet import files
from gcnet.errors import GCNetError
from gcnet.files import (
    alone_in,
    check_file,
    check_handles,
    check_writable,
    draft_folder,
    prepare_folder,
    remove_leftovers,
    write_atomically,
    write_bytes,
    write_json,
)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_json(path, [{"a": 1}, {"a": 2}])
    assert path.read_text() == '[\n{"a": 1},\n{"a": 2}\n]\n'

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(GCNetError, match=r"cannot write .*x\.json: No space left"):
        write_bytes(path, b"new")
    with pytest.raises(OSError) as caught:  # noqa: PT011
        write_atomically(path, lambda file: file.write(b"new"))
    assert caught.value.filename == str(path)
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


def test_a_pipe_is_written_into_and_stays(tmp_path: Path) -> None:
    """A file beside it would be renamed onto it: /dev/null, for one who may, would be gone."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_json(path, {"a": 1})
        assert json.loads(os.read(reader, 100)) == {"a": 1}
        assert path.is_fifo()
    finally:
        os.close(reader)
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, lambda file: file.write(b""))


def test_errors_name_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(missing, lambda file: file.write(b""))
    assert caught.value.filename == str(missing)
    with pytest.raises(OSError, match="too long") as caught:  # the temporary one's is not
        write_atomically(tmp_path / ("x" * 300), lambda file: file.write(b""))
    assert caught.value.filename == str(tmp_path / ("x" * 300))


def test_a_full_disk_is_named_through_torch(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # the system then refuses longer files
    try:
        with pytest.raises(OSError, match="too large") as caught:
            write_atomically(tmp_path / "x", lambda file: torch.save({"a": torch.zeros(9999)}, file))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert not os.listdir(tmp_path)


def test_a_name_as_long_as_the_system_allows(tmp_path: Path) -> None:
    for name in ("x" * 255, "ä" * 127):
        write_bytes(tmp_path / name, b"text")
        assert (tmp_path / name).read_bytes() == b"text"


def test_a_file_system_without_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("os.fsync", refuse)
    write_bytes(tmp_path / "file", b"text")
    assert os.listdir(tmp_path) == ["file"]


def test_a_system_that_does_not_open_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.open

    def windows(path: object, flags: int, *rest: int) -> int:
        if os.path.isdir(str(path)):
            raise PermissionError(errno.EACCES, "Permission denied")
        return plain(path, flags, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("os.open", windows)
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files, "resource", None)
    check_handles()
    with alone_in(tmp_path):
        write_bytes(tmp_path / "file", b"text")
    assert (tmp_path / "file").read_bytes() == b"text"


def test_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOADERS_END", 0.3)
    with alone_in(tmp_path), pytest.raises(GCNetError, match="another run is writing"), alone_in(tmp_path):
        pass
    for name in (".a.json.4711.part", ".a.jsonl.4712.part", ".mine.part"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "a.json")  # that of a command that was killed
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.jsonl.4712.part", ".mine.part"]
    with alone_in(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".mine.part"]


KILLED = """
import os, signal, sys
from pathlib import Path
from gcnet.files import draft_folder
with draft_folder(Path(sys.argv[1])) as folder:
    (folder / "model.onnx").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_drafts_of_killed_commands_are_removed_and_those_of_others_stay(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "model.onnx").exists()
    with draft_folder(tmp_path) as first, draft_folder(tmp_path) as second:
        assert set(tmp_path.iterdir()) == {first, second}
    assert not list(tmp_path.iterdir())


def test_a_system_with_few_file_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda kind: (20, 40))
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    with pytest.raises(GCNetError, match="only 40 files may be open"):
        check_handles()


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_bytes(tmp_path / "file", b"text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_check_writable_makes_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    check_file(tmp_path / "a" / "b.onnx")
    assert not list(tmp_path.iterdir())
    with pytest.raises(GCNetError, match="is a folder; give the name of a file"):
        check_file(tmp_path)

"""Other people's checkpoints: read if they hold weights, refused if they want to run code."""

from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from gcnet.errors import GCNetError
from gcnet.zoo.checkpoint_files import read_checkpoint

WEIGHTS = {"a.weight": torch.arange(3.0), "b": torch.tensor(1)}


class Attack:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_weights_are_found(wrapped: bool, legacy: bool, tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    content = (
        {"state_dict": WEIGHTS, "meta": {"epoch": 12}, "optimizer": {"state": {}}} if wrapped else WEIGHTS
    )
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    tensors = read_checkpoint(file)
    assert tensors.keys() == WEIGHTS.keys()
    assert all(torch.equal(tensors[name], WEIGHTS[name]) for name in WEIGHTS)


def test_what_logs_leave_behind_is_tolerated(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    meta = {
        "lr": np.float64(0.02),
        "loss": np.float32(1.5),
        "iter": np.int64(7),
        "done": np.bool_(True),
        "CLASSES": ("person", "bicycle"),
        "hooks": collections.OrderedDict(a=1),
    }
    torch.save({"meta": meta, "state_dict": collections.OrderedDict(WEIGHTS)}, file)
    assert read_checkpoint(file).keys() == WEIGHTS.keys()


def test_numpy_numbers_of_old_files_are_tolerated(tmp_path: Path) -> None:
    """Files written with numpy 1.x call the constructor by its old address."""
    file = tmp_path / "x.pth"
    torch.save({"meta": np.float64(0.02), "state_dict": WEIGHTS}, file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    assert b"numpy._core.multiarray" in content
    # The old format is a plain pickle whose names end in a newline, so they may change length.
    file.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_checkpoint(file).keys() == WEIGHTS.keys()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
def test_code_is_refused_and_not_run(legacy: bool, tmp_path: Path) -> None:
    file, marker = tmp_path / "x.pth", tmp_path / "marker"
    content = {"state_dict": WEIGHTS, "meta": Attack(marker)}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(GCNetError, match="was not opened") as raised:
        read_checkpoint(file)
    assert not marker.exists()
    assert "\n" not in str(raised.value)
    if not legacy:
        assert "mkdir" in str(raised.value)
    torch.load(file, weights_only=False)  # the file is what it seems: a careless reader is had
    assert marker.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_bare_pickle_with_code_is_refused(tmp_path: Path) -> None:
    file, marker = tmp_path / "x.pth", tmp_path / "marker"
    file.write_bytes(pickle.dumps(Attack(marker)))
    with pytest.raises(GCNetError):
        read_checkpoint(file)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", b"PK\x03\x04 cut off", b"\x80\x02}", b"<html>404</html>"],
    ids=["empty", "text", "zip", "pickle", "web page"],
)
def test_what_is_not_a_checkpoint(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(content)
    with pytest.raises(GCNetError, match=r"x\.pth") as raised:
        read_checkpoint(file)
    assert "\n" not in str(raised.value)


def test_cut_off_download(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    torch.save({"state_dict": {"w": torch.zeros(1000)}}, file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(GCNetError, match="damaged"):
        read_checkpoint(file)


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, [torch.zeros(1)], torch.zeros(1), {"a": 1}])
def test_no_tensors_by_name(content: object, tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    torch.save(content, file)
    with pytest.raises(GCNetError, match="holds no tensors"):
        read_checkpoint(file)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "x.pth")
    with pytest.raises(GCNetError, match="there is no checkpoint"):
        read_checkpoint(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
def test_flipped_bytes_end_in_one_kind_of_error(legacy: bool, tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    torch.save(
        {"state_dict": WEIGHTS, "meta": {"a": [1.0, "x"]}}, file, _use_new_zipfile_serialization=not legacy
    )
    whole, generator = bytearray(file.read_bytes()), np.random.default_rng(0)
    messages = []
    for _ in range(150):
        damaged = whole.copy()
        for place in generator.integers(0, len(whole), 8):
            damaged[place] = generator.integers(256)
        file.write_bytes(damaged)
        try:
            read_checkpoint(file)
        except GCNetError as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert not any("\n" in message for message in messages)

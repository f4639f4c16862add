"""`gcnet convert`: the file is whole or not there. What is in it: tests/weights/test_open.py."""

from __future__ import annotations

import errno

from gcnet.cli import main
from gcnet.weights.create import create_model
from gcnet.weights.files import save_model

TINY = "mask_rcnn_tiny_gc4"


def test_convert_onto_a_full_disk_and_by_name(tmp_path, monkeypatch, capsys):
    source = tmp_path / "ours.safetensors"
    save_model(create_model(TINY, num_classes=2), source)
    wrong = ["convert", str(source), str(tmp_path / "x.safetensors"), "--model", "mask_rcnn_tiny"]
    assert main(wrong) == 2
    assert "does not fit this model" in capsys.readouterr().err
    assert main(["convert", str(source), str(tmp_path / "x.pth")]) == 2
    assert "SOMETHING.safetensors" in capsys.readouterr().err

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["convert", str(source), str(tmp_path / "y.safetensors")]) == 2
    assert capsys.readouterr().err == "gcnet: error: No space left on device; free space\n"
    assert [path.name for path in tmp_path.iterdir()] == ["ours.safetensors"]


def test_the_folder_is_made(tmp_path):
    source, out = tmp_path / "ours.safetensors", tmp_path / "new" / "folder" / "x.safetensors"
    save_model(create_model(TINY, num_classes=2), source)
    assert main(["convert", str(source), str(out)]) == 0
    assert out.is_file()

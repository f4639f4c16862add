"""`gcnet convert`: the file is whole or not there. What is in it: tests/weights/test_open.py."""

from __future__ import annotations

import errno

import torch

from gcnet.cli import main
from gcnet.weights.create import create_model
from gcnet.weights.files import save_model
from gcnet.weights.mmdet_keys import mmdet_key

TINY = "mask_rcnn_tiny_gc4"


def test_convert_onto_a_full_disk_and_by_name(tmp_path, monkeypatch, capsys):
    source = tmp_path / "ours.safetensors"
    save_model(create_model(TINY, num_classes=2), source)
    wrong = ["convert", str(source), str(tmp_path / "x.safetensors"), "--model", "mask_rcnn_tiny"]
    assert main(wrong) == 2
    assert "does not fit this model" in capsys.readouterr().err
    told = ["--style", "caffe", "--image-size", "64", "96"]
    assert main(["convert", str(source), str(tmp_path / "x.safetensors"), *told]) == 2
    assert "which says what it is: leave out --config, --style" in capsys.readouterr().err
    assert main(["convert", str(source), str(tmp_path / "x.pth")]) == 2
    assert "SOMETHING.safetensors" in capsys.readouterr().err

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["convert", str(source), str(tmp_path / "y.safetensors")]) == 2
    line = f"gcnet: error: No space left on device: {tmp_path / 'y.safetensors'}; free space\n"
    assert capsys.readouterr().err == line
    assert [path.name for path in tmp_path.iterdir()] == ["ours.safetensors"]


def test_the_folder_is_made(tmp_path):
    source, out = tmp_path / "ours.safetensors", tmp_path / "new" / "folder" / "x.safetensors"
    save_model(create_model(TINY, num_classes=2), source)
    assert main(["convert", str(source), str(out)]) == 0
    assert out.is_file()


def test_what_was_found_is_said_part_by_part_with_where_it_comes_from(tmp_path, capsys):
    detector = create_model(TINY, num_classes=2)
    file, config = tmp_path / "mine.pth", tmp_path / "mine.py"
    tensors = {mmdet_key(key): tensor for key, tensor in detector.state_dict().items()}
    torch.save({"state_dict": tensors, "meta": {"CLASSES": ("nut", "bolt")}}, file)
    config.write_text(
        "img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)\n"
        "anchor_generator = dict(scales=[4], ratios=[0.2, 1.0, 5.0])\n"
    )
    out = tmp_path / "x.safetensors"
    options = ["--config", str(config), "--style", "caffe", "--image-size", "320", "512"]
    assert main(["convert", str(file), str(out), *options]) == 0
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines()[1:8])
    assert list(lines) == ["backbone", "context", "neck", "anchors", "heads", "classes", "images"]
    assert "ResNet-14 (shapes); style caffe (option); norm " in lines["backbone"]
    assert "gc ratio 1/4" in lines["context"]
    assert "in c3, c4, c5" in lines["context"]
    assert "scale 4, ratios 0.2 1 5 (option); strides 4 8 16 32 64 (assumed)" in lines["anchors"]
    assert "1 stage" in lines["heads"]
    assert "masks for each class (shapes)" in lines["heads"]
    assert lines["classes"] == "  2: nut, bolt (file)"
    assert "size 512 x 320, mean 123.675 116.28 103.53, deviation 1 1 1 (option)" in lines["images"]
    assert lines["images"].endswith("channels RGB (option: BGR, turned into RGB)")

    assert main(["convert", str(out), str(tmp_path / "again.safetensors")]) == 0
    again = capsys.readouterr().out.splitlines()[1:8]
    assert dict(line.split(":", 1) for line in again) == lines  # the file keeps where its facts come from

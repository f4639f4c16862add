from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gcnet.cli import main


@pytest.mark.parametrize("format", ["coco", "yolo"])
def test_a_set_is_written_and_looked_at_again(
    format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((60, 80, 3), 99, np.uint8))
        (tmp_path / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "classes.txt").write_text("cup\n")
    out = tmp_path / "out"
    assert main(["data", "convert", str(tmp_path), str(out), "--to", format, "--val-fraction", "0.3"]) == 0
    assert "2 images of train, 1 images of valid" in capsys.readouterr().out
    assert len(list(out.rglob("*.png"))) == 3
    assert main(["data", "convert", str(out), str(tmp_path / "again"), "--to", "yolo"]) == 0
    assert len(list((tmp_path / "again" / "labels").rglob("*.txt"))) == 3


def test_convert_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convert", str(tmp_path / "absent"), str(tmp_path / "out"), "--to", "coco"]) == 2
    assert "absent does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

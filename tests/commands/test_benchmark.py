"""`gcnet benchmark`: its options. What is measured: tests/benchmark."""

from __future__ import annotations

import pytest

from gcnet.cli import main


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--size 800", "multiples of 32"),
        ("--size 800x1210", "multiples of 32"),
        ("mask_rcnn_r5", "did you mean"),
        ("--repeats 0", "give 1 or more"),
        ("mask_rcnn_tiny --train --precision bf16", "are of inference"),
        ("mask_rcnn_tiny --device tpu", "--device tpu"),
    ],
)
def test_mistakes_are_one_line(words, expected, capsys):
    assert main(["benchmark", *words.split()]) == 2
    assert expected in capsys.readouterr().err

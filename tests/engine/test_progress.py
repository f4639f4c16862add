"""What the user sees while a run goes on."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

from gcnet.engine.progress import ProgressLine, memory_gb

CPU = torch.device("cpu")


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=140)


def test_a_log_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine(100, 0, 10, console(terminal=False))
    for i in range(100):
        line.update(i + 1, {"loss_cls": 1.0, "loss": 2.0}, 0.02, CPU)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2  # the first and the last: the rest came within half a minute
    assert lines[0].startswith("iteration 1/100 epoch 1 | loss 2.000 cls 1.000 | lr 0.02 |")
    assert "left" in lines[0]
    assert lines[1].startswith("iteration 100/100 epoch 10 |")


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = console(terminal=True)
    line = ProgressLine(10, 4, 5, terminal)
    for i in range(4, 10):
        line.update(i + 1, {"loss": float(i)}, 1e-4, CPU)
        if i == 6:
            line.pause()  # as for a validation
            line.resume()
    line.pause()
    assert isinstance(terminal.file, io.StringIO)
    shown = terminal.file.getvalue()
    assert " 7/10" in shown
    assert "10/10" in shown
    assert capsys.readouterr().out == ""


def test_memory_is_plausible() -> None:
    assert 0.05 < memory_gb(CPU) < 500

"""The harness sees every kind of harm, or fuzzing would find nothing for the wrong reason."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

import numpy as np
import pytest
from harness import attempt

from gcnet.errors import GCNetError


def refuse(*lines: str) -> None:
    raise GCNetError("\n".join(lines))


def say(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (lambda: None, "ok"),
        (lambda: say("gcnet: two objects left out", 0), "ok"),
        (lambda: logging.getLogger("gcnet").warning("left out"), "ok"),
        (lambda: refuse("data.json: broken; mend it"), "one line"),
        (lambda: say("gcnet: error: data.json: broken; mend it", 2), "one line"),
        (lambda: say("this is no line of ours", 2), "bad line"),
        (lambda: say("gcnet: error: one\ngcnet: error: two", 2), "bad line"),
        (lambda: say(f"gcnet: error: {'x' * 400}", 2), "bad line"),
        (lambda: say("gcnet: \x1b[31mred", 0), "bad line"),
        (lambda: refuse("one\n", "\x1b[31mtwo" * 99), "one line"),
        (lambda: logging.getLogger("gcnet").warning("\x1b[31mred"), "ok"),
        (lambda: [][0], "traceback"),
        (lambda: sys.exit("no number"), "traceback"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "signal"),
        (lambda: np.ones(1 << 30, np.uint8), "too big"),
        (lambda: np.zeros(1 << 40, np.uint8), "too big"),
        (lambda: time.sleep(30), "too slow"),
        (lambda: any(iter(int, 1)), "too slow"),
    ],
)
def test_every_outcome_is_told_apart(work, kind):
    assert attempt(work, memory=200 << 20, seconds=1.0).kind == kind

"""Freed memory is used again, and devices that are not there are named."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from gcnet.device import choose_device
from gcnet.errors import GCNetError

FAULTS = """
import resource, sys
from gcnet.device import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    bytearray(2**26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_buffer_is_given_the_pages_of_the_one_before() -> None:
    faults = [
        int(subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, check=True).stdout)
        for word in ("leave", "keep")
    ]
    assert faults[1] < faults[0] / 3


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    for word, reason in (
        ("cuda:1", "sees no CUDA device"),
        ("mps", "sees no MPS device"),
        ("gpu", "no such device"),
        ("meta", "no such device"),
        ("cuda:x", "no such device"),
        ("hip", "no such device"),
    ):
        with pytest.raises(GCNetError, match=reason):
            choose_device(word)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == "cuda"
    assert choose_device("cuda:1") == "cuda:1"
    with pytest.raises(GCNetError, match="sees 2, the first is cuda:0"):
        choose_device("cuda:2")

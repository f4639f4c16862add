"""Freed memory is used again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from gcnet.memory import keep_freed_memory
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

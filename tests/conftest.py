"""Under pytest every function of gcnet checks its arguments: shapes by jaxtyping, types by beartype."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

# Before torch is imported: with two test processes on two cores, more threads only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# An int is welcome where a float is expected, as PEP 484 says and type checkers accept.
install_import_hook("gcnet", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
sys.path.insert(0, str(Path(__file__).parent))  # to `lively`

# The same examples in every run: others are for `make fuzz`.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")

# A shell starts what runs in its background with Ctrl-C ignored, nohup with SIGHUP, and tests send both.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is taken from a person's cache, nor left there."""
    os.environ["GCNET_HOME"] = str(tmp_path_factory.mktemp("cache"))

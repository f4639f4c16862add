"""Lets the tests here import `harness` and the kinds of inputs beside it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

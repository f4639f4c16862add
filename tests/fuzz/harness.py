"""Reads hostile inputs, each in a process of its own, and says what came of them.

    python tests/fuzz/harness.py [KIND ...] [--count N] [--seed S] [--keep DIR]

KIND is a module beside this one, with two functions:

    write(chance: random.Random, folder: Path) -> Path   makes one input in an empty folder
    read(path: Path) -> object   does with it what gcnet does; returns, or raises GCNetError

Input number k of a seed is always the same. `--keep` keeps the inputs that did harm; what was mended stays in
`corpus/KIND/`, which `test_corpus.py` reads.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import logging
import math
import mmap
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from gcnet.cli import set_up_output
from gcnet.console import one_line
from gcnet.errors import GCNetError

MEMORY = 1 << 30  # bytes beyond what the process had before
SECONDS = 20.0  # of a processor: a busy machine does no harm
WAITED = 3  # times that, for what waits
LONGEST = 300  # characters of a line
CORPUS = Path(__file__).parent / "corpus"
GOOD = ("ok", "one line")
KINDS = ("annotations", "checkpoints", "datasets", "pictures", "recipes")  # modules beside this one


class Kind(Protocol):
    """A module with a generator of inputs and what reads them."""

    def write(self, chance: random.Random, folder: Path) -> Path: ...

    def read(self, path: Path) -> object: ...


@dataclass(frozen=True)
class Outcome:
    """What came of an input.

    `kind` is ok (it was read), one line (refused with one), bad line (with several, with a long one, or one
    with control characters), traceback, signal, too big or too slow. `said` is all that was printed.
    """

    kind: str
    said: str
    seconds: float  # of a processor
    megabytes: float  # that it took at most

    @property
    def good(self) -> bool:
        return self.kind in GOOD


def attempt(work: Callable[[], Any], *, memory: int = MEMORY, seconds: float = SECONDS) -> Outcome:
    """Does `work` in a fork of this process, within `memory` bytes and `seconds` of a processor.

    What it has imported is there already, so an input takes milliseconds. An exit code that `work` returns is
    taken as that of the command line: 2 stands for one line on stderr.
    """
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        shared = mmap.mmap(-1, 8)  # what the child has at first: less than this process, whose files it lacks
        child = os.fork()
        if child == 0:
            shared[:] = _resident().to_bytes(8, "little")
            _work(work, output.fileno(), memory, seconds)
        ended = status = 0
        usage = None
        while not ended:
            ended, status, usage = os.wait4(child, os.WNOHANG)
            if ended:
                break
            if time.monotonic() - began > WAITED * seconds:
                os.killpg(child, signal.SIGKILL)
                os.wait4(child, 0)
                output.seek(0)
                return Outcome("too slow", _text(output.read()), seconds, 0.0)
            time.sleep(0.002)
        took = usage.ru_utime + usage.ru_stime if usage else 0.0
        output.seek(0)
        said = _text(output.read())
    peak = max(usage.ru_maxrss * 1024 - int.from_bytes(shared[:], "little"), 0) if usage else 0
    return Outcome(_kind(status, said, peak, memory), said, took, peak / 2**20)


def _work(work: Callable[[], Any], output: int, memory: int, seconds: float) -> None:
    """The child: never returns."""
    code = 3
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # pytest has others
        logging.root.handlers.clear()
        faulthandler.disable()
        set_up_output()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds)))
        limit = _virtual() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            returned = work()
            code = returned if isinstance(returned, int) else 0
        except GCNetError as error:
            print(f"gcnet: error: {one_line(str(error))}", file=sys.stderr)
            code = 2
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 3
    except MemoryError:
        code = 4
        traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _kind(status: int, said: str, peak: int, memory: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == 4 or peak > memory:
        return "too big"
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "too slow"
    if code < 0:
        return "signal"
    if code not in (0, 1, 2) or "Traceback (most recent call last)" in said:
        return "traceback"
    lines = said.split("\n")
    errors = [line for line in lines if line.startswith("gcnet: error: ")]
    if any(len(line) > LONGEST or not line.isprintable() for line in lines):
        return "bad line"
    if code == 2 and (len(errors) != 1 or lines[-2:] != [errors[0], ""]):
        return "bad line"
    return "one line" if code == 2 else "ok"


def _text(said: bytes) -> str:
    return said.decode("utf-8", "backslashreplace")


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def fuzz(kind: Kind, count: int, seed: int, *, keep: Path | None = None) -> Iterator[Outcome]:
    """Writes and reads `count` inputs; those that did harm are kept in the folder `keep`."""
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder:
            path = kind.write(random.Random(f"{seed}-{number}"), Path(folder))
            outcome = attempt(partial(kind.read, path))
            if keep is not None and not outcome.good:
                _keep(path, keep / f"{seed}-{number}-{outcome.kind.replace(' ', '-')}", outcome)
        yield outcome


def _keep(path: Path, target: Path, outcome: Outcome) -> None:
    target.mkdir(parents=True, exist_ok=True)
    (target / "said.txt").write_text(outcome.said, encoding="utf-8")
    if path.is_dir():
        with contextlib.suppress(shutil.Error):  # a pipe; the rest is copied
            shutil.copytree(path, target / path.name, symlinks=True)
    elif path.is_file():
        shutil.copy(path, target / path.name)


def main() -> int:
    """Fuzzes the kinds, prints how many inputs came to what, and what was said of each that did harm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=KINDS)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    harm = 0
    for name in options.kinds:
        keep = options.keep and options.keep / name
        counts: Counter[str] = Counter()
        slowest = biggest = 0.0
        outcomes = fuzz(importlib.import_module(name), options.count, options.seed, keep=keep)
        for number, outcome in enumerate(outcomes):
            counts[outcome.kind] += 1
            slowest, biggest = max(slowest, outcome.seconds), max(biggest, outcome.megabytes)
            if not outcome.good:
                harm += 1
                print(f"{name} {number}: {outcome.kind}: {outcome.said.strip()[-400:]}", flush=True)
        found = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        print(f"{name}: {options.count} inputs of seed {options.seed}: {found}; ", end="")
        print(f"at most {slowest:.1f} s and {biggest:.0f} MB", flush=True)
    return 1 if harm else 0


if __name__ == "__main__":
    sys.exit(main())

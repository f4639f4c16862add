"""Many runs, some at a time, each in its own process; what one of them meets, the others do not feel."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from gcnet.lab.ablation.run import iterations_done, work
from gcnet.lab.ablation.study import Run

POLL = 0.5  # seconds between looks at the processes


@runtime_checkable
class Job(Protocol):
    """A process that makes a run."""

    def poll(self) -> int | None:
        """Its exit code, None while it is at work."""
        ...

    def stop(self) -> None:
        """Asks it to end in good order."""
        ...

    def kill(self) -> None:
        """Ends it at once."""
        ...


class ProcessJob:
    """A run in a process of its own, on `threads` threads.

    Where the system allows, processes are forked from one server that has imported all there is to import,
    which takes longer than some runs do.
    """

    def __init__(self, run: Run, *, threads: int) -> None:
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            context.set_forkserver_preload(["gcnet.lab.ablation.run"])
        # The process ends when our end of the pipe is closed, by `stop` or because we are gone.
        theirs, self._ours = context.Pipe(duplex=False)
        self._process = context.Process(target=work, args=(run.folder, theirs, threads))
        self._process.start()
        theirs.close()

    def poll(self) -> int | None:
        return self._process.exitcode

    def stop(self) -> None:
        self._ours.close()

    def kill(self) -> None:
        self._process.kill()


@dataclass
class Outcome:
    """Which of the runs came to an end, and why others did not."""

    finished: list[Run] = field(default_factory=list)
    failed: list[tuple[Run, str]] = field(default_factory=list)


def make_runs(
    runs: Sequence[Run],
    *,
    jobs: int = 1,
    iterations: int | None = None,
    start: Callable[[Run], Job] | None = None,
    console: Console | None = None,
    poll: float = POLL,
) -> Outcome:
    """Makes the runs that have no result yet, `jobs` at a time, in their order.

    A run that fails is left behind and told about; the others go on. `iterations` is the length of a run,
    for the display; `start` starts a process for a run.

    Raises:
        KeyboardInterrupt: Ctrl-C. The processes were asked to keep their state, and have ended; a second
            Ctrl-C kills them.
    """
    start = start or (lambda run: ProcessJob(run, threads=thread_count()))
    display = _Display(len(runs), jobs, iterations, console or Console(stderr=True))
    outcome = Outcome(finished=[run for run in runs if run.result is not None])
    waiting = [run for run in runs if run.result is None]
    if outcome.finished:
        print(f"{len(outcome.finished)} of {len(runs)} runs are there already", flush=True)
    active: list[tuple[Run, Job]] = []
    try:
        with display:
            while waiting or active:
                while waiting and len(active) < jobs:
                    active.append((waiting[0], start(waiting[0])))
                    display.started(waiting.pop(0))
                codes = [(run, job, job.poll()) for run, job in active]
                active = [(run, job) for run, job, code in codes if code is None]
                ended = [(run, code) for run, _, code in codes if code is not None]
                for run, code in ended:
                    _settle(run, code, outcome)
                    display.ended(run, outcome, left=len(waiting) + len(active))
                display.show([run for run, _ in active], left=len(waiting) + len(active))
                if not ended:
                    time.sleep(poll)
    except BaseException:
        _stop([job for _, job in active], poll)
        raise
    return outcome


def thread_count() -> int:
    """Threads of a run: OMP_NUM_THREADS or one, whatever the machine, for equal numbers everywhere."""
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def _settle(run: Run, code: int, outcome: Outcome) -> None:
    if code == 0 and run.result is not None:
        outcome.finished.append(run)
    else:
        outcome.failed.append((run, _last_words(run.folder / "log.txt") or f"exit code {code}"))


def _last_words(log: Path) -> str:
    """The last line of a log, without our own preamble to errors."""
    with contextlib.suppress(OSError):
        lines = log.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("gcnet: error: ") if lines else ""
    return ""


def _stop(jobs: Sequence[Job], poll: float) -> None:
    """Lets the processes keep their state and waits for them; impatience kills them."""
    try:
        if jobs:
            print("stopping: each run ends its iteration and is kept (Ctrl-C again: at once)", flush=True)
        for job in jobs:
            job.stop()
        while any(job.poll() is None for job in jobs):
            time.sleep(poll)
    except KeyboardInterrupt:
        for job in jobs:
            job.kill()
        raise


class _Display:
    """A line for each run that ends, and on a terminal a bar with what is under way."""

    def __init__(self, total: int, jobs: int, iterations: int | None, console: Console) -> None:
        self._total, self._jobs, self._iterations = total, jobs, iterations
        self._began: dict[Path, float] = {}
        self._seconds: list[float] = []
        columns = (TextColumn("runs"), MofNCompleteColumn(), BarColumn(12), TextColumn("{task.description}"))
        self._bar = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=True
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> None:
        self._bar.start()

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, run: Run) -> None:
        self._began[run.folder] = time.monotonic()

    def ended(self, run: Run, outcome: Outcome, *, left: int) -> None:
        seconds = time.monotonic() - self._began[run.folder]
        done = self._total - left
        result = run.result
        if result is None:
            print(f"{run.label}: failed: {outcome.failed[-1][1]} ({run.folder / 'log.txt'})", flush=True)
            return
        self._seconds.append(seconds)
        rest = sum(self._seconds) / len(self._seconds) * -(-left // self._jobs) / 60
        scores = f"box AP {result['box_AP']:.3f}, AP50 {result['box_AP50']:.3f}"
        where = f"{done} of {self._total}" + (f", about {rest:.0f} min left" if left else "")
        print(f"{run.label}: {scores}; {seconds / 60:.1f} min ({where})", flush=True)

    def show(self, active: Sequence[Run], *, left: int) -> None:
        if self._bar.disable:
            return
        of = f"/{self._iterations}" if self._iterations else ""
        text = "; ".join(f"{run.label} {iterations_done(run.folder)}{of}" for run in active)
        self._bar.update(self._task, completed=self._total - left, description=text)

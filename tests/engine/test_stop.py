"""What a signal does in a command."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from gcnet.cli import main
from gcnet.commands import models
from gcnet.engine.stop import ended_by_signals

BOTH = [signal.SIGHUP, signal.SIGTERM]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Who starts the tests may ignore signals; the terminal is theirs."""
    monkeypatch.setattr("gcnet.engine.stop._leave_terminal", lambda: None)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in BOTH}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", BOTH)
def test_a_command_ends_in_good_order(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    done: list[str] = []

    def run(words: list[str]) -> int:
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGHUP)  # the shell's, after the terminal's
            done.append("files are whole")
        return 0

    monkeypatch.setattr(models, "run", run)
    with pytest.raises(SystemExit) as caught:
        main(["models"])
    assert (caught.value.code, done) == (128 + number, ["files are whole"])
    assert [signal.getsignal(one) for one in BOTH] == [signal.SIG_DFL] * 2


def test_what_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    with ended_by_signals():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_who_takes_sigterm_takes_sighup() -> None:
    taken: list[int] = []
    with ended_by_signals():
        signal.signal(signal.SIGTERM, lambda number, _: taken.append(number))
        os.kill(os.getpid(), signal.SIGHUP)
    assert taken == [signal.SIGHUP]


def test_an_error_after_a_signal_that_somebody_caught_is_its_end() -> None:
    """As in an import, whose module then lacks a part."""

    def caught_and_failed() -> None:
        with contextlib.suppress(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
        raise RecursionError

    with pytest.raises(SystemExit) as caught, ended_by_signals():
        caught_and_failed()
    assert caught.value.code == 128 + signal.SIGTERM

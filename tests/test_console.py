"""What commands say: lists, suggestions and progress."""

from __future__ import annotations

import pytest

from gcnet.console import did_you_mean, listed, progress_bar


@pytest.mark.parametrize(
    ("words", "text"),
    [("", ""), ("a", "a"), ("ab", "a, b"), ("abc", "a, b and 1 more"), ("abcde", "a, b and 3 more")],
)
def test_long_lists_are_cut_short(words: str, text: str) -> None:
    assert listed(list(words), 2) == text


def test_the_nearest_known_word_is_suggested() -> None:
    known = ("train", "predict", "benchmark")
    assert did_you_mean("trian", known) == 'did you mean "train"?'
    assert did_you_mean("Train", known) == 'did you mean "train"?'
    assert did_you_mean("zzz", known) == ""
    assert did_you_mean("zzz", known, otherwise="see --help") == "see --help"


@pytest.mark.parametrize("of_bytes", [False, True])
def test_progress_goes_to_stderr_or_nowhere(of_bytes: bool, capsys: pytest.CaptureFixture[str]) -> None:
    for disable in (True, False):
        with progress_bar(disable=disable, of_bytes=of_bytes) as bar:
            bar.advance(bar.add_task("scoring", total=2), 2)
        out, err = capsys.readouterr()
        assert not out
        assert ("scoring" in err) != disable

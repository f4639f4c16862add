"""`gcnet serve`: words that it refuses."""

from __future__ import annotations

import pytest

from gcnet.cli import main


@pytest.mark.parametrize("port", ["65536", "99999999", "-1", "http"])
def test_what_is_no_port_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "nowhere.safetensors", "--port", port]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--port" in line


def test_the_last_port_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "nowhere.safetensors", "--port", "65535"]) == 2
    assert "no such file" in capsys.readouterr().err


def test_as_many_connections_as_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr("resource.setrlimit", lambda _, limit: limits.append(limit))
    assert main(["serve", "nowhere.safetensors", "--port", "0"]) == 2
    assert limits == [(4096, 4096)]

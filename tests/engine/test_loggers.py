"""Numbers go to every logger that the recipe names; one that fails does not stop the run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from engine_fakes import FakeDetector, run_fake

from gcnet.engine.loggers import check_loggers
from gcnet.errors import GCNetError


class Recorder(ModuleType):
    """Stands in for wandb and mlflow: keeps what it was called with."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = SimpleNamespace(name=name)  # type: ignore[assignment]
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append((name, args[0] if args else options))
            return SimpleNamespace(log=self.log, finish=self.finish, info=SimpleNamespace(run_id="run-7"))

        return call


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recorder]:
    recorders = {name: Recorder(name) for name in ("wandb", "mlflow")}
    for name, recorder in recorders.items():
        monkeypatch.setitem(sys.modules, name, recorder)
    return recorders


def test_all_loggers_get_the_same_numbers(services: dict[str, Recorder], tmp_path: Path) -> None:
    run_fake(tmp_path / "run", epochs=1, loggers=("wandb", "mlflow"))
    assert not (tmp_path / "run" / "tensorboard").exists()
    wandb, mlflow = services["wandb"].calls, services["mlflow"].calls
    assert [name for name, _ in wandb] == ["init", "log", "log", "finish"]
    assert wandb[0][1]["config"]["epochs"] == 1
    assert [name for name, _ in mlflow] == [
        "start_run",
        "log_params",
        "log_metrics",
        "log_metrics",
        "end_run",
    ]
    assert wandb[1][1] == mlflow[2][1]
    assert {"train/loss", "train/lr"} <= wandb[1][1].keys()
    assert wandb[2][1]["valid/mask_AP"] == 0.25

    run_fake(tmp_path / "run", epochs=2, loggers=("wandb", "mlflow"), resume=True)
    assert wandb[4] == ("init", wandb[0][1] | {"resume": "auto", "config": wandb[4][1]["config"]})
    assert mlflow[5] == ("start_run", {"run_id": "run-7"})


def test_a_logger_that_fails_costs_a_warning(
    services: dict[str, Recorder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("server gone")

    services["mlflow"].log_metrics = fail  # type: ignore[attr-defined]
    run_fake(tmp_path, epochs=2, loggers=("mlflow",))
    assert capsys.readouterr().out.count("warning: MLflow did not take the numbers (server gone)") == 1


def test_a_logger_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = FakeDetector()
    monkeypatch.setattr("gcnet.engine.loggers.find_spec", lambda name: None)
    with pytest.raises(GCNetError, match=r"wandb is not installed; pip install 'gcnet\[wandb\]'"):
        run_fake(tmp_path / "run", detector=detector, loggers=("wandb",))
    with pytest.raises(GCNetError, match="no logger 'tensorbord'; there are tensorboard, wandb, mlflow"):
        check_loggers(["tensorbord"])
    assert not (tmp_path / "run").exists()


def test_a_logger_that_does_not_start_is_named(services: dict[str, Recorder], tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("api_key not configured\n(no-tty)")

    services["wandb"].init = fail  # type: ignore[attr-defined]
    with pytest.raises(GCNetError, match=r"logger wandb did not start \(api_key not configured \(no-tty\)\)"):
        run_fake(tmp_path, epochs=1, loggers=("wandb",))

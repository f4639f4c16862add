"""The rank of this process, if torchrun or srun started several. This does not import torch."""

from __future__ import annotations

import os
import re

from gcnet.errors import GCNetError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def find_launch() -> tuple[int, int, int, int] | None:
    """Rank, number of processes, and both on this machine (0 if unknown); None for a single process.

    Raises GCNetError if the environment is only half of what torchrun sets.
    """
    return _from_torchrun() or _from_slurm()


def _from_torchrun() -> tuple[int, int, int, int] | None:
    if not any(name in os.environ for name in TORCHRUN[:3]):
        return None
    missing = [name for name in TORCHRUN if name not in os.environ]
    if missing:
        there = ", ".join(f"{name}={os.environ[name]}" for name in TORCHRUN if name in os.environ)
        raise GCNetError(
            f"the environment has {there} without {', '.join(missing)}: unset it, or start with torchrun, "
            "which sets all of them"
        )
    rank, world, local_rank = (_number(name) for name in TORCHRUN[:3])
    if not 0 <= rank < world:
        raise GCNetError(
            f"the environment has RANK={rank} of WORLD_SIZE={world}; unset both, or use torchrun"
        )
    return rank, world, local_rank, _number("LOCAL_WORLD_SIZE", "0")


def _from_slurm() -> tuple[int, int, int, int] | None:
    """As `find_launch`, for a job step of several tasks.

    A batch script runs once, with the rank 0, however many tasks its job has. It is no step.
    """
    tasks = _number("SLURM_STEP_NUM_TASKS", "1")
    return (_number("SLURM_PROCID"), tasks, _number("SLURM_LOCALID"), 0) if tasks > 1 else None


def set_meeting_place() -> None:
    """Sets the address where processes of srun meet: the first host, and a port of the job."""
    if "SLURM_PROCID" in os.environ:
        hosts = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "localhost")
        os.environ.setdefault("MASTER_ADDR", first_host(hosts))
        os.environ.setdefault("MASTER_PORT", str(12_000 + _number("SLURM_JOB_ID", "0") % 20_000))


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list: `gpu[07-09,12],login` is gpu07 and others."""
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", re.split(r",(?![^\[]*\])", nodes)[0])


def _number(name: str, default: str = "") -> int:
    text = os.environ.get(name, default)
    try:
        return int(text)
    except ValueError:
        raise GCNetError(f"the environment has {name}={text}, which is no number") from None

"""The processes of a run, one for each device: the rank of this one, how the others start, and how they end.

`torchrun` and `srun` start all of them. Otherwise the first process starts the others, with its own command
line. If one of them dies, the run ends with one line.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from gcnet.errors import GCNetError
from gcnet.launch import TORCHRUN, find_launch, set_meeting_place
from gcnet.recipe import Recipe

PARENT = "GCNET_PARENT"  # in the environment of a process that another one started: the other's id
MEET = timedelta(minutes=10)  # within which all processes must have started
WAIT = timedelta(hours=6)  # for an exchange: the others wait while the first scores a validation
POLL = 1.0  # seconds between checks of the other processes
GRACE = 10.0  # seconds that the main thread has to notice a dead process before the watcher ends it

_started: list[subprocess.Popen] = []  # by this process; they take part in all of its runs


@dataclass(frozen=True)
class Place:
    """This process: `rank` of `world`. `launched`: by torchrun or srun."""

    device: torch.device
    world: int = 1
    rank: int = 0
    launched: bool = False

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


def find_place(recipe: Recipe) -> Place:
    """The rank of this process in the run, and its device.

    Raises:
        GCNetError: there is no such device, the batch cannot be divided evenly, or the environment is only
            half of what torchrun sets.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    on_gpu = recipe.accelerator == "gpu" or (recipe.accelerator == "auto" and gpus > 0)
    found = find_launch()
    if found:
        set_meeting_place()
    rank, world, local_rank, local_world = found or (0, 0, 0, 0)
    if recipe.devices and local_world and recipe.devices != local_world:
        raise GCNetError(
            f"recipe: devices is {recipe.devices}, but {local_world} processes were started on this machine; "
            "leave it out"
        )
    wanted = local_world or recipe.devices or (max(gpus, 1) if on_gpu else 1)
    by_srun = found and "SLURM_PROCID" in os.environ  # one for each task
    if on_gpu and wanted > gpus and not (gpus and by_srun):
        raise GCNetError(
            f"recipe: {wanted} GPUs asked for, {gpus} found; use --accelerator cpu or fewer --devices"
        )
    world = world or wanted
    if recipe.batch_size != "auto" and recipe.batch_size % (world * recipe.accumulate):
        parts = f" in {recipe.accumulate} parts each (accumulate)" if recipe.accumulate > 1 else ""
        raise GCNetError(
            f"recipe: batch_size {recipe.batch_size} cannot be divided over {world} devices{parts}; "
            "use a multiple"
        )
    device = torch.device("cuda", local_rank % gpus) if on_gpu else torch.device("cpu")
    return Place(device, world, rank, launched=found is not None)


@contextlib.contextmanager
def joined(place: Place) -> Iterator[None]:
    """A context in which all processes of the run exchange tensors by `torch.distributed`.

    Raises:
        GCNetError: another process died, or not all came in time.
    """
    if place.world == 1:
        yield
        return
    if not place.launched:
        _start_others(place.world)
    over = threading.Event()
    if _started or PARENT in os.environ:
        watch = _watch_others if _started else _watch_parent
        threading.Thread(target=watch, args=(over,), daemon=True).start()
    try:
        _meet(place)
        with warnings.catch_warnings():
            # On a CPU gradients of 1x1 convolutions are channels-last; copying them costs nothing there.
            warnings.filterwarnings("ignore", message="Grad strides do not match")
            yield
        over.set()
        distributed.destroy_process_group()
    except BaseException as error:
        over.set()
        raised_by_us = isinstance(error, GCNetError | KeyboardInterrupt | SystemExit)
        failure = None if raised_by_us else find_death(wait=5.0) or _explain(error)
        end_others()
        if failure:
            raise failure from error
        raise


def _start_others(world: int) -> None:
    """Runs this program again for each other device, in the environment that torchrun would give it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in common.items()}, RANK="0", LOCAL_RANK="0")
    main: Any = sys.modules["__main__"]
    program = ["-m", main.__spec__.name] if main.__spec__ else [os.path.abspath(sys.argv[0])]
    for rank in map(str, range(1, world)):
        environment = os.environ | {"RANK": rank, "LOCAL_RANK": rank, PARENT: str(os.getpid())}
        command = [sys.executable, *program, *sys.argv[1:]]
        _started.append(subprocess.Popen(command, env=environment))


def _meet(place: Place) -> None:
    backend = "gloo"
    if place.device.type == "cuda":
        torch.cuda.set_device(place.device)
        backend = "cpu:gloo,cuda:nccl"
    store, rank, world = next(rendezvous("env://", place.rank, place.world, timeout=MEET))
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=WAIT)


def find_death(*, wait: float = 0.0) -> GCNetError | None:
    """The error message for a started process that failed, or None if none fails within `wait` seconds."""
    until = time.monotonic() + (wait if _started else 0.0)
    while True:
        for number, process in enumerate(_started, start=2):
            if code := process.poll():
                how = f"was killed (signal {-code})" if code < 0 else f"failed (exit code {code})"
                return GCNetError(
                    f"the process of device {number} of {len(_started) + 1} {how}"
                    f"{', as happens when memory runs out' if code == -9 else ''}; "
                    "go on from the last checkpoint with --resume"
                )
        if time.monotonic() >= until:
            return None
        time.sleep(0.1)


def _explain(error: BaseException) -> GCNetError | None:
    """The message for an error in an exchange with processes that torchrun or srun started."""
    if isinstance(error, distributed.DistError) or "gloo" in str(error):
        reason = str(error).partition("\n")[0]
        return GCNetError(
            f"another process of the run is gone or did not come ({reason}); "
            "look at what it says, and go on from the last checkpoint with --resume"
        )
    return None


def end_others() -> None:
    """Ends the started processes, which would wait for this one forever."""
    for process in _started:
        process.kill()
        process.wait()
    if _started:
        for name in (*TORCHRUN, "LOCAL_WORLD_SIZE"):
            os.environ.pop(name, None)
    _started.clear()


def _watch_others(over: threading.Event) -> None:
    """Ends this process when another one has died and the main thread waits for it, perhaps on a GPU."""
    while not over.wait(POLL):
        if (death := find_death()) and not over.wait(GRACE):
            print(f"gcnet: error: {death}", file=sys.stderr, flush=True)
            end_others()
            os._exit(2)


def _watch_parent(over: threading.Event) -> None:
    while not over.wait(POLL):
        if os.getppid() != int(os.environ[PARENT]):
            os._exit(2)


def agree(place: Place, value: Any) -> Any:
    """The `value` of the first process, in all of them."""
    values = [value]
    if place.world > 1:
        distributed.broadcast_object_list(values)
    return values[0]


def gather(place: Place, values: list[Any]) -> list[Any]:
    """The shares of all processes (value i of rank r is number i * world + r), in the first; [] elsewhere."""
    if place.world == 1:
        return values
    shares: list[Any] | None = [None] * place.world if place.leads else None
    distributed.gather_object(values, shares)
    if shares is None:
        return []
    merged: list[Any] = [None] * sum(map(len, shares))
    for rank, share in enumerate(shares):
        merged[rank :: place.world] = share
    return merged

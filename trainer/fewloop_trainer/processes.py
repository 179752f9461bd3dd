"""The processes of a run, and what each of them computes on.

A run is one process, or several that torchrun starts (`run --processes`): then each trains and asks models of its own,
on a GPU of its own where there are any, else on its share of the threads. Models are never divided among processes, so
that their numbers are those of a run of one process with as many threads (docs/decisions). All that processes share is
the run's folder: what one finished, the others read.
"""

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fewloop_trainer.files import write_json
from fewloop_trainer.stop import PATIENCE_SECONDS


@dataclass(frozen=True)
class Place:
    """Of this process among those of the run; the first does what is not shared out."""

    rank: int = 0
    processes: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0


def place_of(environment: dict[str, str] | os._Environ = os.environ) -> Place:
    """By torchrun's variables; alone where there are none."""
    return Place(int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1)))


ALONE = Place()


def settle(threads: int, place: Place = ALONE) -> None:
    """Takes this process's share of the threads, and its GPU for the tensors that are made from now on."""
    torch.set_num_threads(max(1, threads // place.processes))
    take_gpu(place)


def take_gpu(place: Place = ALONE) -> None:
    """Where there is one; not run on a GPU yet (docs/results/trainer-speed.md)."""
    if torch.cuda.is_available():
        torch.set_default_device(torch.device("cuda", place.rank % torch.cuda.device_count()))
        # Sums in an order that does not change from run to run. Where an operator has no such form it warns.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def leave_gpu(*models: torch.nn.Module) -> None:
    """Moves models, and all tensors that are made from now on, to the CPU."""
    torch.set_default_device("cpu")
    for model in models:
        model.cpu()


def owners(costs: Sequence[float], processes: int) -> list[int]:
    """Which process does which job: the dearest first, each by the process that has least to do so far."""
    load = [(0.0, 0)] * processes
    owner = [0] * len(costs)
    for job in sorted(range(len(costs)), key=lambda j: (-costs[j], j)):
        owner[job] = load.index(min(load))
        cost, many = load[owner[job]]
        load[owner[job]] = cost + costs[job], many + 1
    return owner


def run_several(folder: Path, processes: int, options: Sequence[str]) -> int:
    """Runs the folder in as many processes of this machine, with `options` of the command `run`; the exit status.

    torchrun ends all of them where one fails, and they end where this process is gone. A process that is killed leaves
    no reason, and those that torchrun then stops would say that somebody stopped them.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    command = ["-m", "fewloop_trainer", "run", str(folder), "--parent", str(os.getpid()), *options]
    if shutil.which("setpriv"):  # at once, by the kernel: who goes on with the folder may start at once, too
        command = ["--no-python", "setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-u", *command]
    patience = ["--shutdown-timeout", str(round(PATIENCE_SECONDS - 2))]
    try:
        main(["--standalone", "--nproc-per-node", str(processes), *patience, *command])
    except ChildFailedError as error:
        print(error, file=sys.stderr)
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            message = killed_message(rank, -failure.exitcode)
            write_json(folder / "result.json", {"ok": False, "code": "CRASHED", "message": message})
        return 1
    except SignalException as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def killed_message(rank: int, number: int) -> str:
    killed = f"process {rank} was killed by signal {number}"
    if number != signal.SIGKILL:
        return killed
    return f"{killed}: likely too little memory; take fewer processes (FEWLOOP_TRAINER_PROCESSES) or --rows-at-once"

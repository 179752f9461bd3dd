"""How many processes a run has where nobody says (`run --processes auto`)."""

import json
import math
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from fewloop_trainer.data import RunError
from fewloop_trainer.run_state import plan_teachers
from fewloop_trainer.task import load_task

WORTH_SECONDS = 120
"""Under such a budget one process does all: each further one takes some ten seconds of its core to start."""
THREADS = 2
"""Of each process at least: on two idle cores one of two threads was done before two of one were, with half of their
memory (docs/results/trainer-speed.md); of more threads a small model makes little."""
MEMORY_SHARE = 0.5
"""Of the machine, for all processes of a run: a service may stand beside it."""
PROCESS_BYTES, BYTES_A_WEIGHT = 0.8e9, 24
"""What a process takes, and in addition for each weight of its base model: that in fp32, a model in training with its
gradients and both moments of Adam. With 24 million weights 1.4 GB; 1.0 to 1.2 GiB were measured."""


def fitting(folder: Path, memory: float | None = None) -> int:
    """As many as the run in `folder` can use: one a teacher at most, each with two cores, or a GPU where there are any,
    and all together within their share of `memory` (bytes; the machine's where none is given)."""
    try:
        settings = json.loads((folder / "run.json").read_text())
        teachers = len(plan_teachers(load_task(settings["definition"])))
        weights = _weights(Path(settings["baseModel"]["folder"]) / "model.safetensors")
        places = torch.cuda.device_count() if torch.cuda.is_available() else settings["threads"] // THREADS
        worth = settings["budgetSeconds"] >= WORTH_SECONDS
    except (OSError, ValueError, KeyError, RunError, SafetensorError):
        return 1  # and the run says what is wrong with it
    if not worth:
        return 1
    room = MEMORY_SHARE * (memory or _machine_bytes()) / (PROCESS_BYTES + BYTES_A_WEIGHT * weights)
    return max(1, min(teachers, places, int(room)))


def _machine_bytes() -> float:
    """Of the machine, or of the container."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no control group, or no limit ("max")
        return machine


def _weights(file: Path) -> int:
    with safe_open(file, framework="pt") as tensors:
        names = tensors.keys()
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)

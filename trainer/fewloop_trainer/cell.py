"""A cell of the benchmark's table: what a method gets, and the digest of all that its result depends on."""

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from fewloop_trainer.bundle import library_versions
from fewloop_trainer.data import file_digest
from fewloop_trainer.encoder import has_bfloat16
from fewloop_trainer.task import Task

FORMAT = 2
"""Of a finished cell's file."""
ARITHMETIC = ("avx2", "avx512", "avx_vnni", "amx", "fma", "bf16", "i8mm", "asimd", "sve")
"""What the names of a processor's flags begin with that decide how numbers are reckoned."""


@dataclass(frozen=True)
class Lesson:
    """Another task and its train rows, to learn from first."""

    task: Task
    train: list[dict]

    @property
    def described(self) -> list[str]:
        """Digests of all that is learnt from it."""
        return [digest_of(self.task.definition), digest_of(self.train)]


@dataclass(frozen=True)
class Cell:
    """All that a method may see. `work`: a folder for what it wants to go on from after a kill."""

    task: Task
    base: Path
    train: list[dict]
    unlabelled: list[dict]
    test: list[dict]
    seed: int
    threads: int
    work: Path
    lessons: tuple[Lesson, ...] = ()
    """Train rows of other tasks, for methods that take them."""

    @property
    def classes(self) -> int:
        """Width of a distribution: the task's labels, or the largest number of choices."""
        return max(len(self.task.labels_of(row)) for row in (*self.train, *self.test))


def key_of(cell: Cell, method: str, settings: dict[str, object], reads: Sequence[str] | None) -> str:
    """SHA-256 (hex) of what the method `reads` of the task's definition (None: all that a run reads), the method, the
    base model, every row, the seed and the libraries.

    Threads and the processor's bf16 are of it too: sums in another order round otherwise.
    """
    return digest_of(
        {
            "format": FORMAT,
            "definition": read_by_run(cell.task) if reads is None else _of(cell.task.definition, reads),
            "method": method,
            "settings": settings,
            "train": digest_of(cell.train),
            "unlabelled": digest_of(cell.unlabelled),
            "test": digest_of(cell.test),
            "seed": cell.seed,
            "threads": cell.threads,
        }
        | ({"lessons": [lesson.described for lesson in cell.lessons]} if cell.lessons else {})
        | ({"unlabelledRows": cell.task.unlabelled} if cell.task.unlabelled else {})
        | arithmetic_of(cell.base)
    )


def arithmetic_of(base: Path) -> dict[str, object]:
    """What numbers hang on beside data and settings: the base model, the libraries, what the hardware multiplies."""
    found = {"base": base_digest(base), "bfloat16": has_bfloat16(), "libraries": library_versions()}
    return found | ({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})


def read_by_run(task: Task) -> dict:
    """The definition without `input` where the task's own method is PET: its templates are all that it sees."""
    return {k: v for k, v in task.definition.items() if k != "input" or set(task.methods) != {"pet"}}


def _of(definition: dict, keys: Sequence[str]) -> dict:
    return {k: v for k, v in definition.items() if k in keys}


def digest_of(value: object) -> str:
    """SHA-256 (hex) of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


@cache
def processor() -> dict[str, object]:
    """Model and those of its flags by which numbers round otherwise; kept with a result, but not of its key: a table
    may grow from one machine to the next, and differences can be explained."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:  # not Linux
        return {"model": platform.processor() or platform.machine(), "flags": []}
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = said.get("flags", said.get("Features", "")).split()
    return {
        "model": said.get("model name", platform.machine()),
        "flags": sorted(flag for flag in flags if flag.startswith(ARITHMETIC)),
    }


@cache
def base_digest(base: Path) -> str:
    return digest_of([file_digest(base / name) for name in ("config.json", "model.safetensors", "tokenizer.json")])

"""Base models taught by labelled rows of other tasks: EFL on pairs (continue_training.py) or the templates of several
tasks at once (multitask.py). The result is a folder that any run, method or further lesson may start from.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import BertForMaskedLM

from fewloop_trainer import continue_training, fewclue, multitask
from fewloop_trainer.cell import Lesson
from fewloop_trainer.data import RunError
from fewloop_trainer.derived_base import derive
from fewloop_trainer.processes import settle
from fewloop_trainer.task import load_task
from fewloop_trainer.task_file import read_definition
from fewloop_trainer.training import TrainSettings

VERSION = 1
STEPS = {"efl": continue_training.STEPS, "pet": multitask.STEPS}


def teach(
    base: Path,
    work: Path,
    method: str,
    lessons: Sequence[Lesson],
    seed: int,
    threads: int,
    steps: int | None = None,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Path:
    """The folder in `work` of the base model after the lessons: `efl` learns one after the other, `pet` all at once,
    for `steps` batches each time. Made once; a killed training goes on (derived_base.py).

    Raises RunError (BAD_INPUT) where the method cannot learn from a lesson.
    """
    for lesson in lessons:
        check(method, lesson)
    settle(threads)
    steps = STEPS[method] if steps is None else steps
    parts = [list(lessons)] if method == "pet" else [[lesson] for lesson in lessons]
    for part in parts:
        described = [VERSION, method, steps, seed, threads, [lesson.described for lesson in part]]
        base = derive(base, work, described, _training(base, method, part, steps, seed, on_step))
    return base


def _training(
    base: Path,
    method: str,
    lessons: list[Lesson],
    steps: int,
    seed: int,
    on_step: Callable[[int, float], None],
) -> Callable[[Path], BertForMaskedLM]:
    def train(work: Path) -> BertForMaskedLM:
        settings = TrainSettings(steps=steps, seed=seed, checkpoint=work / "checkpoint.safetensors")
        if method == "pet":
            return multitask.train_on_tasks(base, lessons, settings, on_step)
        return continue_training.train_on_pairs(base, lessons[0], settings, on_step)

    return train


def check(method: str, lesson: Lesson) -> None:
    """Raises RunError (BAD_INPUT) where the method cannot learn from the lesson."""
    task, name = lesson.task, lesson.task.name
    if method == "pet" and not (task.templates and task.kind != "multi-label"):
        raise RunError("BAD_INPUT", f"{name}: pet learns from tasks with templates whose labels exclude each other")
    if method == "efl" and task.kind != "sentence-pair":
        raise RunError("BAD_INPUT", f"{name}: efl continues on tasks of kind sentence-pair, and this is {task.kind}")
    if len({row["label"] for row in lesson.train}) < (1 if task.kind == "multiple-choice" else 2):
        raise RunError("BAD_INPUT", f"{name}: learning needs labelled rows of at least two labels")
    for number, row in enumerate(lesson.train, 1):
        if row["label"] not in task.labels_of(row):
            raise RunError("BAD_INPUT", f"{name}, row {number}: the task file has no label {row['label']!r}")
        if task.kind == "sentence-pair" and not isinstance(row.get("textPair"), str):
            raise RunError("BAD_INPUT", f"{name}, row {number} lacks textPair, which the kind sentence-pair asks for")


def read_lesson(task_file: Path, rows: Path) -> Lesson:
    """Rows are JSON lines as `fewloop import` takes them (`text`, `label`, ...) or in FewCLUE's format.

    Raises RunError (BAD_INPUT) where a file cannot be read or a row has no label.
    """
    task = load_task(read_definition(task_file))
    try:
        written = [json.loads(line) for line in rows.read_bytes().decode().split("\n") if line.strip()]
        found = [row if "text" in row and "target" not in row else fewclue.row_of(row) for row in written]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError("BAD_INPUT", f"cannot read the rows in {rows}: {error}") from error
    kept = [row for row in found if row is not None]
    unlabelled = sum("label" not in row for row in kept)
    if unlabelled:
        raise RunError("BAD_INPUT", f"{rows}: {unlabelled} of {len(kept)} rows have no label")
    return Lesson(task, kept)

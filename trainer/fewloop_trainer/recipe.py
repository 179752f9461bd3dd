"""The whole recipe as a method of the benchmark: a run folder as the service writes it, trained by the very code that
the service starts, and the test rows scored by the models that it would serve.

The time is no object (`BUDGET_SECONDS`): every job gets the steps that it wishes, so that the numbers do not depend on
the machine's speed. The run keeps its own state; a killed cell goes on behind the last model that was finished.

Teachers know nothing of how pseudo-labels are selected. Runs that differ in that alone train them once: what is theirs
of a finished run's `work/` stays, and the next such run goes on from there, as it would after a kill.
"""

import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewloop_trainer.cell import Cell, arithmetic_of, digest_of, read_by_run
from fewloop_trainer.data import RunError, file_digest
from fewloop_trainer.encoder import load_model, load_tokenizer
from fewloop_trainer.files import write_json
from fewloop_trainer.keys import split_group
from fewloop_trainer.learners import learner_of
from fewloop_trainer.render import Renderer
from fewloop_trainer.run import run
from fewloop_trainer.scores import apply_temperature, combine_members, distribution_of
from fewloop_trainer.tapt import load_adapted
from fewloop_trainer.task import load_task
from fewloop_trainer.workspace import Workspace

VERSION = 4
"""To be raised where a change of the trainer changes what a run comes to."""
TEACHERS_VERSION = 2
"""To be raised where a change of the trainer changes its teachers or what they say; kept ones are not taken then."""
POLICIES = {"ensemble": "teacher", "uniform": "teacher", "student": "student"}
"""What a run is scored by, and whose models say it."""
BUDGET_SECONDS = 86_400
UNLABELLED_ROWS = 3000
"""As many as the service gives a run (`src/learning/data-set.ts`)."""


@dataclass(frozen=True)
class Changes:
    """What replaces the task file's own: selection strategy, rounds of self-training, `learning.adaptation`, and the
    methods of which the ensemble has members."""

    selection: str | None = None
    rounds: int | None = None
    adaptation: dict | None = None
    methods: tuple[str, ...] | None = None


def predict(cell: Cell, changes: Changes = Changes()) -> dict[str, np.ndarray]:
    """Distributions [N test, C] by policy: `ensemble` of the teachers, the same with `uniform` weights, the `student`.

    Raises RunError where the run fails.
    """
    definition = definition_for(cell, changes)
    settings = settings_for(cell, definition)
    labelled = [row_of(row) | {"label": row["label"], "split": "train"} for row in cell.train]
    unlabelled = [row_of(row) for row in unlabelled_of(cell)]
    known = [arithmetic_of(cell.base), settings, labelled, unlabelled]
    folder = cell.work / digest_of([VERSION, POLICIES, *known, digest_of(cell.test)])[:32]
    predicted = folder / "predicted.npz"
    teachers = cell.work / f"teachers-{_digest_for_teachers(*known)}"
    if not predicted.exists():
        write_run(folder, settings, labelled, unlabelled)
        take_teachers(teachers, folder / "work")
        if run(folder) != 0:
            result = json.loads((folder / "result.json").read_text())
            raise RunError(result["code"], result["message"])
        partial = folder / "partial.npz"
        np.savez(partial, **predict_members(folder, cell))
        partial.replace(predicted)
        keep_teachers(folder / "work", teachers)
        for name in ("bundle", "work"):  # hundreds of megabytes a cell
            shutil.rmtree(folder / name)
    stored = np.load(predicted)
    return {policy: stored[policy] for policy in stored.files}


def _digest_for_teachers(
    arithmetic: dict[str, object], settings: dict, labelled: list[dict], unlabelled: list[dict]
) -> str:
    """Of all that teachers of a run depend on: not the selection and its rounds, nor the cell's test rows."""
    definition = settings["definition"]
    learning = {key: value for key, value in definition["learning"].items() if key not in ("selection", "rounds")}
    named = ("runId", "definitionDigest", "definition", "baseModel")
    others = {key: value for key, value in settings.items() if key not in named} | arithmetic  # wherever the base lies
    return digest_of([TEACHERS_VERSION, others, definition | {"learning": learning}, labelled, unlabelled])[:32]


def keep_teachers(work: Path, teachers: Path) -> None:
    """What a finished run computed before it selected anything, as further links: tens of megabytes a teacher."""
    if teachers.exists():
        return
    partial = teachers.with_name(f"{teachers.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for file in work.iterdir():
        if file.is_file() and not file.name.startswith("student") and ".round" not in file.name:
            (partial / file.name).hardlink_to(file)
    partial.rename(teachers)


def take_teachers(teachers: Path, work: Path) -> None:
    """Puts what was kept into the `work/` of another run, but for what that one has already."""
    for file in teachers.iterdir() if teachers.exists() else ():
        work.mkdir(exist_ok=True)
        if not (work / file.name).exists():
            (work / file.name).hardlink_to(file)


def unlabelled_of(cell: Cell) -> list[dict]:
    """As many of the cell's unlabelled rows as the service gives a run, drawn by the seed."""
    many = cell.task.unlabelled or UNLABELLED_ROWS
    order = np.random.default_rng(cell.seed).permutation(len(cell.unlabelled))[:many]
    return [cell.unlabelled[i] for i in sorted(order)]


def definition_for(cell: Cell, changes: Changes) -> dict:
    definition = read_by_run(cell.task)
    if changes.methods is not None:
        definition = cell.task.definition | {"method": list(changes.methods)}
    learning = definition["learning"] | {"budgetSeconds": BUDGET_SECONDS}
    if changes.selection is not None:
        learning |= {"selection": learning["selection"] | {"strategy": changes.selection}}
    if changes.rounds is not None:
        learning |= {"rounds": changes.rounds}
    if changes.adaptation is not None:
        learning |= {"adaptation": changes.adaptation}
    serving = definition["serving"] | {"precisions": ["fp32"]}  # nothing of a cell is ever served
    return definition | {"learning": learning, "serving": serving}


def settings_for(cell: Cell, definition: dict) -> dict:
    """run.json; its id is the digest of the definition, so that the same cell has the same folder."""
    digest = digest_of(definition)
    base = {"name": cell.base.name, "folder": str(cell.base), "digest": file_digest(cell.base / "model.safetensors")}
    return {
        "formatVersion": 1,
        "runId": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{digest} {cell.seed}")),
        "task": definition["name"],
        "version": 1,
        "taskRevision": 1,
        "definitionDigest": digest,
        "definition": definition,
        "seed": cell.seed,
        "baseModel": base,
        "budgetSeconds": BUDGET_SECONDS,
        "threads": cell.threads,
        "prior": None,
    }


def row_of(row: dict) -> dict:
    """The row as an unlabelled one of a run folder, with its keys."""
    item = {key: value for key, value in row.items() if key != "label"}
    return {"itemKey": digest_of(item), "splitGroup": split_group(row["text"])} | item


def write_run(folder: Path, settings: dict, labelled: list[dict], unlabelled: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("labelled", labelled), ("unlabelled", unlabelled)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    write_json(folder / "run.json", settings)


def predict_members(folder: Path, cell: Cell) -> dict[str, np.ndarray]:
    """Tempered distributions [N test, C] of a finished run's two serving policies, and of its teachers with uniform
    weights at the fitted ones' temperature: weights, offsets and temperatures of its manifest, and the models that its
    graphs were made of (the bundle is refused where the two disagree by 1e-4)."""
    manifest = json.loads((folder / "bundle/manifest.json").read_text())
    task, base, workspace = load_task(manifest["definition"]), load_model(cell.base), Workspace(folder)
    load_adapted(base, workspace)
    renderer = Renderer(load_tokenizer(cell.base), task)
    said: dict[str, list[tuple[float, np.ndarray]]] = {"teacher": [], "student": []}
    for member in manifest["members"]:
        template = task.templates.index(member["template"]) if member["method"] == "pet" else 0
        learner = learner_of(base, renderer, task, cell.classes, member["method"], template, member["strategy"])
        model = learner.restore(workspace.load(member["id"]))
        scores = learner.predict(model, learner.encode(cell.test))
        offsets = np.array([member["offsets"][name] for name in task.label_names]) if member["offsets"] else 0.0
        said[member["role"]].append((member["weight"], distribution_of(scores, offsets)))
    found = {}
    for policy, role in POLICIES.items():
        weights, members = zip(*said[role], strict=True)
        combined = combine_members(np.stack(members), np.ones(len(members)) if policy == "uniform" else weights)
        served = "student" if role == "student" else "ensemble"
        found[policy] = apply_temperature(combined, manifest["policies"][served]["temperature"])
    return found

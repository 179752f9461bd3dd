"""The run folder's input: settings, labelled and unlabelled rows, with the leakage rules enforced once more.

The service already leaves test rows out; what stands here makes a mistake there an error or a dropped row instead of
a model that has seen its own examination.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewloop_trainer.keys import data_set_digest, split_group, split_of
from fewloop_trainer.task import Field, Task, load_task, parse_template


class RunError(Exception):
    """A failure that the caller can act on; `code` is of the service's closed list."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class RunData:
    settings: dict
    task: Task
    train: list[dict]
    dev: list[dict]
    unlabelled: list[dict]
    labelled_digest: str
    unlabelled_digest: str
    dropped: int
    """Unlabelled rows left out because their group is labelled, is not a train group, or because they lack a field that
    a template names: older ones may, where a revision brought the field."""

    @property
    def reservoir(self) -> list[dict]:
        """The unlabelled rows that are a uniform sample of the traffic."""
        return [row for row, sampled in zip(self.unlabelled, in_reservoir(self.unlabelled), strict=True) if sampled]

    @property
    def classes(self) -> int:
        """Width of a distribution: labels of the task, or the largest number of choices."""
        rows = (*self.train, *self.dev, *self.unlabelled)
        return max(len(self.task.labels_of(row)) for row in rows)

    @property
    def prior(self) -> np.ndarray | None:
        """Label prior, or None where labels are choices or sets and have none."""
        if self.task.kind in ("multiple-choice", "multi-label"):
            return None
        given = self.settings.get("prior")
        prior = np.full(len(self.task.labels), 1.0) if given is None else np.asarray(given, dtype=np.float64)
        return prior / prior.sum()


def in_reservoir(rows: list[dict]) -> np.ndarray:
    """Which unlabelled rows are of the reservoir, the uniform sample of the task's traffic [N]: those marked so. The
    others were chosen, because they are hard or contested, and a mean over them says nothing of the traffic. Where none
    is marked nobody chose, and all are."""
    marked = np.array([row.get("reservoir", False) for row in rows], dtype=bool)
    return marked if marked.any() else ~marked


def read_run(folder: Path) -> RunData:
    """Raises RunError (BAD_INPUT) where the folder's rows cannot be trained on."""
    settings = _object((folder / "run.json").read_bytes(), "run.json")
    if settings.get("formatVersion") != 1:
        raise RunError("BAD_INPUT", f"run.json has format version {settings.get('formatVersion')}, not 1")
    absent = [name for name in ("definition", "baseModel") if name not in settings]
    if absent:
        raise RunError("BAD_INPUT", f"run.json lacks {absent[0]}")
    task = load_task(settings["definition"])
    refuse_shared_words(task)
    labelled, labelled_digest = _read_lines(folder / "labelled.jsonl")
    unlabelled, unlabelled_digest = _read_lines(folder / "unlabelled.jsonl")
    answer, form = ("labels", list) if task.kind == "multi-label" else ("label", str)
    for number, row in enumerate(labelled, 1):
        if row.get("split") not in ("train", "dev"):
            raise RunError("BAD_INPUT", f"labelled.jsonl line {number} is of split {row.get('split')!r}")
        if not isinstance(row.get(answer), form):
            raise RunError("BAD_INPUT", f"labelled.jsonl line {number} has no {answer}")
        wrong = [label for label in answers_of(task, row) if label not in task.labels_of(row)]
        if wrong:
            raise RunError("BAD_INPUT", f"labelled.jsonl line {number}: {wrong[0]!r} is no label of it")
    dev = [row for row in labelled if row["split"] == "dev"]
    dev_groups = {split_group(row["text"]) for row in dev}
    train = [row for row in labelled if row["split"] == "train"]
    both = [row for row in train if split_group(row["text"]) in dev_groups]
    if both:
        raise RunError("BAD_INPUT", f"{len(both)} texts are both in train and in dev")
    require_fields(task, labelled)
    answers = {tuple(answers_of(task, row)) for row in train}
    if len(train) < 2 or (task.kind != "multiple-choice" and len(answers) < 2):
        raise RunError(
            "BAD_INPUT",
            "training needs labelled rows of at least two labels: of split train there are "
            f"{len(train)} rows with {len(answers)} different answers",
        )
    if len({split_group(row["text"]) for row in train}) < 2:
        raise RunError("BAD_INPUT", "training needs labelled rows of at least two texts")
    used = {split_group(row["text"]) for row in labelled}
    kept: dict[str, dict] = {}
    for row in unlabelled:
        group = split_group(row["text"])
        if group not in used and split_of(group) == "train" and lacking_field(task, row) is None:
            kept.setdefault(row.get("itemKey") or group, row)
    return RunData(
        settings,
        task,
        train,
        dev,
        list(kept.values()),
        labelled_digest,
        unlabelled_digest,
        len(unlabelled) - len(kept),
    )


def refuse_shared_words(task: Task) -> None:
    """Raises RunError (BAD_INPUT) where PET could not tell two labels apart: they have a word in common.

    `fewloop task lint` says so too; a run may be started without it.
    """
    if "pet" not in task.methods:
        return
    of: dict[str, str] = {}
    for label in task.labels:
        for word in label.words:
            if of.setdefault(word, label.name) != label.name:
                raise RunError(
                    "BAD_INPUT",
                    f"labels: {word!r} is a word of {of[word]!r} and of {label.name!r}: neither could be told from the "
                    "other; give one of them another word",
                )


def require_fields(task: Task, labelled: list[dict]) -> None:
    """Raises RunError (BAD_INPUT) where a labelled row has not what the templates take from it."""
    for number, row in enumerate(labelled, 1):
        lacking = lacking_field(task, row)
        if lacking is not None:
            raise RunError(
                "BAD_INPUT",
                f"labelled.jsonl line {number} lacks {lacking}: import the row again with it, or change the template",
            )


def lacking_field(task: Task, row: dict) -> str | None:
    """What the kind or a template asks for and the row has not, or None."""
    if task.kind == "sentence-pair" and not isinstance(row.get("textPair"), str):
        return "textPair, which the kind sentence-pair asks for"
    if task.kind == "multiple-choice" and not row.get("choices"):
        return "choices, which the kind multiple-choice asks for"
    for template in task.rendered_by:
        for piece in parse_template(template):
            if not isinstance(piece, Field):
                continue
            own = piece.name in ("text", "textPair")
            value = (row if own else row.get("fields") or {}).get(piece.name)
            name = piece.name if own else f"fields.{piece.name}"
            if not isinstance(value, str):
                return f"{name}, which the template {template!r} names"
            if piece.blank is not None and piece.blank not in value:
                return f"the marker {piece.blank!r} in {name}, which the template {template!r} names"
    return None


def answers_of(task: Task, row: dict) -> list[str]:
    """The labels that a labelled row has: one, or a set in the task's order."""
    if task.kind != "multi-label":
        return [row["label"]]
    return sorted(row["labels"], key=lambda name: task.label_names.index(name) if name in task.label_names else -1)


def labelled_digest(task: Task, rows: list[dict]) -> str:
    """Of the data set that a figure is of."""
    return data_set_digest((row["itemKey"], answers_of(task, row)) for row in rows)


def targets(task: Task, rows: list[dict]) -> np.ndarray:
    """Index of each row's label among `labels_of(row)`, [N]; of label sets, whether each label is in it, [N, C]."""
    if task.kind == "multi-label":
        return np.array([[name in row["labels"] for name in task.label_names] for row in rows], dtype=bool).reshape(
            len(rows), len(task.labels)
        )
    return np.array([task.labels_of(row).index(row["label"]) for row in rows], dtype=np.int64)


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_lines(path: Path) -> tuple[list[dict], str]:
    """Rows and digest of a file; RunError (BAD_INPUT) names the line that is no row."""
    content = path.read_bytes() if path.exists() else b""
    rows = []
    # Split on \n alone: texts hold U+2028, at which a general line splitter would cut.
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        row = _object(line, f"{path.name} line {number}")
        if not isinstance(row.get("text"), str):
            raise RunError("BAD_INPUT", f"{path.name} line {number} has no text")
        rows.append(row)
    return rows, hashlib.sha256(content).hexdigest()


def _object(content: bytes, place: str) -> dict:
    """A JSON object; RunError (BAD_INPUT) where it is none."""
    try:
        value = json.loads(content.decode())
    except UnicodeDecodeError as error:
        raise RunError("BAD_INPUT", f"{place} is not UTF-8: write it again in UTF-8") from error
    except ValueError as error:
        raise RunError("BAD_INPUT", f"{place} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise RunError("BAD_INPUT", f"{place} is no JSON object")
    return value

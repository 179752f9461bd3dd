"""FewCLUE's own files as rows of a run folder: `text`, `textPair`, `choices`, `fields` and, where it has one, `label`.

Twin of the importer `src/cli/formats/fewclue.ts`, which holds the same mapping for `fewloop import`; the contract test
`test/contract/fewclue.json` holds both languages to the same rows. The nine tasks are told apart by their keys:

| keys | tasks | row |
|---|---|---|
| `sentence` or `content` | EPRSTMT, TNEWS, IFLYTEK, CSLDCP | the text |
| `sentence1`, `sentence2` | BUSTM, OCNLI | the text and its pair |
| `content`, `candidates` | CHID | the text with `#idiom#` in it, the candidates as choices |
| `abst`, `keyword` | CSL | the abstract, `fields.keywords` |
| `text`, `target` | CLUEWSC | the text, `target` as fields: `span1_text` (the noun), `span2_text` (the pronoun) |
"""

import json
from dataclasses import dataclass
from pathlib import Path

from fewloop_trainer.data import RunError
from fewloop_trainer.keys import split_group

TASKS = ("eprstmt", "bustm", "ocnli", "csl", "chid", "cluewsc", "tnews", "csldcp", "iflytek")
SPLITS = ("0", "1", "2", "3", "4")
TEST_FILES = ("test_public_even.json", "test_public.json")
"""The first that is there is scored: half of the public test set, or all of it."""


@dataclass(frozen=True)
class TaskRows:
    """`dropped`: unlabelled rows left out because a labelled or test row has their text. `shared`: test rows whose text
    a train row has too (the item differs; the benchmark's own files have such rows)."""

    train: list[dict]
    unlabelled: list[dict]
    test: list[dict]
    dropped: int
    shared: int


def load_rows(folder: Path, task: str, split: str) -> TaskRows:
    """The rows of one few-shot split (`0` to `4`, or `all`: the five train files together, repeated items once).

    Raises RunError (BAD_INPUT) where a file is missing or holds rows of none of the nine tasks.
    """
    home = folder / task
    if split != "all" and split not in SPLITS:
        raise RunError("BAD_INPUT", f"there is no split {split!r}: {', '.join(SPLITS)} or all")
    train = all_train_rows(folder, task) if split == "all" else labelled(home, split, "train")
    file = next((home / name for name in TEST_FILES if (home / name).exists()), home / TEST_FILES[0])
    test = _with_labels(read_rows(file), file)
    groups = {split_group(row["text"]) for row in train}
    used = groups | {split_group(row["text"]) for row in test}
    pool = read_rows(home / "unlabeled.json") if (home / "unlabeled.json").exists() else []
    unlabelled = [_without_label(row) for row in distinct(pool) if split_group(row["text"]) not in used]
    shared = sum(split_group(row["text"]) in groups for row in test)
    return TaskRows(train, unlabelled, test, len(pool) - len(unlabelled), shared)


def all_train_rows(folder: Path, task: str) -> list[dict]:
    """The five train files together, repeated items once; none where there is no such task."""
    home = folder / task
    return distinct([row for part in SPLITS for row in labelled(home, part, "train")]) if home.is_dir() else []


def labelled(home: Path, split: str, part: str) -> list[dict]:
    """The labelled rows of `train` or `dev` of a numbered split in a task's folder."""
    file = home / f"{part}_{split}.json"
    return _with_labels(read_rows(file), file)


def read_rows(file: Path) -> list[dict]:
    """One row a line. Lines end in \\n alone: IFLYTEK holds U+2028, at which a general line splitter would cut."""
    try:
        lines = file.read_bytes().decode().split("\n")
    except OSError as error:
        raise RunError("BAD_INPUT", f"cannot read {file}: {error.strerror}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = row_of(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise RunError("BAD_INPUT", f"{file} line {number}: {error}") from error
            rows += [] if row is None else [row]
    return rows


def row_of(line: dict) -> dict | None:
    """A line as a row, None where annotators did not agree (OCNLI's `-`); ValueError where it is of no task."""
    if line.get("label") == "-":
        return None
    if "candidates" in line:
        row = {"text": line["content"], "choices": [str(choice) for choice in line["candidates"]]}
        answer = line.get("answer")
        return row if answer is None else row | {"label": row["choices"][int(answer)]}
    if "abst" in line:
        row = {"text": line["abst"], "fields": {"keywords": "，".join(str(word) for word in line["keyword"])}}
    elif isinstance(line.get("target"), dict):
        row = {"text": line["text"], "fields": line["target"]}
    elif "sentence1" in line:
        row = {"text": line["sentence1"], "textPair": line["sentence2"]}
    else:
        row = {"text": line["sentence"] if "sentence" in line else line.get("content")}
    if not isinstance(row["text"], str):
        raise ValueError("has the keys of none of the nine tasks")
    # TNEWS and IFLYTEK number their labels and describe them beside.
    label = line.get("label_desc", line.get("label_des", line.get("label")))
    return row if label is None else row | {"label": str(label)}


def distinct(rows: list[dict]) -> list[dict]:
    """The first of each item, whatever its label."""
    kept: dict[str, dict] = {}
    for row in rows:
        kept.setdefault(json.dumps(_without_label(row), ensure_ascii=False, sort_keys=True), row)
    return list(kept.values())


def _without_label(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "label"}


def _with_labels(rows: list[dict], file: Path) -> list[dict]:
    if not rows or any("label" not in row for row in rows):
        raise RunError("BAD_INPUT", f"{file} holds rows without a label, or none at all")
    return rows

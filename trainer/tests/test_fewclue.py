"""FewCLUE's files and task files; `test/contract/fewclue.spec.ts` holds the importer to the same rows."""

import json
from pathlib import Path

import pytest
import yaml

from fewloop_trainer import fewclue
from fewloop_trainer.data import RunError
from fewloop_trainer.encoder import load_tokenizer
from fewloop_trainer.render import Renderer
from fewloop_trainer.task import Field, load_task, parse_template
from fewloop_trainer.task_file import read_definition

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "test/contract/fewclue.json").read_text())


def write(folder: Path, name: str, lines: list[dict], end: str = "\n") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = end.join(json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / name).write_bytes((text + end).encode())


@pytest.fixture
def data(tmp_path) -> Path:
    """A made-up EPRSTMT: five train files, of which two hold the same row, and a pool with texts of train and test."""
    home = tmp_path / "eprstmt"
    for split in fewclue.SPLITS:
        lines = [{"sentence": f"第{split}句\u2028很好", "label": "Positive"}, {"sentence": "差", "label": "Negative"}]
        write(home, f"train_{split}.json", lines)
    write(home, "test_public.json", [{"sentence": "全部", "label": "Positive"}])
    write(home, "test_public_even.json", [{"sentence": "还行", "label": "Positive"}], end="\r\n")
    pool = ["差", "还行 ", "新的", "新的", "第1句\u2028很好"]
    write(home, "unlabeled.json", [{"id": n, "sentence": text} for n, text in enumerate(pool)])
    return tmp_path


@pytest.mark.parametrize("vector", VECTORS["rows"], ids=lambda vector: str(vector["line"])[:40])
def test_a_line_is_the_importers_row(vector):
    assert fewclue.row_of(vector["line"]) == vector["row"]


def test_a_line_without_a_label_is_a_row_without_one():
    lines = [vector["line"] for vector in VECTORS["rows"] if vector["row"] is not None]
    for line in lines:
        bare = {k: v for k, v in line.items() if not k.startswith("label") and k != "answer"}
        assert fewclue.row_of(bare) == {k: v for k, v in fewclue.row_of(line).items() if k != "label"}


def test_a_split_has_its_rows_and_no_text_of_the_pool_is_labelled_or_of_the_test(data):
    rows = fewclue.load_rows(data, "eprstmt", "0")
    assert rows.train == [{"text": "第0句\u2028很好", "label": "Positive"}, {"text": "差", "label": "Negative"}]
    assert rows.test == [{"text": "还行", "label": "Positive"}], "the half is preferred to the whole"
    assert rows.unlabelled == [{"text": "新的"}, {"text": "第1句\u2028很好"}]
    assert (rows.dropped, rows.shared) == (3, 0)


def test_all_is_the_five_train_files_with_repeated_items_once(data):
    rows = fewclue.load_rows(data, "eprstmt", "all")
    assert [row["text"][:3] for row in rows.train] == ["第0句", "差", "第1句", "第2句", "第3句", "第4句"]
    assert rows.unlabelled == [{"text": "新的"}]


def test_the_items_of_one_text_are_distinct():
    rows = [{"text": "文", "fields": {"keywords": word}, "label": "1"} for word in ("甲", "乙", "甲")]
    assert fewclue.distinct(rows) == rows[:2]


@pytest.mark.parametrize(
    ("split", "name", "line", "message"),
    [
        ("5", "train_0.json", {"sentence": "好", "label": "a"}, "no split '5'"),
        ("0", "train_0.json", {"sentence": "好"}, "without a label"),
        ("0", "train_0.json", {"title": "好"}, "line 1: has the keys of none"),
        ("0", "other.json", {"sentence": "好", "label": "a"}, "cannot read .*train_0.json: No such file"),
    ],
)
def test_what_is_none_of_the_nine_is_refused_with_its_place(tmp_path, split, name, line, message):
    write(tmp_path / "tnews", name, [line])
    with pytest.raises(RunError, match=message) as refused:
        fewclue.load_rows(tmp_path, "tnews", split)
    assert refused.value.code == "BAD_INPUT"


def test_a_task_file_is_the_definition_that_the_service_reads(tmp_path):
    file = tmp_path / "task.yaml"
    file.write_text(VECTORS["taskFile"])
    assert read_definition(file) == VECTORS["definition"]
    for content in ("name: [", "- 1", "kind: x"):
        file.write_text(content)
        with pytest.raises(RunError, match="task file"):
            read_definition(file)


def fields_of(template: str) -> set[str]:
    return {piece.name for piece in parse_template(template) if isinstance(piece, Field)}


@pytest.mark.parametrize("name", fewclue.TASKS)
def test_the_nine_task_files_render(name):
    task = load_task(read_definition(ROOT / f"examples/fewclue/{name}.yaml"))
    renderer = Renderer(load_tokenizer(ROOT / "models/base-zh"), task)
    item = {"text": "前#idiom#后", "textPair": "又", "choices": ["一心一意", "天崩地坼"]}
    item["fields"] = {"keywords": "甲，乙", "span1_text": "甲", "span2_text": "他"}
    for template in task.templates:
        assert len(renderer.render(template, item).mask_positions) == renderer.masks_of(item)
    assert not renderer.render(task.input, item).mask_positions
    named = {name for template in task.templates for name in fields_of(template)}
    assert fields_of(task.input) == named or task.kind == "multiple-choice", "all methods see the same fields"
    words = [word for label in task.labels for word in label.words]
    assert len(set(words)) == len(words), "a word of two labels"
    assert yaml.safe_load((ROOT / f"examples/fewclue/{name}.yaml").read_text())["name"] == name

"""The benchmark on the tiny model and made-up files: what is cached, what is told, that numbers are the same again."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewloop_trainer import benchmark, cli, lessons, methods, peers, recipe, run_state, tapt
from fewloop_trainer.benchmark import BenchmarkSettings, Place
from fewloop_trainer.cell import Cell, key_of
from fewloop_trainer.data import RunError
from fewloop_trainer.run_state import Run
from folders import TINY_MODEL, definition_of, read_json, review, reviews

TRAINER = Path(__file__).parents[1]
CHEAP = ("zero-shot", "pet")

RUN_UNTIL_SECOND_CELL = """
import os, signal, sys
from fewloop_trainer import benchmark, cli, methods
methods.FEWEST_STEPS = methods.MOST_STEPS = 6
compute = benchmark.compute
def end_before(settings, place):
    if place.method == "pet":
        os.kill(os.getpid(), int(getattr(signal, sys.argv[1])))
    return compute(settings, place)
benchmark.compute = end_before
raise SystemExit(cli.main(sys.argv[2:]))
"""


def write(file: Path, rows: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def sentences(rows: list[dict]) -> list[dict]:
    return [{"sentence": row["text"], "label": row["label"]} for row in rows]


def questions(many: int, start: int = 0) -> list[dict]:
    texts = [f"这个{review(n, 'positive')[:4]}#idiom#。" for n in range(start, start + many)]
    return [{"content": text, "candidates": ["很好", "太差", "一般"], "answer": n % 2} for n, text in enumerate(texts)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """`data` with two of the nine tasks, and `tasks` with their files."""
    home = tmp_path_factory.mktemp("benchmark")
    for split in "01234":
        write(home / f"data/eprstmt/train_{split}.json", sentences(reviews(4, 4 * int(split))))
        write(home / f"data/chid/train_{split}.json", questions(6, 6 * int(split)))
    write(home / "data/eprstmt/test_public_even.json", sentences(reviews(6, 40)))
    write(home / "data/eprstmt/unlabeled.json", [{"sentence": review(n, "negative")} for n in range(100, 160)])
    write(home / "data/chid/test_public.json", questions(8, 60))
    choice = definition_of(name="chid", kind="multiple-choice", labels=[], templates=["{text|blank:#idiom#}"] * 1)
    for definition in (definition_of(name="eprstmt"), choice):
        file = home / f"tasks/{definition['name']}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(definition, ensure_ascii=False))
    return home


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(methods, "FEWEST_STEPS", 6)
    monkeypatch.setattr(methods, "MOST_STEPS", 6)


@pytest.fixture
def settings(folder, tmp_path) -> BenchmarkSettings:
    return BenchmarkSettings(
        folder / "data", ("eprstmt", "chid"), CHEAP, ("0",), (0,), TINY_MODEL, folder / "tasks", tmp_path, threads=1
    )


def arguments(folder: Path, work: Path, *more: str) -> list[str]:
    options = {"--base": TINY_MODEL, "--task-files": folder / "tasks", "--work": work, "--threads": 1}
    given = [str(part) for option in options.items() for part in option]
    return ["benchmark", str(folder / "data"), "--tasks", "eprstmt,chid", "--splits", "0", *given, *more]


class TestCells:
    def test_hold_what_was_said_of_every_test_row(self, settings):
        result = benchmark.compute(settings, Place("eprstmt", "zero-shot", "0", 0))
        assert result["state"] == "done"
        assert (len(result["hits"]), set(result["hits"])) == (12, {"0", "1"})
        assert 0 < result["macroF1"] < 1
        assert all(0.5 <= p <= 1 for p in result["confidence"])
        (file,) = (settings.work / "cells").iterdir()
        assert read_json(file) == result

    def test_say_on_which_processor_but_are_no_others_on_another_one(self, settings, tmp_path, monkeypatch):
        place = Place("eprstmt", "zero-shot", "0", 0)
        result = benchmark.compute(settings, place)
        assert result["processor"]["model"]
        flags = result["processor"]["flags"]
        if Path("/proc/cpuinfo").exists():
            assert flags == sorted(set(flags) & set(Path("/proc/cpuinfo").read_text().split()))
        monkeypatch.setattr(benchmark, "processor", lambda: {"model": "another", "flags": []})
        there = benchmark.compute(replace(settings, work=tmp_path / "there"), place)
        assert (there["processor"]["model"], there["key"]) == ("another", result["key"])

    def test_are_computed_once(self, settings, monkeypatch):
        benchmark.benchmark(settings, None, True)
        monkeypatch.setattr(methods, "Prompted", None)
        assert benchmark.benchmark(settings, None, True) == 0

    def test_are_kept_where_it_is_said_and_found_there_without_the_rest(self, settings, tmp_path, monkeypatch):
        kept = replace(settings, cells=tmp_path / "kept")
        place = Place("eprstmt", "zero-shot", "0", 0)
        result = benchmark.compute(kept, place)
        (file,) = (tmp_path / "kept").iterdir()
        assert not (settings.work / "cells").exists()
        assert "好" not in file.read_text() and "positive" not in file.read_text()
        monkeypatch.setattr(methods, "Prompted", None)
        assert benchmark.compute(replace(kept, work=tmp_path / "other"), place) == result

    def test_are_the_same_again(self, settings, tmp_path):
        again = replace(settings, work=tmp_path / "again")
        for method in ("zero-shot", "pet", "pet-ensemble", "pet+mixup", "pet+r-drop+fgm", "fine-tune", "efl"):
            place = Place("eprstmt", method, "0", 0)
            first, second = (benchmark.compute(s, place) | {"seconds": 0} for s in (settings, again))
            assert first == second

    @pytest.mark.parametrize(
        "change",
        [{"limit_test": 3}, {"threads": 2}, {"place": ("1", 0)}, {"place": ("0", 1)}, {"template": "{text}{mask}"}],
    )
    def test_have_another_key_where_anything_differs(self, settings, change, tmp_path):
        place = Place("eprstmt", "zero-shot", *change.pop("place", ("0", 0)))
        template = change.pop("template", None)
        if template:
            written = json.loads((settings.task_files / "eprstmt.yaml").read_text()) | {"templates": [template]}
            (tmp_path / "eprstmt.yaml").write_text(json.dumps(written))
            change = {"task_files": tmp_path}
        first = benchmark.compute(settings, Place("eprstmt", "zero-shot", "0", 0))
        assert benchmark.compute(replace(settings, **change), place)["key"] != first["key"]

    def test_have_the_same_key_where_what_differs_is_not_read(self, settings, tmp_path):
        written = json.loads((settings.task_files / "eprstmt.yaml").read_text())
        (tmp_path / "eprstmt.yaml").write_text(json.dumps(written | {"pool": {"capacity": 5}}))
        changed = replace(settings, task_files=tmp_path)

        def keys(name: str) -> set[str]:
            method = methods.METHODS[name]
            cells = (benchmark.cell_of(s, Place("eprstmt", name, "0", 0)) for s in (settings, changed))
            return {key_of(cell, name, method.settings, method.reads) for cell in cells}

        assert (len(keys("zero-shot")), len(keys("full"))) == (1, 2)

    def test_have_another_key_where_a_run_gets_another_number_of_unlabelled_texts(self, settings, tmp_path):
        written = json.loads((settings.task_files / "eprstmt.yaml").read_text())
        learning = written.get("learning", {}) | {"unlabelled": 500}
        (tmp_path / "eprstmt.yaml").write_text(json.dumps(written | {"learning": learning}))
        changed = replace(settings, task_files=tmp_path)
        method = methods.METHODS["pet"]
        cells = (benchmark.cell_of(s, Place("eprstmt", "pet", "0", 0)) for s in (settings, changed))
        assert len({key_of(cell, "pet", method.settings, method.reads) for cell in cells}) == 2

    def test_that_are_not_finished_are_told_where_nothing_is_to_be_computed(self, settings, capsys):
        benchmark.compute(settings, Place("eprstmt", "zero-shot", "0", 0))
        assert benchmark.benchmark(replace(settings, finished=True), None, True) == 0
        states = [cell["state"] for cell in json.loads(capsys.readouterr().out)["cells"]]
        assert states == ["done", "open", "open", "open"]

    def test_of_choices_are_predicted_too_but_not_mixed(self, settings):
        result = benchmark.compute(settings, Place("chid", "pet", "0", 0))
        assert (result["state"], len(result["hits"])) == ("done", 8)
        refused = benchmark.compute(settings, Place("chid", "pet+mixup", "0", 0))
        assert (refused["state"], "cannot be mixed" in refused["reason"]) == ("n/a", True)

    def test_of_a_pet_task_do_not_depend_on_its_input_but_for_the_other_methods(self, settings, tmp_path):
        written = json.loads((settings.task_files / "eprstmt.yaml").read_text())
        (tmp_path / "eprstmt.yaml").write_text(json.dumps(written | {"input": "评论：{text}"}))
        changed = replace(settings, task_files=tmp_path)
        same = {}
        for name in ("zero-shot", "pet", "full", "fine-tune", "efl", "embedding", "setfit"):
            method = methods.METHODS[name]
            cells = (benchmark.cell_of(s, Place("eprstmt", name, "0", 0)) for s in (settings, changed))
            same[name] = len({key_of(cell, name, method.settings, method.reads) for cell in cells}) == 1
        assert [name for name, equal in same.items() if not equal] == ["fine-tune", "efl", "embedding"]

    def test_that_fail_do_not_stop_the_others(self, settings, monkeypatch, capsys):
        broken = replace(methods.METHODS["pet"], predict=lambda cell: np.full((len(cell.test), cell.classes), np.nan))
        monkeypatch.setitem(methods.METHODS, "pet", broken)
        assert benchmark.benchmark(settings, None, True) == 1
        states = [cell["state"] for cell in json.loads(capsys.readouterr().out)["cells"]]
        assert states == ["done", "done", "failed", "failed"]


class TestEndedCommand:
    @pytest.mark.parametrize(("signal", "status"), [("SIGINT", 1), ("SIGTERM", 1), ("SIGKILL", -9)])
    def test_goes_on_behind_the_last_finished_cell(self, folder, tmp_path, signal, status):
        command = [sys.executable, "-c", RUN_UNTIL_SECOND_CELL, signal]
        given = arguments(folder, tmp_path, "--methods", "zero-shot,pet")
        environment = os.environ | {"PYTHONPATH": str(TRAINER)}
        ended = subprocess.run([*command, *given], env=environment, capture_output=True, text=True, timeout=120)
        assert ended.returncode == status, ended.stderr
        first = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "cells").iterdir()}
        assert sorted(name.rsplit("-", 1)[0] for name in first) == ["chid-zero-shot-0-0", "eprstmt-zero-shot-0-0"]
        if status == 1:
            assert "the same command goes on" in ended.stderr
        assert cli.main(given) == 0
        second = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "cells").iterdir()}
        assert len(second) == 4
        assert second.items() >= first.items()


class TestCommand:
    def test_ends_as_it_would_where_nobody_reads_the_table_to_its_end(self, folder, tmp_path):
        out = tmp_path / "table.md"
        given = arguments(folder, tmp_path, "--tasks", "eprstmt", "--methods", "zero-shot", "--out", str(out))
        command = [sys.executable, "-m", "fewloop_trainer", *given]
        environment = os.environ | {"PYTHONPATH": str(TRAINER)}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ended:
            ended.stdout.close()
            told = ended.stderr.read().decode()
            assert ended.wait(timeout=120) == 0, told
        assert "BrokenPipe" not in told
        assert "zero-shot" in out.read_text()

    def test_writes_markdown_and_json_and_tells_each_cell(self, folder, tmp_path, capsys):
        out = tmp_path / "deep/table.md"
        given = arguments(folder, tmp_path, "--methods", "zero-shot,pet,pet+mixup", "--out", str(out))
        assert cli.main(given) == 0
        told = capsys.readouterr()
        assert told.out.strip() == out.read_text().strip()
        assert "6/6 chid-pet+mixup-0-0: n/a" in told.err
        document = read_json(out.with_suffix(".json"))
        assert [cell["state"] for cell in document["cells"]] == ["done"] * 5 + ["n/a"]
        assert {"accuracy", "macroF1", "ece", "augrc", "seconds", "key"} <= document["cells"][0].keys()
        assert "hits" not in document["cells"][0], "the rows stay in the cell's own file"
        assert "## Minus pet, points" in told.out
        assert "| pet+mixup | " in told.out

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--methods", "magic"], "unknown method magic"),
            (["--tasks", "mnist"], "unknown task mnist"),
            (["--splits", "9"], "no split '9'"),
            (["--base", "/nowhere"], "/nowhere: no such folder; of a model on a hub"),
            (["--task-files", "/nowhere"], "cannot read the task file"),
        ],
    )
    def test_says_what_is_wrong(self, folder, tmp_path, capsys, more, message):
        assert cli.main(arguments(folder, tmp_path, "--methods", "zero-shot", *more)) == 2
        assert message in capsys.readouterr().err

    def test_refuses_rows_whose_label_the_task_file_lacks(self, settings, tmp_path):
        (tmp_path / "eprstmt.yaml").write_text(
            json.dumps(definition_of(name="eprstmt", labels=[{"name": "x", "words": ["好"]}]))
        )
        with pytest.raises(RunError, match="no label 'positive'"):
            benchmark.compute(replace(settings, task_files=tmp_path), Place("eprstmt", "pet", "0", 0))

    def test_refuses_labels_with_the_same_words(self, folder, tmp_path, capsys):
        labels = [{"name": "positive", "words": ["好"]}, {"name": "negative", "words": ["好"]}]
        (tmp_path / "eprstmt.yaml").write_text(json.dumps(definition_of(name="eprstmt", labels=labels)))
        given = ("--tasks", "eprstmt", "--methods", "zero-shot", "--task-files", str(tmp_path))
        assert cli.main(arguments(folder, tmp_path, *given)) == 2
        assert "'好' is a word of 'positive' and of 'negative'" in capsys.readouterr().err


class TestRecipe:
    def test_is_a_run_of_the_trainer_scored_by_its_members(self, settings, monkeypatch):
        scored = []
        predict_members = recipe.predict_members

        def watch(folder: Path, cell: Cell) -> dict[str, np.ndarray]:
            manifest = read_json(folder / "bundle/manifest.json")
            for member, weight in zip(manifest["members"], (0.9, 0.1, 1), strict=True):
                member["weight"] = weight
            (folder / "bundle/manifest.json").write_text(json.dumps(manifest))
            scored.append(folder)
            return predict_members(folder, cell)

        monkeypatch.setattr(recipe, "predict_members", watch)
        results = [
            benchmark.compute(settings, Place("eprstmt", method, "0", 0))
            for method in ("full", "full-student", "full@fused", "full-uniform")
        ]
        assert [result.get("reason") for result in results] == [None] * 4
        assert results[0]["confidence"] != results[3]["confidence"]
        assert len(scored) == 1, "one run serves them all: the task's own strategy is fused"
        assert results[1]["confidence"] == results[2]["confidence"], "what a selection is worth the student shows"
        assert results[0]["confidence"] != results[1]["confidence"]
        folder, _ = sorted((settings.work / "runs").iterdir())
        assert not (folder / "bundle").exists()
        assert read_json(folder / "run.json")["baseModel"]["folder"] == str(TINY_MODEL)

    @pytest.mark.parametrize(
        ("method", "differs"),
        [
            ("full@rounds", lambda run: run["definition"]["learning"]["rounds"] == 3),
            ("full+embedding", lambda run: run["definition"]["method"] == ["pet", "embedding"]),
            ("full<tapt", lambda run: run["definition"]["learning"].get("adaptation", {}).get("tapt", False)),
            ("full<multi-task", lambda run: run["baseModel"]["folder"] != str(TINY_MODEL)),
        ],
    )
    def test_is_varied_by_the_run_s_settings(self, settings, monkeypatch, method, differs):
        monkeypatch.setitem(lessons.STEPS, "pet", 2)
        runs: list[dict] = []

        def stop(folder: Path) -> int:
            runs.append(read_json(folder / "run.json"))
            (folder / "result.json").write_text('{"code": "X", "message": "no"}')
            return 1

        monkeypatch.setattr(recipe, "run", stop)
        for name in ("full", method):
            assert benchmark.compute(settings, Place("eprstmt", name, "0", 0))["reason"] == "RunError: no"
        assert [differs(run) for run in runs] == [False, True]

    def test_has_no_embedding_member_for_choices_and_shows_it_the_task_s_input(self, settings, tmp_path):
        assert benchmark.compute(settings, Place("chid", "full+embedding", "0", 0))["state"] == "n/a"
        written = json.loads((settings.task_files / "eprstmt.yaml").read_text())
        (tmp_path / "eprstmt.yaml").write_text(json.dumps(written | {"input": "评论：{text}"}))
        method, keys = methods.METHODS["full+embedding"], set()
        for folder in (settings.task_files, tmp_path):
            cell = benchmark.cell_of(replace(settings, task_files=folder), Place("eprstmt", "full+embedding", "0", 0))
            keys.add(key_of(cell, "full+embedding", method.settings, method.reads))
        assert len(keys) == 2

    def test_is_compared_without_what_the_task_file_adds(self, settings, tmp_path, monkeypatch):
        written = json.loads((settings.task_files / "eprstmt.yaml").read_text())
        added = {"method": ["pet", "embedding"], "learning": written["learning"] | {"adaptation": {"tapt": True}}}
        (tmp_path / "eprstmt.yaml").write_text(json.dumps(written | added))
        assert benchmark.compute(settings, Place("eprstmt", "full-pet", "0", 0))["state"] == "n/a"
        definitions: list[dict] = []

        def stop(folder: Path) -> int:
            definitions.append(read_json(folder / "run.json")["definition"])
            (folder / "result.json").write_text('{"code": "X", "message": "no"}')
            return 1

        monkeypatch.setattr(recipe, "run", stop)
        for name in ("full", "full-pet", "full<tapt", "full<base"):
            benchmark.compute(replace(settings, task_files=tmp_path), Place("eprstmt", name, "0", 0))
        assert [d["method"] == ["pet"] for d in definitions] == [False, True, False, False]
        assert [d["learning"]["adaptation"]["tapt"] for d in definitions] == [True, True, True, False]

    def test_strategies_of_selection_make_other_students_of_the_same_teachers(self, settings, tmp_path, monkeypatch):
        written = json.loads((settings.task_files / "eprstmt.yaml").read_text())
        # So that each lets some in: of the tiny model's labels none is sure.
        written["learning"]["selection"] |= {"threshold1": 0.5, "threshold2": 0.6, "threshold3": 0.51}
        (tmp_path / "eprstmt.yaml").write_text(json.dumps(written))
        settings, trained = replace(settings, task_files=tmp_path), []
        train = Run.train
        monkeypatch.setattr(
            Run, "train", lambda run, name, *given, **more: trained.append(name) or train(run, name, *given, **more)
        )
        monkeypatch.setattr(run_state, "FEWEST_ROWS_FOR_ALL_WEIGHTS", 4)
        results = {
            name: benchmark.compute(settings, Place("eprstmt", f"full@{name}", "0", 0)) for name in methods.SELECTIONS
        }
        assert [result.get("reason") for result in results.values()] == [None] * 3
        assert len({json.dumps(result["confidence"]) for result in results.values()}) == 3
        chosen = {
            json.loads(line)["strategy"]: {json.loads(each)["itemKey"] for each in lines}
            for file in (settings.work / "runs").glob("*/pseudo-labels.jsonl")
            for lines in [file.read_text().splitlines()]
            for line in lines[:1]
        }
        assert chosen.keys() == set(methods.SELECTIONS)
        assert len({frozenset(keys) for keys in chosen.values()}) == 3
        assert trained.count("student") == 3
        assert trained.count("t0-plain.fold0") == trained.count("t1-r-drop.fold1") == 1, "teachers are trained once"
        # As if it had been alone.
        alone = benchmark.compute(replace(settings, work=tmp_path / "alone"), Place("eprstmt", "full@fused", "0", 0))
        assert alone["confidence"] == results["fused"]["confidence"]

    def test_says_why_a_run_failed(self, settings, monkeypatch):
        monkeypatch.setattr(
            recipe, "run", lambda folder: (folder / "result.json").write_text('{"code":"X","message":"no"}')
        )
        result = benchmark.compute(settings, Place("eprstmt", "full", "0", 0))
        assert (result["state"], result["reason"]) == ("failed", "RunError: no")


class TestStarts:
    """Methods that start from a base model made for their cell."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch):
        monkeypatch.setitem(lessons.STEPS, "pet", 4)
        monkeypatch.setitem(lessons.STEPS, "efl", 4)
        monkeypatch.setattr(tapt, "FEWEST_TEXTS", 40)
        monkeypatch.setattr(tapt, "CHUNK_TOKENS", 8)

    @pytest.mark.parametrize("method", ["pet<tapt", "pet<multi-task"])
    def test_differ_from_those_that_start_from_the_base_and_leave_none(self, settings, tmp_path, method):
        place = Place("eprstmt", method, "0", 0)
        first = benchmark.compute(settings, place)
        assert first.get("reason") is None
        plain = benchmark.compute(settings, Place("eprstmt", "pet", "0", 0))
        assert first["confidence"] != plain["confidence"]
        again = benchmark.compute(replace(settings, work=tmp_path / "again"), place)
        assert first | {"seconds": 0} == again | {"seconds": 0}
        assert list((settings.work / "runs").iterdir()) == []

    def test_learn_from_train_rows_of_other_tasks_alone(self, settings, folder, tmp_path):
        cell = benchmark.cell_of(settings, Place("eprstmt", "pet<multi-task", "0", 0))
        assert [lesson.task.name for lesson in cell.lessons] == ["chid"]
        assert len(cell.lessons[0].train) == 30, "of all splits"
        tested = questions(1, 60)[0]["content"]
        shutil.copytree(folder / "data", tmp_path / "data")
        write(tmp_path / "data/chid/train_4.json", questions(2, 24) + questions(1, 60))
        write(tmp_path / "data/eprstmt/test_public_even.json", [{"sentence": tested, "label": "positive"}])
        changed = replace(settings, data=tmp_path / "data")
        other = benchmark.cell_of(changed, Place("eprstmt", "pet<multi-task", "0", 0))
        assert len(other.lessons[0].train) == 26
        assert tested not in [row["text"] for row in other.lessons[0].train]

    def test_have_another_key_where_the_other_tasks_rows_differ(self, settings, folder, tmp_path):
        shutil.copytree(folder / "data", tmp_path / "data")
        write(tmp_path / "data/chid/train_4.json", questions(5, 24))
        keys = {
            benchmark.compute(replace(settings, data=data), Place("eprstmt", method, "0", 0))["key"]
            for method in ("zero-shot", "pet<multi-task")
            for data in (settings.data, tmp_path / "data")
        }
        assert len(keys) == 3

    def test_are_none_without_other_rows_or_of_other_kinds(self, settings):
        refused = benchmark.compute(settings, Place("eprstmt", "efl<ocnli", "0", 0))
        assert (refused["state"], "efl does not go with" in refused["reason"]) == ("n/a", True)
        alone = replace(settings, tasks=("chid",))
        assert benchmark.compute(alone, Place("chid", "efl<bustm", "0", 0))["state"] == "n/a"

    def test_a_pair_task_starts_from_the_other(self, settings, tmp_path):
        for name in ("bustm", "ocnli"):
            labels = [{"name": "0", "words": ["好"]}, {"name": "1", "words": ["差"]}]
            definition = definition_of(name=name, kind="sentence-pair", labels=labels)
            (tmp_path / f"{name}.yaml").write_text(json.dumps(definition, ensure_ascii=False))
            rows = [
                {
                    "sentence1": review(n, "positive"),
                    "sentence2": review(n + len(name), "negative"),
                    "label": str(n % 2),
                }
                for n in range(30)
            ]
            for split in "01234":
                write(tmp_path / f"data/{name}/train_{split}.json", rows[4 * int(split) :][:4])
            write(tmp_path / f"data/{name}/test_public.json", rows[20:])
        pairs = replace(settings, data=tmp_path / "data", task_files=tmp_path)
        started, plain = (benchmark.compute(pairs, Place("bustm", m, "0", 0)) for m in ("efl<ocnli", "efl"))
        assert started.get("reason") is None
        assert started["confidence"] != plain["confidence"]
        own = benchmark.compute(pairs, Place("bustm", "efl<bustm", "0", 0))
        assert (own["state"], "no train rows of bustm" in own["reason"]) == ("n/a", True)

    def test_the_recipe_adapts_its_base_and_is_scored_on_it(self, settings, monkeypatch):
        monkeypatch.setattr(tapt, "FEWEST_TEXTS", 10)
        words = []
        predict_members = recipe.predict_members

        def watch(folder, cell):
            words.append((folder / "work/tapt.safetensors").exists())
            return predict_members(folder, cell)

        monkeypatch.setattr(recipe, "predict_members", watch)
        result = benchmark.compute(settings, Place("eprstmt", "full<tapt", "0", 0))
        assert result.get("reason") is None
        assert words == [True]


class TestPeers:
    def test_that_are_not_installed_are_skipped_with_the_reason(self, settings, monkeypatch):
        monkeypatch.setattr(peers, "_versions", lambda: {"setfit": "1"})
        result = benchmark.compute(settings, Place("eprstmt", "tf-idf", "0", 0))
        assert result["state"] == "skipped"
        assert "scikit-learn not installed" in result["reason"]
        assert benchmark.compute(settings, Place("chid", "tf-idf", "0", 0))["state"] == "n/a"

    def test_give_their_classes_to_the_labels_of_that_name(self, settings, monkeypatch):
        def start(module: str, given: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
            if given != ["versions"]:
                source, target = Path(given[1]), Path(given[2])
                rows = len(json.loads(source.read_text())["test"])
                answer = {"labels": ["negative", "positive"], "probabilities": [[0.9, 0.1]] * rows}
                target.write_text(json.dumps(answer))
            return subprocess.CompletedProcess(given, 0, "{}", "")

        monkeypatch.setattr(peers, "_start", start)
        monkeypatch.setattr(peers, "absent", lambda name: None)
        result = benchmark.compute(settings, Place("eprstmt", "setfit", "0", 0))
        assert result["hits"] == "01" * 6, "all are negative"
        assert set(result["confidence"]) == {0.9}

    def test_join_all_that_a_row_says(self):
        row = {"text": "一", "textPair": "二", "fields": {"b": "四", "a": "三", "n": 1}}
        assert peers.joined(row) == "三\n四\n一\n二"

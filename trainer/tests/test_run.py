"""Whole runs on the tiny model: what one leaves, that it goes on where it was ended, that it keeps its budget."""

import hashlib
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bundles import broken_entries, largest_golden_difference
from fewloop_trainer import admission, budget, pet, plan, run, run_state, training
from fewloop_trainer.keys import data_set_digest
from fewloop_trainer.run_report import figures_of_version
from fewloop_trainer.task import load_task
from fewloop_trainer.workspace import Workspace
from folders import (
    TINY_MODEL,
    definition_of,
    ordinary_run,
    read_json,
    read_lines,
    review,
    reviews,
    reviews_of,
    write_run,
)

END_YOURSELF = """
import os, pathlib, signal, sys
from fewloop_trainer import cli, run_state
folder, model, number = sys.argv[1:]
run_state.FEWEST_ROWS_FOR_ALL_WEIGHTS = 8
report = run_state.Run.report
def report_and_end(self, fraction, **metrics):
    report(self, fraction, **metrics)
    if metrics.get("model") == model:
        pathlib.Path(folder, "ended").touch()
        os.kill(os.getpid(), int(getattr(signal, number)))
run_state.Run.report = report_and_end
raise SystemExit(cli.main(["run", folder]))
"""


class TestFinishedRun:
    def test_says_that_it_is_done(self, finished_run):
        assert finished_run.status == 0
        result = read_json(finished_run.folder / "result.json")
        assert (result["ok"], result["version"], result["bundle"]) == (True, 2, "bundle")
        assert result["report"]["labelled"] == 20
        assert not list(finished_run.folder.rglob("*.partial*"))

    def test_told_its_progress_all_along(self, finished_run):
        lines = read_lines(finished_run.folder / "progress.jsonl")
        fractions = [line["progress"] for line in lines]
        assert fractions == sorted(fractions)
        assert lines[-1]["stage"] == "done"
        assert lines[-1]["progress"] == 1
        assert list(dict.fromkeys(line["stage"] for line in lines)) == [
            "offsets",
            "cross-fit",
            "teachers",
            "pseudo-labels",
            "student",
            "calibrate",
            "bundle",
            "done",
        ]
        assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)

    def test_said_how_long_it_would_take_before_it_began_to_train(self, finished_run):
        lines = read_lines(finished_run.folder / "progress.jsonl")
        said = [i for i, line in enumerate(lines) if "estimateSeconds" in line.get("metrics", {})]
        trained = [i for i, line in enumerate(lines) if "model" in line.get("metrics", {})]
        assert len(said) == 1
        assert said[0] < trained[0]
        assert 0 < lines[said[0]]["metrics"]["estimateSeconds"] < 600

    def test_reported_its_peak_memory(self, finished_run):
        peak = read_json(finished_run.folder / "bundle/report.json")["peakMemoryBytes"]
        assert 100e6 < peak < 16e9

    def test_left_a_bundle_that_verifies(self, finished_run):
        folder = finished_run.folder / "bundle"
        manifest = read_json(folder / "manifest.json")
        settings = read_json(finished_run.folder / "run.json")
        assert broken_entries(folder) == []
        assert {path.name for path in folder.iterdir()} == {
            "manifest.json",
            "golden.json",
            "report.json",
            "tokenizer.json",
            *(graph["file"] for graph in manifest["graphs"]),
        }
        for name in ("task", "version", "taskRevision", "definition", "definitionDigest"):
            assert manifest[name] == settings[name]
        assert manifest["origin"] == f"run:{settings['runId']}"
        assert manifest["rendering"] == 2
        assert manifest["baseModel"]["digest"] == settings["baseModel"]["digest"]
        data = manifest["trainingData"]
        assert (data["labelled"], data["pseudoLabelled"]) == (
            20,
            len(read_lines(finished_run.folder / "pseudo-labels.jsonl")),
        )
        for name in ("labelled", "unlabelled"):
            content = (finished_run.folder / f"{name}.jsonl").read_bytes()
            assert data[f"{name}Digest"] == hashlib.sha256(content).hexdigest()

    def test_trained_teachers_and_a_student_that_differ(self, finished_run):
        manifest = read_json(finished_run.folder / "bundle/manifest.json")
        roles = [(m["role"], m["strategy"]) for m in manifest["members"]]
        assert roles == [("teacher", "plain"), ("teacher", "r-drop"), ("student", "plain")]
        assert [m.get("teachers") for m in manifest["members"]] == [None, None, ["t0-plain", "t1-r-drop"]]
        assert sum(m["weight"] for m in manifest["members"] if m["role"] == "teacher") == pytest.approx(1)
        assert [set(m["offsets"]) for m in manifest["members"]] == [{"positive", "negative"}] * 3
        assert len({graph["sha256"] for graph in manifest["graphs"]}) == 3
        assert not any(policy["calibrated"] for policy in manifest["policies"].values()), "20 rows are too few"

    def test_exported_what_pytorch_computes(self, finished_run):
        rows = read_json(finished_run.folder / "bundle/golden.json")["rows"]
        assert max(len(entry["ids"]) for row in rows for entry in row["members"]) == 32, "one row is cut"
        assert largest_golden_difference(finished_run.folder / "bundle") < 1e-4

    def test_reported_every_labelled_row_out_of_fold(self, finished_run):
        report = read_json(finished_run.folder / "bundle/report.json")
        train = [row for row in read_lines(finished_run.folder / "labelled.jsonl") if row["split"] == "train"]
        rows = report["outOfFold"]["rows"]
        assert [(row["itemKey"], row["label"]) for row in rows] == [(row["itemKey"], row["label"]) for row in train]
        for row in rows:
            assert sum(row["distribution"]) == pytest.approx(1)
        assert report["onDev"]["student"]["rows"] == 11
        assert report["unlabelledDropped"] == 20
        assert all(steps > plan.MINIMUM_STEPS for steps in report["steps"].values())

    def test_reported_the_figures_of_the_contract_with_interval_and_data(self, finished_run):
        report = read_json(finished_run.folder / "bundle/report.json")
        rows = read_lines(finished_run.folder / "labelled.jsonl")
        dev = data_set_digest((row["itemKey"], [row["label"]]) for row in rows if row["split"] == "dev")
        assert report["figures"] == {"policy": "ensemble", "from": "dev", "rows": 11}
        for name in ("accuracy", "macroF1", "ece", "augrc"):
            assert report[name] == report["onDev"]["ensemble"][name] | {"digest": dev}
            assert len(report[name]["interval"]) == 2
        assert report["augrc"]["value"] == report["onDev"]["reliability"]["ensemble"]["riskCoverage"]["augrc"]
        latency = report["latency"]
        assert (latency["unit"], latency["texts"], latency["threads"]) == ("ms", 20, 1)
        assert 0 < latency["interval"][0] <= latency["value"] <= latency["interval"][1]
        assert latency["byPolicy"]["ensemble"] == {name: latency[name] for name in ("value", "interval")}
        assert latency["byPolicy"]["student"]["value"] > 0
        assert re.fullmatch("[0-9a-f]{64}", latency["digest"])


def test_without_dev_rows_the_figures_are_out_of_fold_and_a_student_has_none():
    train = [row | {"itemKey": row["text"]} for row in reviews(6)]
    figure, none, found = {"value": 0, "interval": [0, 1]}, {"rows": 0}, {}
    out_of_fold = {"rows": 12, "accuracy": figure, "macroF1": figure, "ece": figure, "augrc": figure}
    for policy in ("ensemble", "cascade", "student"):
        task = load_task(definition_of(serving={"policy": policy}))
        of = SimpleNamespace(task=task, data=SimpleNamespace(dev=[], train=train))
        found[policy] = figures_of_version(of, out_of_fold, {"ensemble": none, "student": none})
    digest = data_set_digest((row["itemKey"], [row["label"]]) for row in train)
    assert found["ensemble"] == found["cascade"]
    assert found["ensemble"]["figures"] == {"policy": "ensemble", "from": "outOfFold", "rows": 12}
    assert found["ensemble"]["augrc"] == figure | {"digest": digest}
    assert found["student"]["figures"] == {"policy": "student", "from": "dev", "rows": 0}
    assert found["student"]["accuracy"]["value"] is None
    assert found["student"]["accuracy"]["reason"] == "there is no labelled row that it was not trained on"


def end_at(folder: Path, model: str, number: str) -> tuple[int, float]:
    """Runs the folder in another process until `model` trains, then signals it; status, and seconds to its end."""
    process = subprocess.run([sys.executable, "-c", END_YOURSELF, str(folder), model, number], timeout=400)
    ended = time.time()
    return process.returncode, ended - (folder / "ended").stat().st_mtime


def finished_work(folder: Path) -> dict[str, int]:
    """Name and time of all that models leave when they are finished."""
    models = [*(folder / "work").glob("*.npz"), *(folder / "work").glob("*.safetensors")]
    finished = {path.stem for path in models}
    steps = [path for path in (folder / "work").glob("*.json") if path.stem in finished]
    return {path.name: path.stat().st_mtime_ns for path in (*models, *steps)}


class TestEndedRun:
    def test_goes_on_behind_the_last_finished_model_to_the_same_result(self, finished_run, tmp_path):
        folder = ordinary_run(tmp_path / "ended")
        status, seconds = end_at(folder, "t0-plain.fold1", "SIGTERM")
        assert (status, seconds < 10) == (1, True)
        assert read_json(folder / "result.json")["code"] == "STOPPED"
        first = finished_work(folder)
        assert set(first) == {"offsets.npz", "t0-plain.fold0.npz", "t0-plain.fold0.json"}

        status, _ = end_at(folder, "student", "SIGKILL")
        assert status == -9
        assert not (folder / "result.json").exists(), "the first attempt's must not be taken for this one's"
        second = finished_work(folder)
        assert second.items() >= first.items()
        assert {"t0-plain.safetensors", "t1-r-drop.safetensors", "pseudo.npz"} <= set(second)
        (folder / "bundle.partial").mkdir()
        (folder / "bundle.partial/left.onnx").write_text("by an attempt that was killed in its last stage")

        assert run.run(folder) == 0
        assert finished_work(folder).items() >= second.items()
        for name in ("pseudo-labels.jsonl", "bundle/golden.json", *(f"bundle/g{i}.onnx" for i in range(3))):
            assert (folder / name).read_bytes() == (finished_run.folder / name).read_bytes(), name
        reports = [read_json(f / "bundle/report.json") for f in (folder, finished_run.folder)]
        for report in reports:
            del report["seconds"], report["peakMemoryBytes"], report["latency"]
        assert reports[0] == reports[1]
        manifests = [read_json(f / "bundle/manifest.json") for f in (folder, finished_run.folder)]
        assert manifests[0]["policies"] == manifests[1]["policies"]
        assert broken_entries(folder / "bundle") == []


class Killed(BaseException):
    pass


@pytest.mark.parametrize("name", ["labelled", "unlabelled"])
def test_begins_anew_where_a_text_was_forgotten_meanwhile(monkeypatch, tmp_path, name):
    rows = reviews_of("train", 24)
    definition = definition_of(learning={"strategies": ["plain"]}, selection={"strategy": "top_confidence"})
    killed, whole = (
        write_run(tmp_path / of, rows[:14], rows[14:], definition, budgetSeconds=86_400) for of in ("killed", "whole")
    )

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(run, "train_student", kill)
        with pytest.raises(Killed):
            run.run(killed)
    for folder in (killed, whole):
        path = folder / f"{name}.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines[:2], *lines[3:]]))
        assert run.run(folder) == 0, read_json(folder / "result.json")
    for file in ("pseudo-labels.jsonl", "bundle/golden.json"):
        assert (killed / file).read_bytes() == (whole / file).read_bytes(), file


class TestInputsOfAWorkspace:
    OLD, NEW = ({"labelled": digest, "unlabelled": "u"} for digest in ("old", "new"))

    def workspace(self, folder: Path, inputs: dict[str, str] | None) -> Workspace:
        """With what a stage and an adaptation left."""
        workspace = Workspace(folder)
        if inputs is not None:
            workspace.take_inputs(inputs, first=True)
        (workspace.work / "tapt").mkdir()
        for name in ("offsets.npz", "tapt.safetensors", "tapt.json", "tapt/corpus"):
            (workspace.work / name).touch()
        return workspace

    @pytest.mark.parametrize(("inputs", "kept"), [(OLD, False), (NEW, True), (None, True)])
    def test_keep_what_is_of_the_same_rows_alone(self, tmp_path, inputs, kept):
        workspace = self.workspace(tmp_path, inputs)
        workspace.take_inputs(self.NEW, first=True)
        left = {path.name for path in workspace.work.iterdir()} - {"inputs.json"}
        assert left == ({"offsets.npz", "tapt.safetensors", "tapt.json", "tapt"} if kept else set())
        assert read_json(workspace.work / "inputs.json") == self.NEW

    def test_are_taken_by_the_first_process_and_waited_for_by_the_others(self, tmp_path, monkeypatch):
        workspace = self.workspace(tmp_path, self.OLD)
        waited = SimpleNamespace(sleep=lambda _: workspace.take_inputs(self.NEW, first=True))
        monkeypatch.setattr("fewloop_trainer.workspace.time", waited)
        workspace.take_inputs(self.NEW, first=False)
        assert [path.name for path in workspace.work.iterdir()] == ["inputs.json"]


class TestAtWork:
    def test_is_said_at_most_twice_a_minute_and_moves_no_progress(self, monkeypatch, tmp_path):
        state = run_state.Run(write_run(tmp_path, reviews(4), []))
        clock = SimpleNamespace(now=time.monotonic())
        monkeypatch.setattr(run_state, "time", SimpleNamespace(monotonic=lambda: clock.now))
        state.enter("bundle", 0.94)
        for _ in range(100):
            clock.now += 1
            state.at_work()
        lines = read_lines(tmp_path / "progress.jsonl")
        assert [(line["stage"], line["progress"]) for line in lines] == [("bundle", 0.94)] * (1 + 3)
        state.report(0.95)
        state.at_work()
        assert len(read_lines(tmp_path / "progress.jsonl")) == 1 + 3 + 1

    def test_is_said_while_candidates_are_scored_and_precisions_are_compared(self, monkeypatch, tmp_path):
        monkeypatch.setattr(run_state, "SILENT_SECONDS", 0.0)
        monkeypatch.setattr(admission, "FEWEST_TEXTS", 30)
        monkeypatch.setattr(run, "BUDGET_SHARE", 1e6)  # there is time to compare, however little to train
        rows = reviews_of("train", 60)
        serving = {"policy": "ensemble", "precisions": ["fp32", "fp16"]}
        definition = definition_of(serving=serving, learning={"strategies": ["plain"]})
        assert run.run(write_run(tmp_path, rows[:12], rows[12:], definition, budgetSeconds=0.1)) == 0
        lines = read_lines(tmp_path / "progress.jsonl")
        silent = Counter(line["stage"] for line in lines if "metrics" not in line)
        # Beside the lines that begin the stage and end each of the two teachers.
        assert silent["pseudo-labels"] > 1 + 2
        # Three members, and of each what is recorded, one graph's making and two graphs' answers.
        assert silent["bundle"] >= 1 + 3 + 3 * 4
        fractions = [line["progress"] for line in lines]
        assert fractions == sorted(fractions)


def test_few_rows_tune_heads_alone(monkeypatch, tmp_path, tiny_model):
    monkeypatch.setattr(run_state, "FEWEST_ROWS_FOR_ALL_WEIGHTS", 25)
    rows = reviews_of("train", 40)
    folder = write_run(tmp_path, rows[:24], rows[24:])
    assert run.run(folder) == 0
    report = read_json(folder / "bundle/report.json")
    assert list(report["steps"]) == ["student"]
    assert report["outOfFold"]["shrinkage"]["share"] == 0
    base = tiny_model.state_dict()
    for teacher in ("t0-plain", "t1-r-drop"):
        stored = load_file(folder / f"work/{teacher}.safetensors")
        moved = {name for name, tensor in stored.items() if not torch.equal(tensor, base[name].half())}
        assert moved
        assert all(name.startswith("cls.predictions.transform.") for name in moved)
    assert broken_entries(folder / "bundle") == []


def test_few_rows_tune_all_weights_of_a_base_that_knows_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(run_state, "FEWEST_ROWS_FOR_ALL_WEIGHTS", 25)
    rows = reviews_of("train", 40)
    other = {"positive": "negative", "negative": "positive"}
    labelled = [row | {"label": other[row["label"]]} for row in rows[:24]]
    folder = write_run(tmp_path, labelled, rows[24:])
    assert run.run(folder) == 0
    report = read_json(folder / "bundle/report.json")
    assert report["outOfFold"]["shrinkage"]["base_knows"] is False
    assert {"t0-plain", "t1-r-drop", "student"} <= set(report["steps"])


class SlowMachine:
    """A clock that only models move: training by `seconds` a step, after `turns_after` steps by `factor` times that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float, turns_after: int, factor: float):
        self.now, self.steps = 0.0, 0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        train, predict = pet.train, pet.predict

        def slow_train(model, rows, wanted, strategy, settings, offsets, on_step, *further):
            def on_slow_step(step: int, loss: float) -> None:
                self.steps += 1
                slower = factor if self.steps > turns_after else 1.0
                self.now += seconds * slower * (2 if strategy == "r-drop" else 1)
                on_step(step, loss)

            train(model, rows, wanted, strategy, settings, offsets, on_slow_step, *further)

        def slow_predict(model, rows, classes, **settings):
            self.now += 0.01 * seconds * len(rows)
            return predict(model, rows, classes, **settings)

        monkeypatch.setattr(pet, "predict", slow_predict)
        for module in (run, run_state, budget, plan, training):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(pet, "train", slow_train)


@pytest.mark.parametrize(("turns_after", "factor"), [(0, 1.0), (40, 3.0)], ids=["slow", "turning slow"])
def test_the_budget_is_kept(monkeypatch, tmp_path, turns_after, factor):
    machine = SlowMachine(monkeypatch, 1.0, turns_after, factor)
    rows = reviews_of("train", 30)
    folder = write_run(tmp_path, rows[:12], rows[12:], budgetSeconds=200)
    assert run.run(folder) == 0
    assert 100 < machine.now <= 200
    steps = read_json(folder / "bundle/report.json")["steps"]
    assert sum(steps.values()) < 200
    assert min(steps.values()) >= plan.MINIMUM_STEPS


def quick(folder: Path, labelled: list[dict], unlabelled: list[dict], definition: dict) -> Path:
    """A finished run of as few steps as the budget can force."""
    assert run.run(write_run(folder, labelled, unlabelled, definition, budgetSeconds=0.1)) == 0
    assert broken_entries(folder / "bundle") == []
    assert largest_golden_difference(folder / "bundle") < 1e-4
    return folder


class TestKinds:
    def test_pairs(self, tmp_path):
        definition = definition_of(
            kind="sentence-pair",
            labels=[{"name": "same", "words": ["对"]}, {"name": "other", "words": ["错"]}],
            templates=["{text}？{mask}，{textPair}"],
        )
        rows = [
            {"text": review(n, "positive"), "textPair": review(n + k, "positive"), "label": label}
            for n in range(6)
            for k, label in enumerate(("same", "other"))
        ]
        folder = quick(tmp_path, rows, [], definition)
        golden = read_json(folder / "bundle/golden.json")["rows"]
        assert len(golden) == 5
        assert all("textPair" in row["item"] for row in golden)
        assert read_json(folder / "result.json")["report"]["pseudoLabels"]["selected"] == 0

    def test_choices_of_different_number_and_length(self, tmp_path):
        definition = definition_of(
            kind="multiple-choice", labels=[], templates=["{text|blank:#idiom#}", "填空：{text|blank:#idiom#}"]
        )
        pairs, threes = ["很好", "太差"], ["好", "差", "慢"]
        rows = [
            {"text": f"{review(n, 'positive')}，#idiom#。", "choices": choices, "label": choices[n % len(choices)]}
            for n in range(8)
            for choices in (threes if n % 3 else pairs,)
        ]
        pool = [
            {"text": f"#idiom#，{review(n, 'negative')}", "choices": pairs if n % 2 else threes} for n in range(20, 60)
        ]
        folder = quick(tmp_path, rows, pool, definition)
        report = read_json(folder / "bundle/report.json")
        for row, out in zip(rows, report["outOfFold"]["rows"], strict=True):
            assert sum(out["distribution"][: len(row["choices"])]) == pytest.approx(1), "no mass on absent choices"
        members = read_json(folder / "bundle/manifest.json")["members"]
        assert all(member["labelWords"] == {} and member["offsets"] == {} for member in members)

    def test_label_words_of_several_tokens(self, tmp_path):
        definition = definition_of(
            labels=[{"name": "positive", "words": ["很好", "不错"]}, {"name": "negative", "words": ["太差"]}],
            templates=["{mask}！{text}"],
            learning={"strategies": ["plain"]},
        )
        folder = quick(tmp_path, reviews(4), [], definition)
        entry = read_json(folder / "bundle/golden.json")["rows"][0]["members"][0]
        assert len(entry["maskPositions"]) == 2


class TestRefusedRun:
    def result_of(self, folder: Path) -> dict:
        assert run.run(folder) == 1
        assert not (folder / "bundle").exists()
        return read_json(folder / "result.json")

    def test_gives_the_caller_the_code_and_the_reason(self, tmp_path):
        result = self.result_of(write_run(tmp_path, [*reviews(1), {"text": "好", "label": "neutral"}], []))
        assert (result["ok"], result["code"]) == (False, "BAD_INPUT")
        assert "neutral" in result["message"]

    def test_has_another_base_model_than_was_agreed(self, tmp_path):
        base = {"name": "tiny", "folder": str(TINY_MODEL), "digest": "0" * 64}
        result = self.result_of(write_run(tmp_path, reviews(2), [], baseModel=base))
        assert result["code"] == "BAD_INPUT"
        assert "digest" in result["message"]

    def test_is_not_a_crash_where_something_unforeseen_fails(self, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise MemoryError("no more")

        monkeypatch.setattr(run_state, "load_model", fail)
        result = self.result_of(write_run(tmp_path, reviews(2), []))
        assert (result["code"], result["message"]) == ("INTERNAL", "MemoryError: no more")

    def test_does_not_leave_a_bundle_whose_graph_differs_from_pytorch(self, tmp_path, monkeypatch):
        def damaged(template, base, model, path):
            with pytest.MonkeyPatch.context() as patched:
                state = model.state_dict()
                name = "bert.encoder.layer.1.output.dense.weight"
                patched.setitem(state, name, 1.5 * state[name])
                patched.setattr(model, "state_dict", lambda: state)
                export_from(template, base, model, path)

        from fewloop_trainer import export

        export_from = export.export_from
        monkeypatch.setattr(export, "export_from", damaged)
        folder = write_run(tmp_path, reviews(2), [], budgetSeconds=0.1)
        result = self.result_of(folder)
        assert result["code"] == "INTERNAL"
        assert "differs from PyTorch" in result["message"]


def test_teachers_are_one_a_template_or_one_a_strategy():
    def teachers(templates, *strategies, method=("pet",)):
        task = load_task(
            definition_of(method=method, templates=["{mask}{text}"] * templates, learning={"strategies": strategies})
        )
        return [(t.method, t.template, t.strategy) for t in run_state.plan_teachers(task)]

    assert teachers(3, "plain", "r-drop") == [("pet", 0, "plain"), ("pet", 1, "r-drop"), ("pet", 2, "plain")]
    assert teachers(1, "plain", "r-drop") == [("pet", 0, "plain"), ("pet", 0, "r-drop")]
    assert teachers(1, "plain", "fgm", method=("pet", "efl", "embedding")) == [
        ("pet", 0, "plain"),
        ("pet", 0, "fgm"),
        ("efl", 0, "plain"),
        ("efl", 0, "fgm"),
        ("embedding", 0, "plain"),
    ]


METHODS_LABELS = [
    {"name": "positive", "words": ["好"], "description": "很好。"},
    {"name": "negative", "words": ["差"], "description": "很差。"},
]


class TestMethods:
    @pytest.mark.parametrize("method", ["fine-tune", "efl", "embedding"])
    def test_alone(self, tmp_path, method):
        definition = definition_of(
            method=[method], templates=[], labels=METHODS_LABELS, learning={"strategies": ["plain"]}
        )
        rows = reviews_of("train", 30)
        folder = quick(tmp_path, rows[:12], rows[12:], definition)
        manifest = read_json(folder / "bundle/manifest.json")
        assert {m["method"] for m in manifest["members"]} == {method}
        assert {g["kind"] for g in manifest["graphs"]} == {"classifier"}
        assert all(("hypotheses" in m) == (method == "efl") for m in manifest["members"])
        assert read_json(folder / "bundle/report.json")["outOfFold"]["zeroShot"] is None

    def test_more_labels_than_the_shortlist_holds(self, tmp_path):
        labels = [*METHODS_LABELS, {"name": "slow", "words": [], "description": "很慢。"}]
        definition = definition_of(
            method=["efl"], templates=[], labels=labels, efl={"shortlist": 2}, learning={"strategies": ["plain"]}
        )
        rows = reviews_of("train", 30)
        folder = quick(tmp_path, rows[:12], rows[12:], definition)
        members = read_json(folder / "bundle/manifest.json")["members"]
        assert [m["shortlist"]["size"] for m in members] == [2, 2]
        recall = read_json(folder / "bundle/report.json")["outOfFold"]["shortlistRecall"]
        assert 0.3 < recall["efl-plain"] <= 1

    def test_a_committee_of_all(self, tmp_path):
        definition = definition_of(
            method=["pet", "fine-tune", "efl", "embedding"], labels=METHODS_LABELS, learning={"strategies": ["plain"]}
        )
        rows = reviews_of("train", 30)
        folder = quick(tmp_path, rows[:12], rows[12:], definition)
        members = read_json(folder / "bundle/manifest.json")["members"]
        assert [m["id"] for m in members if m["role"] == "teacher"] == [
            "t0-plain",
            "t1-plain",
            "fine-tune-plain",
            "efl-plain",
            "embedding-plain",
        ]

    def test_pairs_with_random_negatives(self, tmp_path):
        definition = definition_of(
            kind="sentence-pair",
            method=["efl", "fine-tune"],
            labels=[{"name": "same", "words": []}, {"name": "other", "words": []}],
            templates=[],
            efl={"negatives": 1, "negativeLabel": "other"},
            learning={"strategies": ["r-drop"]},
        )
        rows = [
            {"text": review(n, "positive"), "textPair": review(n + k, "positive"), "label": label}
            for n in range(6)
            for k, label in enumerate(("same", "other"))
        ]
        folder = quick(tmp_path, rows, [], definition)
        entry = read_json(folder / "bundle/golden.json")["rows"][0]["members"][0]
        assert set(entry["typeIds"]) == {0, 1}

    @pytest.mark.parametrize("method", ["fine-tune", "efl", "embedding"])
    def test_label_sets(self, tmp_path, method):
        definition = definition_of(
            kind="multi-label",
            method=[method],
            labels=[*METHODS_LABELS, {"name": "long", "words": [], "description": "很长。"}],
            templates=[],
            learning={"strategies": ["plain"]},
        )
        rows = [
            {"text": row["text"], "labels": [row["label"], "long"] if "，" in row["text"] else [row["label"]]}
            for row in reviews_of("train", 60)
        ]
        rows[3]["labels"] = []
        folder = quick(tmp_path, rows[60:84], rows[:60], definition)
        report = read_json(folder / "bundle/report.json")
        assert report["outOfFold"]["rows"][0]["labels"] == rows[60]["labels"]
        assert set(report["outOfFold"]["ensemble"]) >= {"accuracy", "macroF1", "microF1", "ece"}
        manifest = read_json(folder / "bundle/manifest.json")
        assert set(manifest["thresholds"]) == {"positive", "negative", "long"}
        for member in manifest["members"]:
            assert set(member["offsets"]) == {"positive", "negative", "long"}
            assert all(member["offsets"].values()), "none is left as training had it"
        said = np.mean([row["distribution"] for row in report["outOfFold"]["rows"]], axis=0)
        shares = [np.mean([name in row["labels"] for row in rows[60:84]]) for name in manifest["thresholds"]]
        np.testing.assert_allclose(said, shares, atol=0.1)
        for line in read_lines(folder / "pseudo-labels.jsonl"):
            assert set(line["labels"]) <= {"positive", "negative", "long"}

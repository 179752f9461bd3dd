"""Runs of several processes, and trainings that need less memory: to what they come is what they came to without."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from bundles import broken_entries
from fewloop_trainer import budget, classifier, cli, run, run_state
from fewloop_trainer.classifier import classifier_of
from fewloop_trainer.files import write_json
from fewloop_trainer.fitting import fitting
from fewloop_trainer.processes import Place, owners, place_of, run_several
from fewloop_trainer.stop import Stopped
from fewloop_trainer.training import NO_SAVING, Saving, TrainSettings, recompute
from folders import ROOT, definition_of, read_json, reviews, reviews_of, write_run

OTHER = {"positive": "negative", "negative": "positive"}


def trained_run(folder: Path) -> Path:
    """A run whose base is wrong on all rows, so that all weights are trained, for as many steps as are wished."""
    rows = reviews_of("train", 30)
    return write_run(folder, [row | {"label": OTHER[row["label"]]} for row in rows[:16]], rows[16:])


def test_two_processes_come_to_what_one_comes_to(monkeypatch, tmp_path):
    monkeypatch.setattr(run_state, "FEWEST_ROWS_FOR_ALL_WEIGHTS", 100)  # as in processes of their own
    alone, both = trained_run(tmp_path / "alone"), trained_run(tmp_path / "both")
    assert run.run(alone) == 0
    command = [sys.executable, "-m", "fewloop_trainer", "run", str(both), "--processes", "2"]
    ended = subprocess.run(command, cwd=ROOT / "trainer", capture_output=True, text=True, timeout=400)
    assert ended.returncode == 0, ended.stderr

    steps = {path.stem: read_json(path) for path in (both / "work").glob("*.json")}
    assert {steps[f"t0-plain.fold{k}"]["process"] for k in (0, 1)} == {0, 1}
    assert {steps[teacher]["process"] for teacher in ("t0-plain", "t1-r-drop")} == {0, 1}
    assert steps["student"]["process"] == 0

    assert broken_entries(both / "bundle") == []
    for name in ("pseudo-labels.jsonl", "bundle/golden.json", *(f"bundle/g{i}.onnx" for i in range(3))):
        assert (both / name).read_bytes() == (alone / name).read_bytes(), name
    reports = [read_json(folder / "bundle/report.json") for folder in (alone, both)]
    assert [report.pop("processes") for report in reports] == [1, 2]
    for report in reports:
        del report["seconds"], report["peakMemoryBytes"], report["latency"]
    assert reports[0] == reports[1]
    lines = (both / "progress.jsonl").read_text().splitlines()
    fractions = [json.loads(line)["progress"] for line in lines]
    assert fractions == sorted(fractions)


def test_a_process_that_is_stopped_for_another_keeps_that_ones_reason(monkeypatch, tmp_path):
    def stopped(*_: object) -> int:
        raise Stopped

    monkeypatch.setattr(run, "run", stopped)
    monkeypatch.setattr("fewloop_trainer.cli.raise_on_signal", lambda: None)
    result = tmp_path / "result.json"
    result.write_text('{"ok": false, "code": "INTERNAL"}')
    monkeypatch.setenv("RANK", "0")
    assert cli.main(["run", str(tmp_path)]) == 1
    assert read_json(result)["code"] == "INTERNAL"
    monkeypatch.delenv("RANK")
    assert cli.main(["run", str(tmp_path)]) == 1
    assert read_json(result)["code"] == "STOPPED"


@pytest.mark.parametrize(
    ("exit_code", "code", "says"),
    [
        (-9, "CRASHED", "process 1 was killed by signal 9: likely too little memory; take fewer processes"),
        (-11, "CRASHED", "process 1 was killed by signal 11"),
        (1, "STOPPED", "stopped from outside"),
    ],
)
def test_a_process_that_was_killed_is_said_to_have_been(monkeypatch, tmp_path, exit_code, code, says):
    def failing(_: object) -> None:
        write_json(tmp_path / "result.json", {"ok": False, "code": "STOPPED", "message": "stopped from outside"})
        raise ChildFailedError("run", {1: ProcessFailure(1, 4711, exit_code, "")})

    monkeypatch.setattr("torch.distributed.run.main", failing)
    assert run_several(tmp_path, 2, []) == 1
    result = read_json(tmp_path / "result.json")
    assert (result["code"], result["message"][: len(says)]) == (code, says)


def test_the_first_process_reports_while_it_waits_for_another(monkeypatch, tmp_path):
    monkeypatch.setattr(run_state, "SILENT_SECONDS", 0.0)
    waiting = run_state.Run(trained_run(tmp_path / "run"))
    waiting.place = Place(0, 2)
    waiting.enter("cross-fit", 0.08)
    waiting.owner["other"] = 1
    progress = waiting.folder / "progress.jsonl"
    reported = waiting.workspace.progress

    def finish_after_the_third(*line) -> None:
        reported(*line)
        if len(progress.read_text().splitlines()) == 4:
            np.savez(waiting.workspace.work / "other.npz", np.array([7]))

    monkeypatch.setattr(waiting.workspace, "progress", finish_after_the_third)
    polls = iter(range(10))
    monkeypatch.setattr("fewloop_trainer.workspace.time.sleep", lambda seconds: next(polls))
    assert waiting.shared({"other": lambda: {}}) == [[np.array([7])]]
    lines = [json.loads(line) for line in progress.read_text().splitlines()]
    assert {(line["stage"], line["progress"]) for line in lines} == {("cross-fit", 0.08)}


class TestOwners:
    def test_the_dearest_go_to_who_has_least(self):
        assert owners([1, 5, 2, 2], 2) == [1, 0, 1, 1]

    def test_jobs_that_cost_nothing_go_round(self):
        assert owners([0.0] * 5, 3) == [0, 1, 2, 0, 1]

    def test_one_process_has_all(self):
        assert owners([3, 1, 2], 1) == [0, 0, 0]


def test_a_place_is_torchruns_or_the_only_one():
    assert place_of({"RANK": "2", "WORLD_SIZE": "4"}) == Place(2, 4)
    assert place_of({}) == Place(0, 1)


def weights_after(tiny_model, renderer, strategy: str, saving: Saving, dropout: float) -> tuple[torch.Tensor, list]:
    """All weights of a classifier after three steps on eight rows, and the losses of these."""
    model = classifier_of(tiny_model, 2)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    if saving.recompute:
        recompute(model.bert)
    rows = classifier.encode(renderer, "{text}", reviews(8))
    losses: list[float] = []
    settings = TrainSettings(steps=3, saving=saving)
    wanted = np.eye(2)[[0, 1] * 8]
    classifier.train(model, rows, wanted, strategy, settings, lambda step, loss: losses.append(loss))
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), losses


@pytest.fixture
def exact(monkeypatch):
    """Nothing dropped, and no bf16, whose rounding depends on what else is in a product."""
    monkeypatch.setattr(classifier, "DROPOUT", 0.0)
    monkeypatch.setattr(classifier, "precision", lambda fast: torch.autocast("cpu", enabled=False))


@pytest.mark.parametrize("strategy", ["plain", "r-drop+fgm"])
def test_a_batch_in_parts_has_the_gradients_of_the_whole(tiny_model, sentiment, exact, strategy):
    whole, losses = weights_after(tiny_model, sentiment[1], strategy, NO_SAVING, 0.0)
    parts, parted = weights_after(tiny_model, sentiment[1], strategy, Saving(rows_at_once=3), 0.0)
    assert parted == pytest.approx(losses, abs=1e-5)
    began = torch.cat([p.detach().flatten() for p in classifier_of(tiny_model, 2).parameters()])
    assert (whole - began).abs().max() > 1e-4
    assert (whole - parts).abs().max() < 1e-5


def test_recomputed_layers_come_to_the_very_same(tiny_model, sentiment):
    layers = tiny_model.config.num_hidden_layers
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    layer = type(tiny_model.bert.encoder.layer[0].attention)
    hook = torch.nn.modules.module.register_module_forward_pre_hook(lambda m, _: count() if type(m) is layer else None)
    kept, losses = weights_after(tiny_model, sentiment[1], "plain", NO_SAVING, 0.1)
    once, passes = passes, 0
    anew, again = weights_after(tiny_model, sentiment[1], "plain", Saving(recompute=True), 0.1)
    hook.remove()
    assert (once, passes) == (3 * layers, 6 * layers)
    assert again == losses
    assert torch.equal(kept, anew)


def test_a_task_that_says_how_many_texts_gets_half_of_the_budget_to_score_them(tmp_path):
    rows = reviews_of("train", 60)
    counts = []
    for name, learning in (("left out", {}), ("asked", {"unlabelled": 200})):
        prepared = run_state.Run(write_run(tmp_path / name, rows[:16], rows[16:], definition_of(learning=learning)))
        prepared.plan.infer_cost = 1.0
        prepared.data.settings["budgetSeconds"] = 150 * budget.tokens_a_text(prepared)
        counts.append(len(budget.affordable_candidates(prepared)))
    assert counts == [22, 75]


class TestAsManyAsFit:
    """One a teacher, and so many as two cores each and memory allow; of a run that is over in a minute one."""

    @pytest.mark.parametrize(
        ("settings", "memory", "expected"),
        [
            ({"threads": 16}, 64e9, 4),  # teachers
            ({"threads": 5}, 64e9, 2),
            ({"threads": 2}, 64e9, 1),
            ({"threads": 16}, 5.0e9, 3),  # 0.8 GB each, and the tiny model's weights, in half of it
            ({"threads": 16}, 1e9, 1),
            ({"threads": 16, "budgetSeconds": 60}, 64e9, 1),
            ({"threads": 16, "baseModel": {"name": "none", "folder": "/nowhere", "digest": ""}}, 64e9, 1),
        ],
    )
    def test_by_what_is_short(self, tmp_path, settings, memory, expected):
        templates = [f"{{text}}{words}{{mask}}。" for words in ("很", "总之很", "真", "说来很")]
        settings = {"budgetSeconds": 600} | settings
        folder = write_run(tmp_path / "run", reviews_of("train", 4), [], definition_of(templates=templates), **settings)
        assert fitting(folder, memory) == expected

    def test_of_a_folder_that_is_no_run_one_which_says_so(self, tmp_path):
        assert fitting(tmp_path, 64e9) == 1

    def test_are_started_where_nobody_says_how_many(self, tmp_path, monkeypatch):
        started = []
        monkeypatch.setattr("fewloop_trainer.cli.raise_on_signal", lambda: None)
        monkeypatch.setattr("fewloop_trainer.fitting.fitting", lambda folder: 3)
        monkeypatch.setattr("fewloop_trainer.processes.run_several", lambda *said: started.append(said) or 0)
        assert cli.main(["run", str(tmp_path), "--processes", "auto"]) == 0
        assert started == [(tmp_path, 3, [])]

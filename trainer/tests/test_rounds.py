"""Self-training in rounds, committees of seeds, and students that are tried: whole runs on the tiny model."""

from collections import Counter

import numpy as np
import pytest

from bundles import broken_entries
from fewloop_trainer import pseudo, run, run_state, student
from folders import definition_of, read_json, read_lines, reviews_of, write_run
from test_run import end_at

ROWS = reviews_of("train", 60)
TAKES_ALL = {"strategy": "top_confidence"}


def finished(folder, learning: dict, selection: dict = TAKES_ALL, **settings):
    """A run of 12 labelled rows and 108 candidates, its report and its pseudo-labels."""
    definition = definition_of(learning=learning, selection=selection)
    folder = write_run(folder, ROWS[:12], ROWS[12:], definition, **{"budgetSeconds": 0.1} | settings)
    assert run.run(folder) == 0, read_json(folder / "result.json")
    return folder, read_json(folder / "bundle/report.json"), read_lines(folder / "pseudo-labels.jsonl")


class TestRounds:
    def test_each_learns_from_the_one_before_and_adds_to_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pseudo, "PSEUDO_LABELS", 30)
        learnt: dict[str, int] = {}
        train = run_state.Run.train

        def watched(self, name, learner, model, rows, *rest, **more):
            learnt[name] = len(rows)
            train(self, name, learner, model, rows, *rest, **more)

        monkeypatch.setattr(run_state.Run, "train", watched)
        folder, report, lines = finished(tmp_path, {"rounds": 3}, budgetSeconds=600)
        assert Counter(line["round"] for line in lines) == {1: 10, 2: 10, 3: 10}
        assert len({line["itemKey"] for line in lines}) == 30, "none is selected twice"
        assert {name: n for name, n in learnt.items() if "round" in name} == {
            "t0-plain.round2": 12 + 10,
            "t1-r-drop.round2": 12 + 10,
            "t0-plain.round3": 12 + 20,
            "t1-r-drop.round3": 12 + 20,
        }
        assert learnt["student"] == 12 + 30
        assert learnt["t0-plain.fold0"] < 12, "what is calibrated knows human labels alone"
        by_label = Counter(line["label"] for line in lines)
        assert max(by_label.values()) <= 15, "the ceilings are of all rounds together"
        assert [r["selected"] for r in report["pseudoLabels"]["rounds"]] == [10, 10, 10]
        assert all(0.25 <= r["temperature"] <= 4 for r in report["pseudoLabels"]["rounds"])
        assert report["pseudoLabels"]["stopped"] is None
        assert broken_entries(folder / "bundle") == []

    def test_every_pseudo_label_says_where_it_came_from(self, tmp_path):
        _, _, lines = finished(tmp_path, {"rounds": 2}, {"strategy": "fused", "floor": 0.0, "threshold2": 1.0})
        assert lines
        for line in lines:
            assert line["strategy"] == "fused"
            assert line["round"] in (1, 2)
            assert set(line["votes"]) == {"t0-plain", "t1-r-drop"}
            assert line["contested"] == any(vote != line["label"] for vote in line["votes"].values())
            assert 0.5 <= line["confidence"] <= 1

    def test_a_round_that_selects_nothing_is_the_last_and_says_so(self, tmp_path):
        nothing = {"strategy": "confident_contested", "threshold1": 1.0}
        _, report, lines = finished(tmp_path, {"rounds": 4}, nothing)
        assert lines == []
        assert report["pseudoLabels"]["stopped"] == "round 1 of 4 selected nothing"
        assert len(report["pseudoLabels"]["rounds"]) == 1
        assert not any("round" in name for name in report["steps"])

    def test_a_later_round_stops_where_every_candidate_is_taken(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pseudo, "PSEUDO_LABELS", 6000)
        # Label sets have no prior, so no ceilings: the first round takes all there is.
        definition = definition_of(
            kind="multi-label",
            method=["fine-tune"],
            templates=[],
            learning={"rounds": 3, "strategies": ["plain"]},
            selection=TAKES_ALL,
        )
        labelled = [{"text": row["text"], "labels": [row["label"]]} for row in ROWS[:12]]
        folder = write_run(tmp_path, labelled, ROWS[12:], definition, budgetSeconds=0.1)
        assert run.run(folder) == 0
        found = read_json(folder / "bundle/report.json")["pseudoLabels"]
        assert [r["selected"] for r in found["rounds"]] == [found["candidates"], 0]
        assert found["stopped"] == "round 2 of 3 selected nothing"
        lines = read_lines(folder / "pseudo-labels.jsonl")
        assert all(line["votes"] == {"fine-tune-plain": line["labels"]} for line in lines)


class TestSeeds:
    def test_make_teachers_that_differ_in_nothing_else_and_the_report_shows_their_spread(self, tmp_path):
        folder, report, _ = finished(tmp_path, {"seeds": 2, "strategies": ["plain"]})
        teachers = [m for m in read_json(folder / "bundle/manifest.json")["members"] if m["role"] == "teacher"]
        assert [t["id"] for t in teachers] == ["t0-plain", "t1-plain", "t0-plain-s2", "t1-plain-s2"]
        graphs = {t["id"]: t["graph"] for t in teachers}
        digests = {g["id"]: g["sha256"] for g in read_json(folder / "bundle/manifest.json")["graphs"]}
        assert len({digests[graph] for graph in graphs.values()}) == 4
        seeds = report["outOfFold"]["seeds"]
        assert len(seeds["each"]) == 2
        losses = [each["logLoss"] for each in seeds["each"]]
        assert seeds["logLoss"]["mean"] == pytest.approx(np.mean(losses))
        assert seeds["logLoss"]["standardDeviation"] == pytest.approx(np.std(losses, ddof=1))
        assert seeds["logLoss"]["standardDeviation"] > 0

    def test_uniform_weights_stand_beside_fitted_ones(self, tmp_path):
        _, report, _ = finished(tmp_path, {})
        combination = report["outOfFold"]["combination"]
        assert set(combination) == {"uniform", "fitted"}
        gain = combination["uniform"]["logLoss"] - combination["fitted"]["logLoss"]
        assert gain == pytest.approx(report["weights"]["gain"], abs=1e-9)


class TestTriedStudents:
    def test_the_first_is_as_the_teacher_is_that_is_right_most_often_not_as_the_one_that_is_least_sure(self):
        wanted = np.array([0, 1] * 20)
        right = np.ones(40, dtype=bool)
        right[:8] = False
        sure = np.where(right, 0.999, 0.001)
        timid = np.where(np.arange(40) < 22, 0.55, 0.45)
        of = [np.stack([np.where(wanted == c, p, 1 - p) for c in (0, 1)], axis=-1) for p in (timid, sure)]
        assert -np.log(of[1][np.arange(40), wanted]).mean() > -np.log(of[0][np.arange(40), wanted]).mean()
        assert student.best_of(np.stack(of), wanted) == 1

    def test_are_judged_on_rows_that_neither_they_nor_their_teachers_know(self, tmp_path, monkeypatch):
        fits, learnt, heard = [], [], []
        choose, learn, ask = run.choose_student, student.learn, student._train_and_ask

        def watched_choice(state, fit):
            fits.append(fit)
            return choose(state, fit)

        def watched_learning(state, name, learner, index, texts, soft, seed):
            learnt.append((name, set(index.tolist()), len(texts)))
            return learn(state, name, learner, index, texts, soft, seed)

        def watched_teachers(state, fit, number, variant, k, scores):
            stored = [np.load(state.workspace.work / f"{t.id}.fold{k}.npz")["candidates"] for t in state.teachers]
            share = state.shrinkage.share
            np.testing.assert_allclose(scores, [(1 - share) * s[0] + share * s[-1] for s in stored])
            heard.append(k)
            return ask(state, fit, number, variant, k, scores)

        monkeypatch.setattr(run, "choose_student", watched_choice)
        monkeypatch.setattr(student, "learn", watched_learning)
        monkeypatch.setattr(student, "_train_and_ask", watched_teachers)
        tried = {"templates": "all", "strategies": ["plain", "fgm"]}
        folder, report, _ = finished(tmp_path, {"student": tried})
        (fit,) = fits
        trials = [(name, index, texts) for name, index, texts in learnt if name.startswith("student-")]
        assert len(trials) == len(heard) == 4 * 2
        for name, index, texts in trials:
            held = set(np.flatnonzero(fit.fold == int(name[-1])).tolist())
            assert held
            assert index == set(range(12)) - held
            assert texts > 0
        losses = report["student"]["trials"]
        assert set(losses) == {"t0-plain", "t0-fgm", "t1-plain", "t1-fgm"}
        chosen = f"t{report['student']['template']}-{report['student']['strategy']}"
        assert chosen in losses
        member = read_json(folder / "bundle/manifest.json")["members"][-1]
        assert (member["role"], member["strategy"]) == ("student", report["student"]["strategy"])

    @pytest.mark.parametrize(
        ("third", "chosen"),
        [(np.full(12, 0.4), "t1-plain"), (np.linspace(-1.1, 2.9, 12), "t0-plain")],
        ids=["clearly", "within its error"],
    )
    def test_another_than_the_first_is_taken_where_it_is_clearly_better(self, tmp_path, monkeypatch, third, chosen):
        losses = [np.full(12, 1.0), np.full(12, 1.2), third, np.full(12, 1.1)]
        assert min(range(4), key=lambda v: losses[v].mean()) == 2
        monkeypatch.setattr(student, "_try", lambda *_: losses)
        _, report, _ = finished(tmp_path, {"student": {"templates": "all", "strategies": ["plain", "fgm"]}})
        assert list(report["student"]["trials"]) == ["t0-plain", "t0-fgm", "t1-plain", "t1-fgm"]
        assert f"t{report['student']['template']}-{report['student']['strategy']}" == chosen

    @pytest.mark.parametrize(("best", "steps"), [(0, 150), (2, 300)], ids=["pet", "fine-tune"])
    def test_take_the_steps_of_the_method_that_they_learn_by(self, tmp_path, monkeypatch, best, steps):
        monkeypatch.setattr(student, "best_of", lambda distributions, wanted: best)
        definition = definition_of(method=["pet", "fine-tune"], learning={"strategies": ["plain"]}, selection=TAKES_ALL)
        folder = write_run(tmp_path, ROWS[:12], ROWS[12:], definition, budgetSeconds=600)
        assert run.run(folder) == 0, read_json(folder / "result.json")
        assert read_json(folder / "bundle/report.json")["steps"]["student"] == steps

    def test_one_alone_is_not_tried(self, tmp_path):
        _, report, _ = finished(tmp_path, {"student": {"templates": "best", "strategies": ["r-drop"]}})
        assert report["student"]["trials"] is None
        assert report["student"]["strategy"] == "r-drop"
        assert not any(name.startswith("student-") for name in report["steps"])


def test_the_product_has_every_strategy_with_every_template():
    from fewloop_trainer.task import load_task

    task = load_task(definition_of(learning={"teachers": "product", "strategies": ["plain", "fgm"], "seeds": 2}))
    teachers = run_state.plan_teachers(task)
    assert len({t.id for t in teachers}) == len(teachers) == 8
    assert {(t.template, t.strategy, t.seed) for t in teachers} == {
        (template, strategy, seed) for template in (0, 1) for strategy in ("plain", "fgm") for seed in (0, 1)
    }


def test_a_run_of_every_kind_of_model_ends_the_same_whether_it_was_killed_or_not(tmp_path):
    learning = {"rounds": 2, "seeds": 2, "strategies": ["plain"], "student": {"strategies": ["plain", "r-drop"]}}
    definition = definition_of(templates=["很{mask}！{text}"], learning=learning, selection=TAKES_ALL)

    def of(name: str):
        # The time is no object: on a budget the steps would depend on the machine.
        return write_run(tmp_path / name, ROWS[:10], ROWS[10:40], definition, budgetSeconds=86_400)

    whole, killed = of("whole"), of("killed")
    for model in ("t0-plain-s2.fold1", "t0-plain-s2.round2", "student-1.fold0"):
        assert end_at(killed, model, "SIGKILL")[0] == -9
        assert not (killed / "result.json").exists()
    for folder in (whole, killed):
        assert run.run(folder) == 0
    for name in ("pseudo-labels.jsonl", "bundle/golden.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    reports = [read_json(folder / "bundle/report.json") for folder in (killed, whole)]
    for report in reports:
        del report["seconds"], report["peakMemoryBytes"], report["latency"]
    assert reports[0] == reports[1]
    assert {line["round"] for line in read_lines(whole / "pseudo-labels.jsonl")} == {1, 2}
    assert set(reports[0]["student"]["trials"]) == {"t0-plain", "t0-r-drop"}

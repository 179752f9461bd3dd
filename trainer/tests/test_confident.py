"""Labels in doubt: the rule, and that it finds what was mislabelled."""

import json
from types import SimpleNamespace

import numpy as np

from fewloop_trainer.confident import FEWEST_ROWS, label_issues, likelier_labels, write_label_issues
from fewloop_trainer.observe import Observations


def test_counts_a_row_towards_the_most_probable_label_whose_threshold_it_reaches():
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.35, 0.65], [0.4, 0.6], [0.2, 0.8]])
    given = np.array([0, 0, 0, 1, 1])
    # Thresholds: (0.9 + 0.7 + 0.35) / 3 = 0.65 and (0.6 + 0.8) / 2 = 0.7.
    # The third reaches neither, though it is likelier the other.
    assert likelier_labels(probabilities, given).tolist() == [0, 0, 0, 1, 1]
    # With 0.75 of label 1 it reaches that one's (its own label's falls to 0.617).
    probabilities[2] = [0.25, 0.75]
    assert likelier_labels(probabilities, given).tolist() == [0, 0, 1, 1, 1]


def test_is_no_matter_of_a_model_that_leans_to_one_label():
    # All say label 0, but rows of label 1 less so: none is in doubt.
    probabilities = np.array([[0.95, 0.05], [0.9, 0.1], [0.6, 0.4], [0.65, 0.35]])
    assert likelier_labels(probabilities, np.array([0, 0, 1, 1]))[2] == 1


def test_a_label_without_rows_is_nobodys():
    probabilities = np.array([[0.2, 0.1, 0.7], [0.3, 0.4, 0.3]])
    assert 2 not in likelier_labels(probabilities, np.array([0, 1])).tolist()


def made_run(kind: str, rows: int, tmp_path):
    """Rows of three labels, predicted with a little noise; every tenth has another label than it was made with."""
    rng = np.random.default_rng(3)
    names = ["a", "b", "c"]
    wrong = np.arange(0, rows, 10)
    if kind == "multi-label":
        true = rng.random((rows, 3)) < 0.4
        given = true.copy()
        given[wrong, 0] ^= True
        probabilities = np.where(true, 0.9, 0.1) + rng.uniform(-0.02, 0.02, (rows, 3))
        labels = [[n for n, yes in zip(names, row, strict=True) if yes] for row in given]
        train = [{"itemKey": f"k{i}", "labels": row} for i, row in enumerate(labels)]
    else:
        true = np.arange(rows) % 3
        given = true.copy()
        given[wrong] = (true[wrong] + 1) % 3
        probabilities = 0.9 * np.eye(3)[true] + 0.1 * rng.dirichlet([2, 2, 2], rows)
        train = [{"itemKey": f"k{i}", "label": names[g]} for i, g in enumerate(given)]
    task = SimpleNamespace(kind=kind, label_names=names, labels_of=lambda row: names)
    data = SimpleNamespace(train=train)
    run = SimpleNamespace(task=task, data=data, observe=Observations(task), wanted=given, classes=3, folder=tmp_path)
    return run, SimpleNamespace(ensemble=probabilities), wrong, true, names


def test_finds_what_was_mislabelled(tmp_path):
    run, fit, wrong, true, names = made_run("single-label", 200, tmp_path)
    lines = label_issues(run, fit)
    assert sorted(int(line["itemKey"][1:]) for line in lines) == wrong.tolist()
    for line in lines:
        assert line["likelier"] == [names[true[int(line["itemKey"][1:])]]] != [line["label"]]
        assert len(line["distribution"]) == 3
    doubts = [line["doubt"] for line in lines]
    assert doubts == sorted(doubts, reverse=True) and min(doubts) > 0.5 and max(doubts) <= 1


def test_of_label_sets_each_label_is_a_question(tmp_path):
    run, fit, wrong, true, names = made_run("multi-label", 200, tmp_path)
    lines = label_issues(run, fit)
    assert sorted(int(line["itemKey"][1:]) for line in lines) == wrong.tolist()
    for line in lines:
        assert line["likelier"] == [n for n, y in zip(names, true[int(line["itemKey"][1:])], strict=True) if y]


def test_says_nothing_of_few_rows(tmp_path):
    run, fit, *_ = made_run("single-label", FEWEST_ROWS - 1, tmp_path)
    assert write_label_issues(run, fit) == 0
    assert (tmp_path / "label-issues.jsonl").read_text() == ""
    run, fit, wrong, *_ = made_run("single-label", FEWEST_ROWS, tmp_path)
    assert write_label_issues(run, fit) == len(wrong) > 0
    lines = (tmp_path / "label-issues.jsonl").read_text().splitlines()
    assert {json.loads(line)["itemKey"] for line in lines} == {f"k{i}" for i in wrong}

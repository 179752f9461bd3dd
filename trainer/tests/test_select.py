import numpy as np
import pytest

from fewloop_trainer.select import select
from fewloop_trainer.task import Selection

UNIFORM = np.array([0.5, 0.5])


def selection(strategy: str, **changes: float) -> Selection:
    thresholds = {"threshold1": 0.8, "threshold2": 0.9, "threshold3": 0.6, "floor": 0.55}
    return Selection(strategy, **thresholds | changes)


def two_members(rows: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Distributions of two members over two labels, from their probabilities of label 0, and the mean."""
    members = np.array([[[p, 1 - p] for p in member] for member in zip(*rows, strict=True)])
    return members, members.mean(0)


def chosen(rows, how: Selection, prior: np.ndarray | None = None, limit: int = 100) -> dict[int, str]:
    """Row to rule, in the order of selection."""
    return {p.row: p.rule for p in select(*two_members(rows), how, prior, limit)}


def test_top_confidence_takes_the_surest_first_contested_or_not():
    rows = [(0.7, 0.8), (0.99, 0.97), (0.45, 0.95), (0.1, 0.05)]
    taken = chosen(rows, selection("top_confidence"), limit=3)
    assert list(taken) == [1, 3, 0]
    assert set(taken.values()) == {"most confident"}
    assert list(chosen(rows, selection("top_confidence"))) == [1, 3, 0, 2]


def test_confident_contested_takes_what_is_contested_and_over_threshold_1():
    three = np.array(
        [
            [[0.99, 0.01], [0.99, 0.01], [0.2, 0.8], [0.9, 0.1]],
            [[0.99, 0.01], [0.99, 0.01], [0.9, 0.1], [0.95, 0.05]],
            [[0.45, 0.55], [0.49, 0.51], [0.9, 0.1], [0.99, 0.01]],
        ]
    )
    mean = three.mean(0)
    assert mean[:, 0] == pytest.approx([0.81, 0.8233, 0.6667, 0.9467], abs=1e-3)
    taken = select(three, mean, selection("confident_contested"), None, 100)
    assert [p.row for p in taken] == [1, 0]
    assert {p.rule for p in taken} == {"contested, over threshold 1"}
    assert [p.row for p in select(three, mean, selection("confident_contested", threshold1=0.5), None, 100)] == [
        1,
        0,
        2,
    ]


def test_fused_takes_doubtful_agreement_and_confident_dissent():
    rows = [
        (0.99, 0.97),  # agreed, but nothing new: over threshold 2
        (0.8, 0.9),  # agreed, under threshold 2
        (0.52, 0.54),  # agreed, under the floor
        (0.99, 0.4),  # contested, over threshold 3
        (0.7, 0.45),  # contested, under threshold 3
    ]
    assert chosen(rows, selection("fused")) == {1: "agreed, under threshold 2", 3: "contested, over threshold 3"}
    assert 2 in chosen(rows, selection("fused", floor=0.5))
    assert 0 in chosen(rows, selection("fused", threshold2=1.0))
    assert 4 in chosen(rows, selection("fused", threshold3=0.5))


def test_an_unknown_strategy_is_an_error():
    with pytest.raises(ValueError, match="surest"):
        chosen([(0.7, 0.7)], selection("surest"))


def test_classes_have_ceilings_in_proportion_to_the_prior():
    rows = [(0.9 - i / 1000, 0.9 - i / 1000) for i in range(30)] + [(0.2, 0.2)] * 30
    taken = select(*two_members(rows), selection("top_confidence"), np.array([0.75, 0.25]), 20)
    assert [p.row for p in taken if p.label == 0] == list(range(15)), "the surest of the class"
    assert len([p for p in taken if p.label == 1]) == 5
    free = select(*two_members(rows), selection("top_confidence"), None, 20)
    assert {p.label for p in free} == {0}, "without a prior there is no ceiling"


def test_no_class_is_filled_up_with_what_no_rule_lets_in():
    # Label 1 is half of the prior, but only two of its rows are under threshold 2 and over the floor.
    rows = [(0.8, 0.8)] * 20 + [(0.2, 0.2)] * 2 + [(0.48, 0.48)] * 20 + [(0.01, 0.01)] * 20
    taken = select(*two_members(rows), selection("fused"), UNIFORM, 20)
    labels = [p.label for p in taken]
    assert labels.count(1) == 2
    assert labels.count(0) == 10, "nor does the other class get what this one leaves"


def test_ceilings_are_of_what_is_eligible_where_that_is_less_than_the_limit():
    rows = [(0.8, 0.8)] * 12 + [(0.2, 0.2)] * 4
    taken = select(*two_members(rows), selection("fused"), UNIFORM, 1000)
    assert [p.label for p in taken].count(0) == 8
    assert [p.label for p in taken].count(1) == 4


def test_a_pseudo_label_says_where_it_came_from():
    (surest, contested) = select(*two_members([(0.3, 0.2), (0.95, 0.45)]), selection("fused"), UNIFORM, 10)
    assert (surest.row, surest.label, surest.contested) == (0, 1, False)
    assert surest.confidence == pytest.approx(0.75)
    assert surest.rule == "agreed, under threshold 2"
    assert (contested.row, contested.label, contested.contested) == (1, 0, True)
    assert contested.confidence == pytest.approx(0.7)
    assert contested.rule == "contested, over threshold 3"


def test_of_nothing_is_nothing():
    assert select(np.zeros((2, 0, 2)), np.zeros((0, 2)), selection("fused"), UNIFORM, 10) == []

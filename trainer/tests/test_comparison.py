"""The table's statistics on numbers that can be reckoned by hand."""

import numpy as np
import pytest

from fewloop_trainer import claims
from fewloop_trainer.benchmark_report import markdown_of
from fewloop_trainer.comparison import (
    augrc,
    finished,
    hits_of,
    mean_and_spread,
    mean_with_interval,
    risk_coverage,
)
from fewloop_trainer.methods import METHODS


def cell(method: str, hits: str, split: str = "0", task: str = "eprstmt", **more) -> dict:
    """A finished cell whose row i is right where character i is `1`."""
    confidence = [0.9] * len(hits)
    where = {"task": task, "method": method, "split": split, "seed": 0, "state": "done"}
    return where | {"hits": hits, "confidence": confidence, "seconds": 2.0} | more


def document(cells: list[dict], **settings) -> dict:
    common = {"base": "tiny", "baseDigest": "0" * 64, "threads": 1, "limitTest": None, "testRowsWithTrainTexts": {}}
    named = {key: list(dict.fromkeys(c[key[:-1]] for c in cells)) for key in ("tasks", "methods", "splits", "seeds")}
    return {"settings": common | named | settings, "cells": cells}


def test_hits_mean_and_spread():
    assert hits_of(cell("pet", "101")).tolist() == [1, 0, 1]
    assert mean_and_spread([50.0]) == (50, None)
    assert mean_and_spread([40.0, 60.0]) == (50, pytest.approx(14.142, abs=1e-3))


def test_the_interval_is_that_of_a_mean_over_rows():
    rows = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 400, p=[0.1, 0.6, 0.3])
    mean, low, high = mean_with_interval([rows])
    half = 1.96 * rows.std() / np.sqrt(400)
    assert mean == pytest.approx(rows.mean())
    assert (low, high) == (pytest.approx(mean - half, abs=0.01), pytest.approx(mean + half, abs=0.01))
    assert mean_with_interval([rows]) == (mean, low, high), "the same again"


def test_tasks_count_equally_and_rows_are_drawn_within_each():
    small, large = np.array([1.0, 1.0]), np.zeros(1000)
    assert mean_with_interval([small, large]) == (0.5, 0.5, 0.5)
    varied = np.tile([0.0, 1.0], 50)
    alone, both = mean_with_interval([varied]), mean_with_interval([varied, large])
    assert both[2] - both[1] == pytest.approx((alone[2] - alone[1]) / 2, rel=0.1)


def test_risk_over_coverage_and_its_area():
    confidence, hit = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 1.0, 0.0, 1.0])
    coverage, risk = risk_coverage(confidence, hit)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk.tolist() == [0, 0, pytest.approx(1 / 3), 0.25]
    assert augrc(confidence, hit) == pytest.approx((0 + 0 + 1 + 1) / 4 / 4)


def test_rows_of_equal_confidence_have_no_order():
    same, hit = np.full(4, 0.5), np.array([0.0, 1.0, 1.0, 1.0])
    assert augrc(same, hit) == pytest.approx(augrc(same, hit[::-1]))
    assert risk_coverage(same, hit)[1].tolist() == [0.25] * 4


class TestMarkdown:
    def test_has_mean_spread_and_how_many_cells_are_there(self):
        cells = [cell("pet", "1100"), cell("pet", "1111", "1"), cell("full", "1110")]
        lines = markdown_of(document(cells)).split("\n")
        assert "| pet | 75.0 ± 35.4 | 75.0 |" in lines
        assert "| full | 75.0 [1] | 75.0 |" in lines

    def test_compares_what_both_did_on_the_same_split(self):
        cells = [cell("pet", "1100"), cell("pet", "0000", "1"), cell("full", "1110")]
        table = markdown_of(document(cells)).split("## Minus pet, points")[1]
        assert "| full | +25.0 (+0.0 to +75.0) |  |" in table

    def test_marks_what_excludes_nothing_at_all(self):
        cells = [cell("pet", "0" * 40), cell("full", "1" * 40)]
        assert "**+100.0 (+100.0 to +100.0)**" in markdown_of(document(cells))

    def test_says_what_was_not_measured_and_why(self):
        missing = {"task": "chid", "method": "tf-idf", "split": "0", "seed": 0, "state": "n/a", "reason": "no classes"}
        text = markdown_of(document([cell("pet", "11"), missing]))
        assert "| tf-idf |  | n/a |  |" in text
        assert "- tf-idf on chid: n/a, no classes" in text
        assert "## Minus tf-idf" not in text

    def test_says_that_test_rows_share_texts_or_are_few(self):
        text = markdown_of(document([cell("pet", "11")], limitTest=2, testRowsWithTrainTexts={"cluewsc": 25}))
        assert "first 2 test rows" in text
        assert "25 of cluewsc" in text


class TestSizes:
    CELLS = (
        cell("fine-tune", "1100", trainRows=32),
        cell("pet", "1110", trainRows=32),
        cell("pet", "1111", "all", trainRows=160),
    )

    def test_single_splits_and_all_train_rows_have_tables_of_their_own(self):
        text = markdown_of(document([*self.CELLS]))
        few, whole = text.split("## Accuracy, %, with all five splits' train rows")
        assert "| pet | 75.0 | 75.0 |" in few
        assert "| pet | 100.0 | 100.0 |" in whole
        assert "## Minus fine-tune" in few and "## Minus fine-tune" not in whole

    def test_all_alone_is_one_table(self):
        text = markdown_of(document([self.CELLS[2]]))
        assert text.count("## Accuracy") == 1
        assert "| pet |  |  |  |  |" not in text.split("## Beside published")[0]


class TestClaims:
    def test_a_part_is_what_it_is_over_what_it_is_added_to(self):
        cells = [cell("fine-tune", "0" * 40), cell("pet", "1" * 40), cell("full", "1" * 40), cell("pet", "1", "1")]
        cells += [cell("fine-tune", "1" * 20, task="chid"), cell("pet", "1" * 20, task="chid")]
        lines = markdown_of(document(cells)).split("\n")
        gain = "| prompts over fine-tuning | `pet` − `fine-tune` | 2 to 28 | **+50.0 (+50.0 to +50.0)** |"
        assert f"{gain} +0.0 to +100.0 | 2 |" in lines
        assert "| self-training, fused | `full@fused` − `full` | 0.4 to 4 | open |  | 0 |" in lines

    def test_compare_methods_that_there_are(self):
        assert {name for _, *pair, _ in claims.DELTAS for name in pair} <= METHODS.keys()
        assert set(claims.BESIDE) <= METHODS.keys()
        assert np.mean(list(claims.PUBLISHED_PET.values())) == pytest.approx(claims.PUBLISHED_MEANS["PET"], abs=0.1)

    def test_published_accuracy_stands_beside_ours(self):
        lines = markdown_of(document([cell("pet", "1100")])).split("\n")
        assert "| PET, published | 86.7 | 56.0 | 44.0 | 59.4 | 61.2 | 57.5 | 54.5 | 51.7 | 46.0 | 57.4 |" in lines
        assert f"| pet | 50.0 |{' open |' * 8}  |" in lines


class TestPlots:
    @pytest.fixture
    def plots(self):
        return pytest.importorskip("fewloop_trainer.plots", exc_type=ImportError)

    def test_are_files_beside_the_report(self, plots, tmp_path):
        cells = [cell("pet", "1100"), cell("pet", "0110", "1"), cell("full", "1110"), cell("full", "1", task="chid")]
        written = plots.plot(document(cells), tmp_path / "table.md")
        assert written == [f"table-{name}.png" for name in ("methods", "minus-pet", "minus-full", "risk")]
        assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in written)
        assert plots.plot(document([cell("pet", "1", state="open")]), tmp_path / "none.md") == []
        written = plots.plot(document([*TestSizes.CELLS]), tmp_path / "both.md")
        assert written == [f"both-{name}.png" for name in ("methods", "minus-fine-tune", "minus-pet", "risk", "rows")]

    def test_bars_are_differences_with_their_intervals(self, plots):
        cells = finished(document([cell("pet", "01" * 20), cell("full", "1" * 40), cell("zero-shot", "10" * 20)]))
        _, axis = plots.plt.subplots()
        plots._differences(axis, "eprstmt", cells, ["zero-shot", "pet", "full"], "pet")
        bars, (line,) = axis.containers[-1], axis.containers[0].lines[2]
        assert [label.get_text() for label in axis.get_yticklabels()] == ["zero-shot", "full"]
        assert [bar.get_width() for bar in bars] == [0, 50]
        assert bars[0].get_facecolor() != bars[1].get_facecolor(), "the first interval holds 0"
        _, *intervals = mean_with_interval([np.tile([1.0, 0.0], 20)])
        assert line.get_segments()[1][:, 0] == pytest.approx(100 * np.array(intervals))

    def test_a_curve_has_the_mean_of_single_splits_and_all_rows(self, plots):
        cells = finished(document([*TestSizes.CELLS, cell("pet", "1100", "1", trainRows=32)]))
        _, axis = plots.plt.subplots()
        plots._label_efficiency(axis, "eprstmt", cells, ["pet"])
        assert axis.containers[0].lines[0].get_xydata().tolist() == [[32, 62.5], [160, 100]]

"""What a run refuses, and what it leaves out: texts of dev and test groups take part in no training."""

import json
from pathlib import Path

import pytest

from fewloop_trainer.data import RunError, read_run
from fewloop_trainer.keys import split_group, split_of
from folders import MARKS, read_json, read_lines, review, reviews, reviews_of, write_run


def refusal(folder: Path) -> str:
    with pytest.raises(RunError) as error:
        read_run(folder)
    assert error.value.code == "BAD_INPUT"
    return str(error.value)


class TestRefused:
    def test_a_row_of_the_test_split(self, tmp_path):
        rows = [*reviews(2), {"text": "手机很好", "label": "positive", "split": "test"}]
        assert refusal(write_run(tmp_path, rows, [])) == "labelled.jsonl line 5 is of split 'test'"

    def test_a_label_that_the_task_does_not_have(self, tmp_path):
        rows = [*reviews(1), {"text": "手机很好", "label": "neutral"}]
        assert refusal(write_run(tmp_path, rows, [])) == "labelled.jsonl line 3: 'neutral' is no label of it"

    def test_a_text_in_train_and_in_dev_however_it_is_written(self, tmp_path):
        rows = [*reviews(2), {"text": f"\u3000{review(0, 'positive')} ", "label": "positive", "split": "dev"}]
        assert refusal(write_run(tmp_path, rows, [])) == "1 texts are both in train and in dev"

    @pytest.mark.parametrize("rows", [[], reviews(1)[:1], [row for row in reviews(4) if row["label"] == "positive"]])
    def test_fewer_rows_than_two_labels(self, tmp_path, rows):
        dev = [row | {"split": "dev"} for row in reviews_of("dev", 9)[12:]]
        assert "at least two labels" in refusal(write_run(tmp_path, [*rows, *dev], []))

    def test_rows_of_one_text_alone(self, tmp_path):
        rows = [{"text": "手机很好", "label": label} for label in ("positive", "negative")]
        assert "at least two texts" in refusal(write_run(tmp_path, rows, []))

    def test_a_format_of_another_version(self, tmp_path):
        assert "format version 2" in refusal(write_run(tmp_path, reviews(2), [], formatVersion=2))


class TestLeftOut:
    def test_are_groups_of_dev_and_test_and_labelled_ones(self, tmp_path):
        labelled = reviews_of("train", 4)
        pool = {split: reviews_of(split, 8)[8:] for split in ("train", "dev", "test")}
        data = read_run(write_run(tmp_path, labelled, [*pool["train"], *pool["dev"], *pool["test"], *labelled]))
        assert [row["text"] for row in data.unlabelled] == [row["text"] for row in pool["train"]]
        assert data.dropped == 8 + 8 + 8

    def test_are_repeated_items_but_not_other_items_of_one_text(self, tmp_path):
        text = next(row["text"] for row in reviews_of("train", 3)[-1:])
        rows = [{"text": text, "itemKey": "a"}, {"text": text, "itemKey": "a"}, {"text": text, "itemKey": "b"}]
        assert [row["itemKey"] for row in read_run(write_run(tmp_path, reviews_of("train", 1), rows)).unlabelled] == [
            "a",
            "b",
        ]

    def test_a_line_separator_inside_a_text_does_not_end_its_line(self, tmp_path):
        rows = [*reviews(2), {"text": "很好\u2028真的", "label": "positive"}]
        assert read_run(write_run(tmp_path, rows, [])).train[-1]["text"] == "很好\u2028真的"


class TestLeakage:
    """Of a whole run: which marked texts any model was given, in which stage, in training or not."""

    @pytest.fixture
    def seen(self, finished_run, tiny_tokenizer) -> dict[str, set[tuple[str, bool]]]:
        """Origin to the (stage, training) in which its mark was seen."""
        ids = {tiny_tokenizer.token_to_id(mark): origin for origin, mark in MARKS.items()}
        assert None not in ids
        found: dict[str, set[tuple[str, bool]]] = {origin: set() for origin in MARKS}
        for stage, training, token in finished_run.seen:
            if token in ids:
                found[ids[token]].add((stage, training))
        return found

    def test_no_model_is_ever_given_an_unlabelled_text_of_a_dev_or_test_group(self, seen):
        assert seen["dev group"] == set()
        assert seen["test group"] == set()

    def test_dev_rows_are_only_predicted_when_all_models_are_trained(self, seen):
        assert seen["dev row"] == {("calibrate", False)}

    def test_the_pool_is_used_for_priors_calibration_candidates_and_the_student(self, seen):
        stages = {("offsets", False), ("cross-fit", False), ("pseudo-labels", False), ("student", True)}
        assert seen["pool"] >= stages, "or the marks above prove nothing"
        assert seen["train row"] >= {("offsets", False), ("cross-fit", True), ("student", True)}

    def test_pseudo_labels_are_of_the_pool_alone(self, finished_run):
        texts = {row["itemKey"]: row["text"] for row in read_lines(finished_run.folder / "unlabelled.jsonl")}
        labelled = {split_group(row["text"]) for row in read_lines(finished_run.folder / "labelled.jsonl")}
        pseudo = [texts[line["itemKey"]] for line in read_lines(finished_run.folder / "pseudo-labels.jsonl")]
        assert len(pseudo) > 10
        assert {split_of(split_group(text)) for text in pseudo} == {"train"}
        assert labelled.isdisjoint(map(split_group, pseudo))

    def test_the_bundle_holds_no_text_of_anyone(self, finished_run):
        folder = finished_run.folder
        rows = [*read_lines(folder / "labelled.jsonl"), *read_lines(folder / "unlabelled.jsonl")]
        for name in ("manifest.json", "golden.json", "report.json"):
            content = json.dumps(read_json(folder / "bundle" / name), ensure_ascii=False)
            assert not [row["text"] for row in rows if row["text"].strip() in content]

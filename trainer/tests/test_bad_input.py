"""Input that is odd, broken or impossible: what a run makes of it, or why it refuses it, in `result.json`."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from bundles import broken_entries
from fewloop_trainer import augment, run, run_state, workspace
from fewloop_trainer.data import read_run
from fewloop_trainer.files import clear_partial
from folders import TINY_MODEL, definition_of, read_json, review, reviews_of, write_run

DESCRIBED = [
    {"name": "positive", "words": ["好"], "description": "很好。"},
    {"name": "negative", "words": ["差"], "description": "很差。"},
    {"name": "slow", "words": ["慢"], "description": "很慢。"},
    {"name": "dear", "words": ["贵"], "description": "很贵。"},
]
ROWS = reviews_of("train", 30)


def finished(folder: Path) -> dict:
    """Runs a folder that must come to its end; the bundle's report."""
    assert run.run(folder) == 0, read_json(folder / "result.json")
    assert broken_entries(folder / "bundle") == []
    return read_json(folder / "bundle/report.json")


def refused(folder: Path) -> dict:
    """Runs a folder that must not; what it says."""
    assert run.run(folder) == 1
    assert not (folder / "bundle").exists()
    return read_json(folder / "result.json")


@pytest.mark.parametrize("file", ["labelled.jsonl", "unlabelled.jsonl"])
@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"text": ', "is no JSON: "),
        (b'["text"]', "is no JSON object"),
        (b'{"text": 1}', "has no text"),
        ('{"text": "\u597d"}'.encode("gbk"), "is not UTF-8"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, file: str, line: bytes, told: str):
    folder = write_run(tmp_path / "run", ROWS, [])
    lines = (folder / file).read_bytes().split(b"\n")
    (folder / file).write_bytes(b"\n".join([*lines[:2], line, *lines[2:]]))
    number = len(lines[:2]) + 1
    result = refused(folder)
    assert result["code"] == "BAD_INPUT"
    assert result["message"].startswith(f"{file} line {number} {told}")


def of_methods(method: str, **changes) -> dict:
    more = {} if method == "pet" else {"templates": []}
    return definition_of(method=[method], labels=DESCRIBED, learning={"strategies": ["plain"]}, **more | changes)


@pytest.mark.parametrize("method", ["pet", "fine-tune", "efl", "embedding"])
def test_labels_with_one_row_or_none_are_trained_with_and_the_report_says_so(tmp_path, monkeypatch, method):
    reports = []
    # Tracing a graph takes seconds, and it does not know of rows.
    monkeypatch.setattr(run, "write_bundle", lambda *arguments: reports.append(arguments[5]))
    rows = [*ROWS[:12], {"text": "物流慢得很", "label": "slow"}]
    more = {} if method == "pet" else {"templates": []}
    definition = definition_of(method=[method], labels=DESCRIBED, learning={"strategies": ["plain"]}, **more)
    assert run.run(write_run(tmp_path, rows, ROWS[12:], definition, budgetSeconds=0.1)) == 0
    (report,) = reports
    assert {"slow: one labelled row", "dear: no labelled row"} <= set(report["notes"])
    folded = report["outOfFold"]
    assert len(folded["rows"][0]["distribution"]) == 4
    assert np.isfinite(folded["ensemble"]["logLoss"])
    said = [statement.split(" rows")[0] for statement in folded["reliability"]["conformal"]["statements"]]
    assert {"slow: 1", "dear: 0"} <= set(said)


@pytest.mark.parametrize("method", ["pet", "fine-tune", "efl", "embedding"])
def test_of_two_labels_one_may_have_a_single_row(tmp_path, monkeypatch, method):
    reports = []
    monkeypatch.setattr(run, "write_bundle", lambda *arguments: reports.append(arguments[5]))
    rows = [*(row for row in ROWS[:18] if row["label"] == "positive"), {"text": "物流慢得很", "label": "negative"}]
    definition = of_methods(method) | {"labels": DESCRIBED[:2]}
    assert run.run(write_run(tmp_path, rows, ROWS[18:], definition, budgetSeconds=0.1)) == 0
    (report,) = reports
    assert "negative: one labelled row" in report["notes"]
    assert np.isfinite(report["outOfFold"]["ensemble"]["logLoss"])


class TestLabels:
    def test_of_one_kind_alone_there_is_nothing_to_learn(self, tmp_path):
        rows = [row for row in ROWS[:12] if row["label"] == "positive"]
        result = refused(write_run(tmp_path, rows, []))
        assert result["code"] == "BAD_INPUT"
        assert "at least two labels" in result["message"]
        assert "6 rows with 1 different answers" in result["message"]

    def test_that_agree_with_nothing_are_trained_on_and_the_report_says_so(self, tmp_path):
        rng = np.random.default_rng(0)
        rows = [row | {"label": str(rng.choice(["positive", "negative"]))} for row in ROWS[:40]]
        report = finished(write_run(tmp_path, rows, ROWS[40:], budgetSeconds=0.1))
        assert report["outOfFold"]["ensemble"]["accuracy"]["value"] < 0.75
        assert report["outOfFold"]["reliability"]["riskCoverage"]["augrc"] > 0.1
        assert any("the labels agree with" in note for note in report["notes"])

    def test_that_contradict_each_other_on_every_text_are_said_to_agree_with_nothing(self, tmp_path):
        rows = [row | {"label": label} for row in ROWS[:10] for label in ("positive", "negative")]
        report = finished(write_run(tmp_path, rows, [], budgetSeconds=0.1))
        assert any("the labels agree with nothing" in note for note in report["notes"])

    def test_may_be_two_hundred(self, tmp_path):
        words = [word for word, _ in sorted(vocabulary().items(), key=lambda item: item[1]) if is_chinese(word)][:200]
        assert len(words) == 200
        labels = [{"name": word, "words": [word]} for word in words]
        rows = [{"text": f"{review(i, 'positive')}{word}", "label": word} for i, word in enumerate(words)]
        definition = definition_of(labels=labels, templates=["很{mask}！{text}"], learning={"strategies": ["plain"]})
        report = finished(write_run(tmp_path, rows, ROWS, definition, budgetSeconds=0.1))
        assert len(report["outOfFold"]["rows"][0]["distribution"]) == 200
        assert len(report["outOfFold"]["reliability"]["conformal"]["statements"]) == 200

    def test_with_the_same_words_are_refused(self, tmp_path):
        labels = [{"name": "positive", "words": ["赞", "好"]}, {"name": "negative", "words": ["差", "好"]}]
        result = refused(write_run(tmp_path, ROWS[:12], [], definition_of(labels=labels)))
        assert result["code"] == "BAD_INPUT"
        assert "labels: '好' is a word of 'positive' and of 'negative'" in result["message"]

    def test_with_the_same_words_are_as_good_as_others_to_methods_without_words(self, tmp_path):
        labels = [label | {"words": ["好"]} for label in DESCRIBED[:2]]
        definition = of_methods("fine-tune") | {"labels": labels}
        assert read_run(write_run(tmp_path, ROWS[:12], [], definition)).task.label_names == ["positive", "negative"]

    def test_with_words_of_which_none_can_be_spelled_are_refused(self, tmp_path):
        labels = [{"name": "positive", "words": ["\u0001"]}, {"name": "negative", "words": ["差"]}]
        result = refused(write_run(tmp_path, ROWS[:12], [], definition_of(labels=labels)))
        assert result["code"] == "BAD_INPUT"
        assert "cannot spell the label word" in result["message"]


class TestTexts:
    def test_longer_than_the_model_are_cut(self, tmp_path):
        rows = [row | {"text": row["text"] + "，质量很好" * 300} for row in ROWS[:12]]
        definition = definition_of(maxLength=512, templates=["很{mask}！{text}"], learning={"strategies": ["plain"]})
        report = finished(write_run(tmp_path, rows, ROWS[12:24], definition, budgetSeconds=0.1))
        assert report["labelled"] == 12

    def test_are_not_given_more_room_than_the_model_has(self, tmp_path):
        result = refused(write_run(tmp_path, ROWS[:12], [], definition_of(maxLength=513)))
        assert result["code"] == "BAD_INPUT"
        assert result["message"].startswith("maxLength: 513 tokens are more than the 512")

    def test_without_a_field_that_a_template_names_are_refused_by_their_line(self, tmp_path):
        definition = definition_of(templates=["{title}：{text}很{mask}。"])
        rows = [row | {"fields": {"title": "评论"}} for row in ROWS[:12]]
        rows[4] = rows[4] | {"fields": {"subject": "评论"}}
        result = refused(write_run(tmp_path, rows, [], definition))
        assert result["code"] == "BAD_INPUT"
        assert result["message"].startswith("labelled.jsonl line 5 lacks fields.title, which the template")

    def test_of_the_pool_without_that_field_are_left_out(self, tmp_path):
        definition = definition_of(templates=["{title}：{text}很{mask}。"])
        rows = [row | {"fields": {"title": "评论"}} for row in ROWS[:40]]
        pool = [*rows[12:], *ROWS[40:50]]
        report = finished(write_run(tmp_path, rows[:12], pool, definition, budgetSeconds=0.1))
        assert (report["unlabelled"], report["unlabelledDropped"]) == (28, 10)

    def test_without_the_blank_that_a_template_fills_are_refused(self, tmp_path):
        definition = definition_of(templates=["{text|blank:#here#}"])
        result = refused(write_run(tmp_path, ROWS[:12], [], definition))
        assert "line 1 lacks the marker '#here#' in text" in result["message"]

    def test_of_dev_that_cannot_be_read_are_told_before_anything_is_trained(self, tmp_path, monkeypatch):
        monkeypatch.setattr(run, "measure", lambda state: pytest.fail("training began"))
        choices = [{"text": f"东西很#blank#{i}", "choices": ["好", "差"], "label": "好"} for i in range(6)]
        dev = {"text": "服务很#blank#", "choices": ["好", "一般"], "label": "好", "split": "dev"}
        definition = definition_of(kind="multiple-choice", labels=[], templates=["{text|blank:#blank#}"])
        result = refused(write_run(tmp_path, [*choices, dev], [], definition))
        assert result["code"] == "BAD_INPUT"
        assert "different token counts: 好, 一般 (dev row '服务很#blank#')" in result["message"]


class TestBrokenNumbers:
    def test_a_loss_that_is_no_number_ends_the_run_and_what_was_finished_is_kept(self, tmp_path, monkeypatch):
        losses = {"left": 8}
        entropy = augment.cross_entropy

        def broken(log_probabilities, target):
            losses["left"] -= 1
            return entropy(log_probabilities, target) * (float("nan") if losses["left"] < 0 else 1.0)

        definition = definition_of(learning={"strategies": ["plain"]})
        folder = write_run(tmp_path, ROWS[:12], ROWS[12:], definition, budgetSeconds=0.1)
        monkeypatch.setattr(augment, "cross_entropy", broken)
        result = refused(folder)
        assert result["code"] == "INTERNAL"
        # Four steps measure, six are the first fold's.
        assert "the training of t0-plain.fold0 diverged at step 5: its loss is nan" in result["message"]
        assert "learning.strategies" in result["message"]

        losses["left"] = 12
        result = refused(folder)
        assert "the training of t0-plain.fold1 diverged at step 3" in result["message"]
        assert "(t0-plain.fold0)" in result["message"]
        before = (folder / "work/t0-plain.fold0.npz").stat().st_mtime_ns
        monkeypatch.undo()
        finished(folder)
        assert (folder / "work/t0-plain.fold0.npz").stat().st_mtime_ns == before, "the good one was gone on from"

    def test_a_base_model_of_no_numbers_is_noticed_at_once(self, tmp_path):
        folder = base_like(tmp_path / "base", lambda name, t: t * float("nan") if "layer.1.output.dense" in name else t)
        result = refused(on_base(tmp_path, folder))
        assert result["code"] == "INTERNAL"
        assert "diverged at step 1" in result["message"]


FULL_AT = """
import resource, sys
from pathlib import Path
from fewloop_trainer import run, run_state
run_state.FEWEST_ROWS_FOR_ALL_WEIGHTS = 8
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
raise SystemExit(run.run(Path(sys.argv[1])))
"""


class TestFullDisk:
    def whole(self, folder: Path) -> set[str]:
        return {path.name for path in folder.rglob("*") if path.is_file()}

    def test_in_the_middle_of_a_checkpoint_leaves_none_and_says_which_folder_and_how_much(self, tmp_path):
        folder = write_run(tmp_path / "run", ROWS[:12], ROWS[12:], budgetSeconds=0.1)
        # Every file but a teacher's weights fits: those of the tiny model are 60 kB.
        process = subprocess.run([sys.executable, "-c", FULL_AT, str(folder), "40000"], timeout=300, check=False)
        assert process.returncode == 1
        result = read_json(folder / "result.json")
        assert result["code"] == "INTERNAL"
        assert result["message"].startswith("the disk is full: a file of more than 0.0 MB did not fit into")
        assert str(folder) in result["message"]
        assert "MB are free now" in result["message"]
        assert "start the run again" in result["message"]
        assert not any("partial" in name for name in self.whole(folder))
        assert "t0-plain.safetensors" not in self.whole(folder)
        assert "t0-plain.fold0.npz" in self.whole(folder), "what was finished is kept"
        finished(folder)

    @pytest.mark.parametrize("file", ["t0-plain.fold0", "t0-plain"], ids=["predictions", "weights"])
    def test_a_part_of_a_file_is_never_taken_for_the_whole(self, tmp_path, monkeypatch, file):
        folder = write_run(tmp_path / "run", ROWS[:12], ROWS[12:], budgetSeconds=0.1)
        with pytest.MonkeyPatch.context() as patched:
            for owner, name, place in ((workspace.np, "savez", 0), (workspace, "save_file", 1)):
                patched.setattr(owner, name, half_of(file, getattr(owner, name), place))
            result = refused(folder)
        assert "the disk is full: a file of more than 0.0 MB" in result["message"]
        assert not list(folder.rglob("*partial*"))
        assert (
            not {"t0-plain.fold0.npz", "t0-plain.safetensors"}
            & {f"{file}.npz", f"{file}.safetensors"}
            & set(self.whole(folder))
        )
        finished(folder)

    @pytest.fixture
    def no_line_fits(self, tmp_path, monkeypatch) -> Path:
        """A run whose first line of progress finds the disk full: nothing is half done that could be removed."""

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(workspace.Workspace, "progress", full)
        return write_run(tmp_path / "run", ROWS[:12], ROWS[12:], budgetSeconds=0.1)

    def test_room_for_the_reason_was_kept(self, no_line_fits, monkeypatch):
        reserve, write = no_line_fits / "result.json.reserve", run.write_json
        execute, kept = run.execute, []

        def started(of: run_state.Run) -> dict[str, object]:
            kept.append(reserve.stat().st_size)
            return execute(of)

        def full_unless_freed(path: Path, value: object) -> None:
            if reserve.exists():
                raise OSError(errno.ENOSPC, "No space left on device")
            write(path, value)

        monkeypatch.setattr(run, "execute", started)
        monkeypatch.setattr(run, "write_json", full_unless_freed)
        assert refused(no_line_fits)["message"].startswith("the disk is full")
        assert kept == [4096]

    def test_a_reason_that_cannot_be_written_is_the_last_line_on_stderr(self, no_line_fits, monkeypatch, capsys):
        def full(path: Path, value: object) -> None:
            path.with_name(path.name + ".partial").touch()
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(run, "write_json", full)
        assert run.run(no_line_fits) == 1
        assert capsys.readouterr().err.splitlines()[-1].startswith("the disk is full")
        assert not list(no_line_fits.glob("result.json*"))

    def test_a_graph_that_is_written_straight_into_a_half_done_bundle_goes_too(self, tmp_path):
        for name in ("bundle.partial/g0.int8.onnx", "bundle.partial/deep/g1.onnx", "work/t0.npz", "model.partial.npz"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"12345")
        assert clear_partial(tmp_path) == 15
        assert self.whole(tmp_path) == {"t0.npz"}


def half_of(file: str, write, place: int):
    """`write`, whose argument at `place` is a path, on a disk that is full once half of `file` is written."""

    def written(*args, **more):
        write(*args, **more)
        path = Path(args[place])
        if path.name.startswith(f"{file}.partial"):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    return written


def vocabulary() -> dict[str, int]:
    return json.loads((TINY_MODEL / "tokenizer.json").read_text())["model"]["vocab"]


def is_chinese(word: str) -> bool:
    return len(word) == 1 and "\u4e00" <= word <= "\u9fff"


def base_like(folder: Path, change) -> Path:
    """The tiny model with each tensor put through `change` (None: left out)."""
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((TINY_MODEL / name).read_bytes())
    state = {name: change(name, tensor) for name, tensor in load_file(TINY_MODEL / "model.safetensors").items()}
    kept = {name: tensor for name, tensor in state.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def on_base(tmp_path: Path, base: Path, definition: dict | None = None, **settings) -> Path:
    from fewloop_trainer.data import file_digest

    weights = base / "model.safetensors"
    digest = file_digest(weights) if weights.exists() else "0" * 64
    model = {"name": "made up", "folder": str(base), "digest": digest}
    return write_run(tmp_path / "run", ROWS[:12], ROWS[12:], definition, baseModel=model, **settings)

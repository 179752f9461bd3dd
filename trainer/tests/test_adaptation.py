"""TAPT, the auxiliary loss, and what starts from other tasks' rows: on the tiny model."""

import json
import os
import subprocess
import sys
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from bundles import broken_entries, largest_golden_difference
from fewloop_trainer import adapt, auxiliary, checkpoint, cli, lessons, multitask, pet, run, tapt, tensor_file, training
from fewloop_trainer.auxiliary import Auxiliary
from fewloop_trainer.cell import Lesson
from fewloop_trainer.data import RunError
from fewloop_trainer.encoder import load_model
from fewloop_trainer.files import is_disk_full
from fewloop_trainer.keys import split_group, split_of
from fewloop_trainer.learners import PetLearner
from fewloop_trainer.run_state import Run
from fewloop_trainer.task import load_task
from fewloop_trainer.training import TrainSettings
from folders import TINY_MODEL, definition_of, read_json, read_lines, review, reviews, reviews_of, write_run

TAPT = {"tapt": True, "passes": 2, "budgetShare": 0.3, "auxiliary": 0}
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
KILL_AT = """
import os, signal, sys
from fewloop_trainer import checkpoint, cli, tapt, training
tapt.CHECKPOINT_SECONDS = checkpoint.SECONDS = 0
taken = 0
def end_at_7(own):
    def step(*given, **named):
        global taken
        taken += 1
        if taken == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return own(*given, **named)
    return step
from fewloop_trainer import adapt
adapt._step = end_at_7(adapt._step)
training.augment.backward = end_at_7(training.augment.backward)
raise SystemExit(cli.main(sys.argv[1:]))
"""


def killed(*arguments: object) -> None:
    """The command, ended by SIGKILL in its seventh step."""
    command = [sys.executable, "-c", KILL_AT, *map(str, arguments)]
    process = subprocess.run(command, env=ONE_THREAD, capture_output=True, timeout=300)
    assert process.returncode == -9, process.stderr


def unlabelled_reviews(many: int) -> list[dict]:
    rows = (row for n in count(100) for row in reviews(1, n))
    return [
        {"text": row["text"]} for row in islice((r for r in rows if split_of(split_group(r["text"])) == "train"), many)
    ]


def run_with(folder: Path, adaptation: dict, **changes) -> Path:
    definition = definition_of(learning={"strategies": ["plain"], "adaptation": adaptation}, **changes)
    return write_run(folder, reviews_of("train", 12), unlabelled_reviews(320), definition, budgetSeconds=86_400)


def full_at_third(save, kept: list[bytes]):
    """`save_file` on a disk that is full in the middle of the third file; `kept` gets what was written before."""

    def written(tensors, path: Path, **more) -> None:
        save(tensors, path, **more)
        if len(kept) == 2:
            path.write_bytes(path.read_bytes()[:1000])
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        kept.append(path.read_bytes())

    return written


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(monkeypatch, tmp_path):
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer, chance, kept = torch.optim.AdamW([weight]), np.random.default_rng(0), []
    monkeypatch.setattr(checkpoint, "SECONDS", 0)
    monkeypatch.setattr(tensor_file, "save_file", full_at_third(tensor_file.save_file, kept))
    point = checkpoint.Checkpoint(tmp_path / "point.safetensors", 9)
    for step in (1, 2):
        weight.data += 1
        point.keep(step, optimizer, [weight], chance)
    with pytest.raises(SafetensorError) as told:
        point.keep(3, optimizer, [weight], chance)
    assert is_disk_full(told.value)
    weight.data += 5
    assert checkpoint.Checkpoint(tmp_path / "point.safetensors", 9).resume(optimizer, [weight], chance) == 2
    assert weight.tolist() == [2, 2, 2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = run_with(tmp_path_factory.mktemp("tapt"), TAPT)
    assert run.run(folder) == 0, read_json(folder / "result.json")
    return folder


class TestTapt:
    def test_lowers_the_held_out_loss_and_says_so(self, finished):
        said = read_json(finished / "bundle/report.json")["adaptation"]
        assert said["used"]
        assert said["heldOutLoss"]["after"] < said["heldOutLoss"]["before"]
        assert said["texts"] == 320
        assert said["passes"] == pytest.approx(2, rel=0.2)
        assert read_lines(finished / "progress.jsonl")[0]["stage"] == "adapt"

    def test_every_member_starts_from_it_and_is_exported_as_it_is(self, finished):
        word = "bert.embeddings.word_embeddings.weight"
        adapted = load_file(finished / "work/tapt.safetensors")
        assert not torch.equal(adapted[word], load_model(TINY_MODEL).state_dict()[word].half())
        again = Run(finished)
        assert tapt.adapt_base(again)["used"]
        assert torch.equal(again.base.state_dict()[word].half(), adapted[word])
        _, model = again.trained(again.teachers[0])
        assert torch.equal(model.state_dict()[word].half(), adapted[word])
        assert broken_entries(finished / "bundle") == []
        assert largest_golden_difference(finished / "bundle") < 1e-4

    def test_goes_on_after_a_kill_to_the_same_base(self, finished, monkeypatch, tmp_path):
        monkeypatch.setattr(tapt, "CHECKPOINT_SECONDS", 0)
        folder = run_with(tmp_path, TAPT)
        killed("run", folder)
        assert (folder / "work/tapt/checkpoint.safetensors").exists()
        assert not (folder / "work/tapt.json").exists()
        said = tapt.adapt_base(Run(folder))
        assert not (folder / "work/tapt").exists(), "checkpoints are large"
        expected = read_json(finished / "work/tapt.json")
        assert said | {"seconds": 0} == expected | {"seconds": 0}
        first, second = (load_file(f / "work/tapt.safetensors") for f in (folder, finished))
        assert all(torch.equal(first[name], second[name]) for name in second)

    def test_goes_on_from_the_last_checkpoint_after_the_disk_was_full(self, finished, monkeypatch, tmp_path):
        monkeypatch.setattr(tapt, "CHECKPOINT_SECONDS", 0)
        folder, kept = run_with(tmp_path, TAPT), []
        point = folder / "work/tapt/checkpoint.safetensors"
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(tensor_file, "save_file", full_at_third(tensor_file.save_file, kept))
            assert run.run(folder) == 1
        result = read_json(folder / "result.json")
        assert (result["code"], "the disk is full" in result["message"]) == ("INTERNAL", True)
        assert not list(folder.rglob("*partial*"))
        assert point.read_bytes() == kept[1], "the one before"
        tapt.adapt_base(Run(folder))
        first, second = (load_file(f / "work/tapt.safetensors") for f in (folder, finished))
        assert all(torch.equal(first[name], second[name]) for name in second)

    def test_keeps_the_base_where_the_loss_does_not_fall(self, monkeypatch, tmp_path):
        monkeypatch.setattr(tapt, "RATE", 0.5)
        folder = run_with(tmp_path, TAPT)
        started = Run(folder)
        before = {name: tensor.clone() for name, tensor in started.base.state_dict().items()}
        said = tapt.adapt_base(started)
        assert not said["used"]
        assert said["heldOutLoss"]["after"] >= said["heldOutLoss"]["before"]
        assert all(torch.equal(tensor, before[name]) for name, tensor in started.base.state_dict().items())

    def test_keeps_the_base_where_it_diverges(self, monkeypatch, tmp_path):
        monkeypatch.setattr(adapt, "_step", lambda *given: float("nan"))
        said = tapt.adapt(TINY_MODEL, tapt.texts_of(unlabelled_reviews(320)), 2, tmp_path, seed=0)
        assert (said.model, said.report["used"]) == (None, False)
        assert "diverged at step 1" in said.report["reason"]

    def test_takes_its_share_of_the_time_at_most(self, tmp_path):
        texts = tapt.texts_of(unlabelled_reviews(320))
        said = tapt.adapt(TINY_MODEL, texts, 1000, tmp_path, seed=0, seconds=1.0).report
        assert 0 < said["passes"] < 500

    def test_of_too_few_texts_there_is_none(self, tmp_path):
        said = tapt.adapt(TINY_MODEL, ["很好"] * 5, 3, tmp_path, seed=0)
        assert (said.model, said.report["used"]) == (None, False)
        assert "fewer than" in said.report["reason"]

    def test_sees_no_text_of_dev_and_test_groups_be_it_a_second_sentence(self, tmp_path):
        texts = [review(n, "positive") for n in range(400)]
        by_split = {s: [t for t in texts if split_of(split_group(t)) == s] for s in ("train", "dev", "test")}
        train = by_split["train"]
        rows = [
            {"text": t, "textPair": other}
            for t, other in zip(train[8:], by_split["test"] + by_split["dev"], strict=False)
        ]
        labels = ["positive", "negative"] * 4
        labelled = [
            {"text": t, "textPair": "很好", "label": label, "split": "train"}
            for t, label in zip(train[:8], labels, strict=True)
        ]
        labelled.append({"text": by_split["dev"][0], "textPair": train[-1], "label": "positive", "split": "dev"})
        definition = definition_of(kind="sentence-pair", templates=["{text}{mask}{textPair}"])
        found = tapt._texts_of_train_groups(Run(write_run(tmp_path, labelled, rows, definition)))
        assert set(found) == {row["text"] for row in rows} - {train[-1]}


class TestAuxiliary:
    def auxiliary(self, model, sentiment, weight=0.25, batch_rows=8) -> Auxiliary:
        task, renderer = sentiment
        rows = pet.encode(task, renderer, task.templates[0], reviews(20))
        return Auxiliary(model, rows, renderer.tokenizer, weight, TrainSettings(steps=1, batch_rows=batch_rows))

    def inputs(self, monkeypatch, own: Auxiliary, steps: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Ids, inputs and chosen positions of each step."""
        seen = []

        def watch(ids, *given):
            inputs, chosen = adapt.mask_tokens(ids, *given)
            seen.append((ids, inputs, chosen))
            return inputs, chosen

        monkeypatch.setattr(auxiliary, "mask_tokens", watch)
        for _ in range(steps):
            own.loss()
        return seen

    def test_masks_are_drawn_anew_and_never_the_templates_own(self, monkeypatch, tiny_model, sentiment):
        own = self.auxiliary(tiny_model, sentiment, batch_rows=40)
        first, second, *others = self.inputs(monkeypatch, own, 60)
        by_text = [
            {tuple(row.tolist()): where.tolist() for row, where in zip(ids, chosen, strict=True)}
            for ids, _, chosen in (first, second)
        ]
        assert {row[: row.index(0)] if 0 in row else row for row in by_text[0]} == {
            row[: row.index(0)] if 0 in row else row for row in by_text[1]
        }, "each pass has every text"
        assert list(by_text[0].values()) != list(by_text[1].values())
        mask = own.tokenizer.token_to_id("[MASK]")
        kinds = np.zeros(3)
        for ids, inputs, chosen in (first, second, *others):
            assert not chosen[ids == mask].any()
            assert torch.equal(inputs[~chosen], ids[~chosen])
            now, was = inputs[chosen], ids[chosen]
            kinds += [(now == mask).sum(), (now == was).sum(), ((now != mask) & (now != was)).sum()]
        np.testing.assert_allclose(kinds / kinds.sum(), [0.8, 0.1, 0.1], atol=0.03)

    def test_the_loss_is_that_of_masked_tokens_alone(self, monkeypatch, tiny_model, sentiment):
        own = self.auxiliary(tiny_model, sentiment)
        tiny_model.eval()
        monkeypatch.setattr(auxiliary, "precision", lambda fast: torch.autocast("cpu", enabled=False))
        seen = []
        mask_tokens = adapt.mask_tokens
        monkeypatch.setattr(auxiliary, "mask_tokens", lambda *given: seen.append(mask_tokens(*given)) or seen[-1])
        rows = [own.rows[i] for i in np.random.default_rng(3).permutation(40)[:8]]
        loss = own.loss().item()
        (inputs, chosen), nats = seen[0], []
        for i, row in enumerate(rows):
            length = len(row.ids)
            logits = tiny_model(input_ids=inputs[i : i + 1, :length]).logits[0].log_softmax(-1)
            nats += [-logits[j, row.ids[j]].item() for j in range(length) if chosen[i, j]]
        assert nats
        assert loss == pytest.approx(np.mean(nats), rel=1e-4)

    def test_gradients_are_of_both_losses_by_their_weights(self, tiny_model, sentiment):
        parameter = tiny_model.cls.predictions.transform.dense.weight
        tiny_model.eval()
        alone = self.auxiliary(tiny_model, sentiment)
        loss = alone.loss()
        loss.backward()
        of_words, parameter.grad = parameter.grad.clone(), None
        parameter.grad = of_labels = torch.full_like(parameter, 0.5)
        both = self.auxiliary(tiny_model, sentiment).add(2.0, [parameter])
        assert both == pytest.approx(0.75 * 2.0 + 0.25 * loss.item(), rel=1e-3)
        assert of_labels is parameter.grad
        torch.testing.assert_close(parameter.grad, 0.375 + 0.25 * of_words, rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("strategy", ["plain", "mixup+r-drop+fgm"])
    def test_goes_with_the_strategies_and_changes_what_is_learnt(self, tiny_model_folder, sentiment, strategy):
        _, renderer = sentiment
        states = []
        for weight in (0, 0.5):
            task = load_task(definition_of(learning={"adaptation": TAPT | {"tapt": False, "auxiliary": weight}}))
            model = load_model(tiny_model_folder).eval()
            learner = PetLearner(model, renderer, task, 2, task.templates[0], strategy)
            learner.unlabelled = [{"text": row["text"]} for row in reviews(6, 50)]
            rows, goal = learner.encode(reviews(4)), np.eye(2)[[0, 1] * 4]
            losses: list[float] = []
            settings = TrainSettings(steps=4)
            learner.train(model, rows, goal, np.zeros(8, int), settings, lambda step, loss, to=losses: to.append(loss))
            states.append((model.state_dict(), learner.passes, losses))
        (plain, passes, _), (both, more_passes, losses) = states
        assert more_passes == passes + auxiliary.PASSES
        assert np.isfinite(losses).all()
        name = "bert.encoder.layer.0.output.dense.weight"
        assert not torch.equal(plain[name], both[name])
        word = "bert.embeddings.word_embeddings.weight"
        assert torch.equal(plain[word], both[word])

    def test_a_run_trains_with_it(self, tmp_path):
        folder = run_with(tmp_path, TAPT | {"tapt": False, "auxiliary": 1e-4})
        assert run.run(folder) == 0, read_json(folder / "result.json")
        assert read_json(folder / "bundle/report.json")["adaptation"] is None


def pair_lesson(name: str = "pairs") -> Lesson:
    """Whether two reviews say the same."""
    rows = [
        {
            "text": review(n, "positive"),
            "textPair": review(n + 1 + n % 2, ("positive", "negative")[n % 2]),
            "label": str(n % 2),
        }
        for n in range(24)
    ]
    labels = [{"name": "0", "words": ["好"]}, {"name": "1", "words": ["差"]}]
    definition = definition_of(name=name, kind="sentence-pair", labels=labels, templates=["{text}很{mask}{textPair}"])
    return Lesson(load_task(definition), rows)


def choice_lesson() -> Lesson:
    rows = [
        {"text": f"{review(n, 'positive')}#idiom#", "choices": ["很好", "太差", "一般"], "label": "很好"}
        for n in range(6)
    ]
    definition = definition_of(name="choices", kind="multiple-choice", labels=[], templates=["{text|blank:#idiom#}"])
    return Lesson(load_task(definition), rows)


class TestLessons:
    def test_the_encoder_learns_and_the_rest_stays(self, tmp_path):
        folder = lessons.teach(TINY_MODEL, tmp_path, "efl", [pair_lesson()], 0, 1, steps=6)
        before, after = (load_model(f).state_dict() for f in (TINY_MODEL, folder))
        moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
        assert moved
        assert all(name.startswith("bert.encoder.") for name in moved)

    def test_tasks_of_several_kinds_take_turns(self, monkeypatch, tmp_path):
        kinds: list[int] = []
        log_probabilities = pet.log_probabilities

        def watch(graph, batch, shift, *given):
            kinds.append(len(shift))
            return log_probabilities(graph, batch, shift, *given)

        monkeypatch.setattr(pet, "log_probabilities", watch)
        of_reviews = Lesson(load_task(definition_of()), reviews(5))
        folder = lessons.teach(
            TINY_MODEL, tmp_path, "pet", [of_reviews, pair_lesson(), choice_lesson()], 0, 1, steps=12
        )
        assert kinds.count(3) == 4
        assert kinds.count(2) == 8
        name = "cls.predictions.transform.dense.weight"
        assert not torch.equal(load_model(folder).state_dict()[name], load_model(TINY_MODEL).state_dict()[name])

    def test_tasks_are_drawn_equally_often_whatever_their_rows(self):
        drawn = list(islice(multitask.in_turn([[iter([0] * 9)], [iter([1] * 9), iter([2] * 9)]], 0), 12))
        assert [{0}, {1, 2}] == [{n for n in drawn if (n > 0) == more} for more in (False, True)]
        assert drawn.count(0) == 6

    def test_are_learnt_once_and_one_behind_the_other(self, monkeypatch, tmp_path):
        first = lessons.teach(TINY_MODEL, tmp_path, "efl", [pair_lesson()], 0, 1, steps=2)
        both = lessons.teach(TINY_MODEL, tmp_path, "efl", [pair_lesson(), pair_lesson("others")], 0, 1, steps=2)
        assert both != first
        monkeypatch.setattr(training, "optimise", None)
        assert lessons.teach(first, tmp_path, "efl", [pair_lesson("others")], 0, 1, steps=2) == both

    def test_a_method_refuses_what_it_cannot_learn_from(self):
        with pytest.raises(RunError, match="sentence-pair"):
            lessons.check("efl", choice_lesson())
        with pytest.raises(RunError, match="no label 'x'"):
            lessons.check("pet", Lesson(pair_lesson().task, [*pair_lesson().train, {"text": "好", "label": "x"}]))
        with pytest.raises(RunError, match="templates"):
            lessons.check("pet", Lesson(load_task(definition_of(templates=[])), reviews(2)))


@pytest.mark.parametrize("method", ["efl", "pet"])
def test_continue_train_goes_on_after_a_kill_to_the_same_base(tmp_path, method, capsys):
    lesson = pair_lesson()
    (tmp_path / "task.yaml").write_text(json.dumps(lesson.task.definition, ensure_ascii=False))
    lines = [
        json.dumps({"sentence1": r["text"], "sentence2": r["textPair"], "label": r["label"]}) for r in lesson.train
    ]
    (tmp_path / "rows.json").write_text("\n".join(lines))

    def arguments(name: str) -> list[str]:
        given = {
            "--init-from": TINY_MODEL,
            "--work": tmp_path / name,
            "--method": method,
            "--steps": 12,
            "--threads": 1,
        }
        files = ["--lesson", tmp_path / "task.yaml", tmp_path / "rows.json"]
        return list(
            map(str, ["continue-train", tmp_path / f"{name}-base", *files, *(v for o in given.items() for v in o)])
        )

    assert cli.main(arguments("whole")) == 0
    killed(*arguments("killed"))
    assert list((tmp_path / "killed").glob("*.work/checkpoint.safetensors"))
    capsys.readouterr()
    assert cli.main(arguments("killed")) == 0
    assert len(capsys.readouterr().out.splitlines()) == 12 - 6, "it goes on behind the last step that was kept"
    whole, again = ((tmp_path / f"{name}-base/model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == again
    assert cli.main([*arguments("whole"), "--lesson", str(tmp_path / "none.yaml"), str(tmp_path / "rows.json")]) == 2
    assert "none.yaml" in capsys.readouterr().err

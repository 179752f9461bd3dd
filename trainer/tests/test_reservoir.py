"""What is matched to the prior, and compared in confidence, is the uniform sample of the traffic alone."""

import numpy as np
import pytest

from fewloop_trainer import budget, offsets, pseudo, run, run_state, shrink, student
from fewloop_trainer.data import in_reservoir
from fewloop_trainer.learners import PetLearner
from fewloop_trainer.scores import distribution_of
from folders import definition_of, read_json, reviews_of, write_run

ROWS = reviews_of("train", 250)
LABELLED = ROWS[:12]
SAMPLE = [{"text": row["text"], "reservoir": True} for row in ROWS[12:252]]
# What was asked about because it is hard: of one label.
CHOSEN = [{"text": row["text"]} for row in ROWS[252:] if row["label"] == "negative"]
MIXED = [row for pair in zip(SAMPLE, CHOSEN, strict=False) for row in pair] + SAMPLE[len(CHOSEN) :]


def state_of(folder, unlabelled, **learning) -> run_state.Run:
    return run_state.Run(write_run(folder, LABELLED, unlabelled, definition_of(learning=learning)))


def texts(rows) -> list[str]:
    return [row["text"] for row in rows]


class TestDrawing:
    def test_without_marks_takes_all_rows_as_they_are_shuffled(self, tmp_path):
        unmarked = [{"text": row["text"]} for row in MIXED]
        state = state_of(tmp_path, unmarked)
        order = np.random.default_rng(5).permutation(len(unmarked))
        shuffled = [unmarked[i]["text"] for i in order]
        held = len(unmarked) // 4
        assert texts(state.calibration) == shuffled[:held]
        assert texts(state.candidates) == shuffled[held:]
        assert state.data.reservoir == state.data.unlabelled
        assert in_reservoir(state.candidates).all()

    def test_where_all_are_marked_is_as_without_marks(self, tmp_path):
        marked, unmarked = (state_of(tmp_path / name, rows) for name, rows in (("a", SAMPLE), ("b", bare(SAMPLE))))
        assert texts(marked.calibration) == texts(unmarked.calibration)
        assert texts(marked.candidates) == texts(unmarked.candidates)

    def test_takes_calibration_texts_of_the_sample_and_begins_candidates_with_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(run_state, "MATCHING_TEXTS", 70)
        state = state_of(tmp_path, MIXED)
        sample = set(texts(SAMPLE))
        assert texts(state.data.reservoir) == texts(SAMPLE)
        assert len(state.calibration) == len(SAMPLE) // 4
        assert set(texts(state.calibration)) <= sample
        assert set(texts(state.candidates[:70])) <= sample
        assert not set(texts(state.candidates[70:140])) <= sample
        everything = [*texts(state.calibration), *texts(state.candidates)]
        assert sorted(everything) == sorted(texts(MIXED))
        assert not in_reservoir(CHOSEN + SAMPLE)[: len(CHOSEN)].any()


class TestMatching:
    def test_of_the_base_model_is_on_the_sample(self, tmp_path, monkeypatch):
        state, asked = state_of(tmp_path, MIXED), []
        encode = PetLearner.encode

        def watched(self, rows):
            asked.extend(texts(rows))
            return encode(self, rows)

        monkeypatch.setattr(PetLearner, "encode", watched)
        offsets.match_base(state)
        assert set(asked) == set(texts(SAMPLE)) | set(texts(LABELLED))

    @pytest.mark.parametrize("prior", [None, [0.9, 0.1]])
    def test_of_what_is_served_and_of_what_selects_is_on_the_sample(self, tmp_path, monkeypatch, prior):
        monkeypatch.setattr(shrink, "gain_exceeds", lambda *_: False)  # so that offsets are matched after training
        opinions, trials = [], []
        first, later, match = pseudo._first_round, pseudo._later_round, student.match_priors

        def watched(ask):
            def asked(state, *rest):
                assert state.shrinkage.matched
                opinions.append((state, list(state.candidates), ask(state, *rest)))
                return opinions[-1][-1]

            return asked

        def watched_match(scores, wanted):
            trials.append(len(scores))
            return match(scores, wanted)

        monkeypatch.setattr(pseudo, "_first_round", watched(first))
        monkeypatch.setattr(pseudo, "_later_round", watched(later))
        monkeypatch.setattr(student, "match_priors", watched_match)
        learning = {"rounds": 2, "student": {"templates": "all", "strategies": ["plain"]}}
        definition = definition_of(learning=learning, selection={"strategy": "top_confidence"})
        monkeypatch.setattr(budget, "PSEUDO_SHARE", 1e9)  # few steps, and time for all candidates
        folder = write_run(tmp_path, LABELLED, MIXED, definition, prior=prior, budgetSeconds=0.1)
        assert run.run(folder) == 0, read_json(folder / "result.json")
        assert len(opinions) == 2
        for _, candidates, opinion in opinions:
            sample = in_reservoir(candidates)
            assert 0 < sample.sum() < len(candidates)
            for scores, moved in zip(opinion.scores, opinion.offsets, strict=True):
                mean = distribution_of(scores[sample], moved).mean(0)
                np.testing.assert_allclose(mean, prior or [0.5, 0.5], atol=0.01)
        state = opinions[0][0]
        # Of the fold's teachers on candidates; and of students, tried and trained, on calibration texts.
        assert set(trials) == {len(SAMPLE) - len(state.calibration), len(state.calibration)}


def bare(rows) -> list[dict]:
    return [{"text": row["text"]} for row in rows]

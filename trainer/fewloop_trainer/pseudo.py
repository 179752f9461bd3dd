"""Pseudo-labels: candidates that an ensemble of teachers labels and the selection strategy lets in, in rounds.

The first round's teachers are those that the bundle serves, of human labels alone. The teachers of a later round start
from the base anew and learn human labels and the soft pseudo-labels so far; what they select is added. A round that
selects nothing is the last. Which round, votes and rule let a candidate in stands in `pseudo-labels.jsonl`.
"""

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from fewloop_trainer import calibrate
from fewloop_trainer.budget import PASSES, affordable_candidates, asked_job, round_job, student_steps
from fewloop_trainer.data import in_reservoir
from fewloop_trainer.distill import LABELLED_SHARE, student_targets
from fewloop_trainer.learners import ClassifierLearner, PetLearner
from fewloop_trainer.run_state import Run, Teacher
from fewloop_trainer.scores import apply_temperature, chosen_of, combine_members, match_priors
from fewloop_trainer.select import PseudoLabel, select
from fewloop_trainer.teachers import OutOfFoldFit, offsets_like_teachers
from fewloop_trainer.training import TrainSettings

PSEUDO_LABELS = 600
"""After the last round; of R rounds each may add its R-th part."""


@dataclass(frozen=True)
class PseudoLabels:
    """Selected candidates of a run, in order of selection, and what is kept of each."""

    chosen: list[PseudoLabel]
    soft: np.ndarray
    """[selected, C]: the distribution of the ensemble that selected it, tempered."""
    lines: list[dict] = field(default_factory=list)
    """Of `pseudo-labels.jsonl`."""
    rounds: list[dict] = field(default_factory=list)
    """Round, how many it selected and the temperature it was judged at."""
    stopped: str | None = None
    """Why there were fewer rounds than the task asks for."""


@dataclass(frozen=True)
class Opinion:
    """What the teachers of a round say of the candidates: scores [T, N, C], offsets [T] of [C], temperature."""

    scores: np.ndarray
    offsets: list[np.ndarray]
    temperature: float


def pseudo_labels(run: Run, fit: OutOfFoldFit) -> PseudoLabels:
    """Selects among the run's candidates and says which in `pseudo-labels.jsonl`.

    Thresholds are of calibrated confidence: untempered, teachers fitted to few rows are sure of nearly all.
    """
    found = PseudoLabels([], np.zeros((0, run.classes)))
    if not run.candidates:
        return found
    rounds = run.task.rounds
    for number in range(1, rounds + 1):
        opinion = _first_round(run, fit) if number == 1 else _later_round(run, fit, found, number)
        added = _select(run, fit, opinion, found, PSEUDO_LABELS * number // rounds)
        found = PseudoLabels(
            [*found.chosen, *added.chosen],
            np.concatenate([found.soft, added.soft]),
            [*found.lines, *added.lines],
            [*found.rounds, {"round": number, "selected": len(added.chosen), "temperature": opinion.temperature}],
            None if added.chosen else f"round {number} of {rounds} selected nothing",
        )
        if found.stopped:
            break
    for later in range(number + 1, rounds + 1):
        for teacher in run.teachers:
            run.plan.done(run.jobs[round_job(teacher, later)])
    if run.place.first:
        lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in found.lines)
        (run.folder / "pseudo-labels.jsonl").write_text(lines)
    return found


def learn(
    run: Run,
    name: str,
    learner: PetLearner | ClassifierLearner,
    index: np.ndarray,
    texts: list[dict],
    soft: np.ndarray,
    seed: int,
) -> Any:
    """A model, from the base anew, of the labelled rows `index` and of `texts` with soft labels [texts, C]."""
    drawn = student_steps(len(run.wanted)) * TrainSettings.batch_rows
    share = min(LABELLED_SHARE, PASSES * len(index) / drawn)
    wanted, groups = student_targets(run.balance[index], run.goal[index], soft, share)
    rows = [*learner.encode([run.data.train[i] for i in index]), *learner.encode(texts)]
    model = learner.start()
    run.train(name, learner, model, rows, wanted, groups, seed, student=True)
    return model


def label_of(run: Run, pseudo: PseudoLabel) -> str:
    return run.task.labels_of(run.candidates[pseudo.row])[pseudo.label]


def _first_round(run: Run, fit: OutOfFoldFit) -> Opinion:
    # Counted anew: the machine may have turned slow. Kept, so that a later attempt asks about the same ones.
    (many,) = run.alone("pseudo", lambda: {"candidates": np.array(len(affordable_candidates(run)))})
    run.candidates = run.all_candidates()[: int(many)]

    def ask(teacher: Teacher) -> dict[str, np.ndarray]:
        learner, model = run.trained(teacher)
        return {"scores": run.predict(learner, model, learner.encode(run.candidates), fast=True)}

    jobs = {asked_job(teacher.id): partial(ask, teacher) for teacher in run.teachers}
    said = run.shared(jobs, lambda done: run.report(0.7 + 0.08 * done / len(jobs) / run.task.rounds))
    scores = np.stack([of_teacher for (of_teacher,) in said])
    if run.shrinkage.matched and run.data.prior is not None:
        sample = in_reservoir(run.candidates)
        run.served_offsets = [match_priors(x[sample], run.data.prior) for x in scores]
    return Opinion(scores, run.served_offsets, fit.temperature)


def _later_round(run: Run, fit: OutOfFoldFit, earlier: PseudoLabels, number: int) -> Opinion:
    """Its temperature: at which it is as sure of the calibration texts, which are nobody's pseudo-labels, as the
    cross-fitted teachers are. Its own rows out of fold there are none: pseudo-labels know of them all."""
    of_candidates, of_texts, offsets = [], [], []
    jobs = {
        round_job(teacher, number): partial(_train_and_ask, run, earlier, number, index)
        for index, teacher in enumerate(run.teachers)
    }
    said = run.shared(jobs, lambda done: run.report(0.7 + 0.08 * (number - 1 + done / len(jobs)) / run.task.rounds))
    for teacher, (candidates, texts) in zip(run.teachers, said, strict=True):
        learner = run.learners[teacher.id]
        if run.observe.sets:
            offsets.append(offsets_like_teachers(run, fit, teacher.method, texts))
        elif run.shrinkage.matched and run.data.prior is not None:
            offsets.append(match_priors(candidates[in_reservoir(run.candidates)], run.data.prior))
        else:
            offsets.append(run.prior_offsets() + (learner.offsets if isinstance(learner, PetLearner) else 0.0))
        of_candidates.append(candidates)
        of_texts.append(run.observe.probabilities(texts, offsets[-1]))
    if not len(run.calibration):
        return Opinion(np.stack(of_candidates), offsets, fit.temperature)
    sure = run.observe.flat(combine_members(fit.texts, fit.weights))
    confidence = float(apply_temperature(sure, fit.temperature).max(-1).mean())
    own = run.observe.flat(combine_members(np.stack(of_texts), fit.weights))
    return Opinion(np.stack(of_candidates), offsets, calibrate.match_confidence(own, confidence))


def _train_and_ask(run: Run, earlier: PseudoLabels, number: int, index: int) -> dict[str, np.ndarray]:
    """Scores of candidates and calibration texts by a teacher that has learned `earlier`."""
    teacher, everything = run.teachers[index], np.arange(len(run.wanted))
    learner, texts = run.learners[teacher.id], [run.candidates[p.row] for p in earlier.chosen]
    seed = run.seed + 20_011 * number + 101 * index
    model = learn(run, round_job(teacher, number), learner, everything, texts, earlier.soft, seed)
    asked = run.candidates, run.calibration
    candidates, held = (run.predict(learner, model, learner.encode(rows), fast=True) for rows in asked)
    return {"candidates": candidates, "texts": held}


def _select(run: Run, fit: OutOfFoldFit, opinion: Opinion, earlier: PseudoLabels, limit: int) -> PseudoLabels:
    members = np.stack([run.observe.probabilities(x, o) for x, o in zip(opinion.scores, opinion.offsets, strict=True)])
    tempered = np.stack([run.observe.temper(p, opinion.temperature) for p in members])
    combined = run.observe.temper(combine_members(members, fit.weights), opinion.temperature)
    how = run.task.selection
    chosen = select(tempered, combined, how, run.data.prior, limit, run.thresholds, earlier.chosen)
    lines = [
        {
            "itemKey": run.candidates[p.row].get("itemKey"),
            **_answer(run, p.row, combined),
            "confidence": p.confidence,
            "contested": p.contested,
            "rule": p.rule,
            "strategy": how.strategy,
            "round": p.round,
            "votes": {t.id: _vote(run, p.row, said) for t, said in zip(run.teachers, tempered, strict=True)},
            "teachers": [t.id for t in run.teachers],
        }
        for p in chosen
    ]
    return PseudoLabels(chosen, combined[[p.row for p in chosen]], lines)


def _answer(run: Run, row: int, said: np.ndarray) -> dict[str, object]:
    return {"labels" if run.observe.sets else "label": _vote(run, row, said)}


def _vote(run: Run, row: int, said: np.ndarray) -> str | list[str]:
    """The label, or the labels, that probabilities [N, C] give a candidate."""
    names = run.task.labels_of(run.candidates[row])
    if not run.observe.sets:
        return names[int(said[row].argmax())]
    return [names[label] for label in np.flatnonzero(chosen_of(said[row], run.thresholds))]

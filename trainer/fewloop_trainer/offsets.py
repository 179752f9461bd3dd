"""Offsets (log space) that match the base model's predictions to the prior, and what training needs of the base."""

import numpy as np

from fewloop_trainer.learners import PetLearner
from fewloop_trainer.run_state import MATCHING_TEXTS, Run, Teacher
from fewloop_trainer.scores import match_priors
from fewloop_trainer.shrink import beats_guessing


def match_base(run: Run) -> dict[str, np.ndarray]:
    """Offsets [templates, C] at which the base model's predictions match the prior, and its scores of the labelled
    rows [PET teachers, N, C]: the zero-shot that training starts from."""
    rows = run.data.reservoir
    if len(rows) < 50:  # the labelled ones have to do too: they are balanced by nothing but chance
        rows = [*rows, *run.data.train]
    chosen = np.random.default_rng(run.seed + 1).permutation(len(rows))[:MATCHING_TEXTS]
    offsets = np.zeros((len(run.task.templates), run.classes))
    scores: dict[int, np.ndarray] = {}
    for teacher, learner in run.pet():
        if teacher.template in scores:
            continue
        if run.data.prior is not None:
            texts = learner.encode([rows[i] for i in chosen])
            offsets[teacher.template] = match_priors(run.predict(learner, run.base, texts, fast=True), run.data.prior)
        scores[teacher.template] = run.predict(learner, run.base, learner.encode(run.data.train))
    of_teachers = [scores[t.template] for t, _ in run.pet()]
    return {
        "offsets": offsets,
        "rows": np.stack(of_teachers) if of_teachers else np.zeros((0, len(run.wanted), run.classes)),
    }


def judge_base(run: Run, offsets: np.ndarray, scores: np.ndarray) -> None:
    """Whether the base model knows something of the task that few labels could take from it; where it does not, all
    weights are tuned however few they are. A method that begins from nothing has none to judge."""
    pet = [teacher for teacher, _ in run.pet()]
    if not pet:
        return
    said = [run.observe.probabilities(x, offsets[t.template]) for x, t in zip(scores, pet, strict=True)]
    run.base_knows = beats_guessing(np.stack(said), run.wanted)
    run.tunes_all = run.tunes_all or not run.base_knows


def training_offsets(run: Run, offsets: np.ndarray) -> np.ndarray:
    """Offsets in training: batches are balanced, so the prior's own part is left to serving."""
    return offsets - run.prior_offsets()


def first_offsets(run: Run, teacher: Teacher, offsets: np.ndarray) -> np.ndarray:
    """[C]: what a teacher is served with unless offsets are matched after training."""
    return offsets[teacher.template] if teacher.method == "pet" else run.prior_offsets()


def remember(run: Run) -> None:
    """Teachers of one template share what the base's encoder says of their rows."""
    remembered: dict[int, PetLearner] = {}
    for (teacher, learner), rows in zip(run.pet(), run.pet_rows(), strict=True):
        if teacher.template in remembered:
            learner.share(remembered[teacher.template], rows)
        else:
            learner.remember(rows)
            remembered[teacher.template] = learner

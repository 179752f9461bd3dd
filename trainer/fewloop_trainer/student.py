"""The student of a run: which teacher it learns like, its training, offsets and temperature."""

from dataclasses import dataclass

import numpy as np

from fewloop_trainer import calibrate
from fewloop_trainer.budget import PASSES, STUDENT_STEPS
from fewloop_trainer.data import targets
from fewloop_trainer.distill import LABELLED_SHARE, student_targets
from fewloop_trainer.learners import PetLearner
from fewloop_trainer.pseudo import PseudoLabels
from fewloop_trainer.run_state import Run, Teacher
from fewloop_trainer.scores import apply_temperature, combine_members, match_priors
from fewloop_trainer.shrink import FEWEST_MATCHING_TEXTS
from fewloop_trainer.teachers import OutOfFoldFit
from fewloop_trainer.training import TrainSettings


@dataclass(frozen=True)
class Student:
    member: Teacher
    offsets: np.ndarray
    """[C] that it is served with."""
    dev: np.ndarray
    """Probabilities [dev rows, C], untempered."""
    temperature: float
    temperature_source: str


def calibrate_student(run: Run, member: Teacher, fit: OutOfFoldFit) -> Student:
    """The trained student with the offsets and the temperature that it is served with."""
    offsets, dev, held = _distributions(run, member)
    teachers = combine_members(fit.texts, fit.weights)
    return Student(member, offsets, dev, *_temperature(run, dev, held, teachers, fit.temperature))


def student_of(run: Run, oof: np.ndarray) -> Teacher:
    """The student learns as the teacher does that is best out of fold, without its strategy."""
    wanted = run.observe.flat_wanted(run.wanted)
    best = run.teachers[int(np.argmin([_log_loss(run.observe.flat(p), wanted) for p in oof]))]
    student = Teacher("student", best.method, best.template, "plain")
    learner = run.learner(student)
    if isinstance(learner, PetLearner):
        learner.offsets = run.learners[best.id].offsets
    run.learners["student"] = learner
    return student


def train_student(run: Run, pseudo: PseudoLabels) -> None:
    if run.workspace.finished("student"):
        return
    learner = run.learners["student"]
    texts = learner.encode([run.candidates[p.row] for p in pseudo.chosen])
    share = min(LABELLED_SHARE, PASSES * len(run.wanted) / (STUDENT_STEPS * TrainSettings.batch_rows))
    wanted, groups = student_targets(run.balance, run.goal, pseudo.soft, share)
    rows, model = [*learner.encode(run.data.train), *texts], learner.start()
    run.train("student", learner, model, rows, wanted, groups, run.seed + 10_007, student=True)
    run.workspace.save("student", learner.state(model))


def _distributions(run: Run, student: Teacher) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The student's offsets [C], and its probabilities of the dev rows and of the calibration texts."""
    learner, model = run.trained(student)
    # Until they are matched anew, those of training and the prior's part.
    offsets = run.prior_offsets() + (learner.offsets if isinstance(learner, PetLearner) else 0.0)
    texts = run.predict(learner, model, learner.encode(run.calibration))
    if run.shrinkage.matched and run.data.prior is not None and len(texts) >= FEWEST_MATCHING_TEXTS:
        offsets = match_priors(texts, run.data.prior)
    dev = run.predict(learner, model, learner.encode(run.data.dev))
    return offsets, run.observe.probabilities(dev, offsets), run.observe.probabilities(texts, offsets)


def _temperature(
    run: Run, dev: np.ndarray, held: np.ndarray, teachers: np.ndarray, temperature: float
) -> tuple[float, str]:
    if len(run.data.dev) >= calibrate.CALIBRATED_ROWS:
        return run.observe.fit_temperature(dev, targets(run.task, run.data.dev)), "dev"
    if not len(held):
        return temperature, "ensemble"
    teachers, held = run.observe.flat(teachers), run.observe.flat(held)
    confidence = float(apply_temperature(teachers, temperature).max(-1).mean())
    return calibrate.match_confidence(held, confidence), "matched"


def _log_loss(distribution: np.ndarray, wanted: np.ndarray) -> float:
    return float(-np.log(distribution[np.arange(len(wanted)), wanted] + 1e-12).mean())

"""Continue-training: the encoder learns another pair task first (`--init-from` in the recipe, which takes CMNLI and
LCQMC), and then whatever method starts from it.

EFL's classifier (efl.py) is trained on the other task's rows; its encoder is kept, its head is thrown away. The
masked-language head is the base's and fits the new encoder less well: it is a start for efl and fine-tune, and for pet
only by further training.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import BertForMaskedLM

from fewloop_trainer.cell import Lesson
from fewloop_trainer.data import targets
from fewloop_trainer.encoder import load_model, load_tokenizer
from fewloop_trainer.learners import learner_of
from fewloop_trainer.render import Renderer
from fewloop_trainer.training import TrainSettings

STEPS = 300


def train_on_pairs(
    base: Path, lesson: Lesson, settings: TrainSettings, on_step: Callable[[int, float], None]
) -> BertForMaskedLM:
    """The base model with the encoder that EFL trained on the lesson's rows, for `settings.steps` batches."""
    model, task = load_model(base).eval(), lesson.task
    learner = learner_of(model, Renderer(load_tokenizer(base), task), task, len(task.labels), "efl", 0, "plain")
    wanted, classifier = targets(task, lesson.train), learner.start()
    rows, rates = learner.encode(lesson.train), learner.rates(student=False)
    learner.train(classifier, rows, np.eye(len(task.labels))[wanted], wanted, replace(settings, **rates), on_step)
    model.bert.load_state_dict(classifier.bert.state_dict())
    return model.eval()

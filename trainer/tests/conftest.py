"""What several test files need: the committed tiny model, its tokenizer, and tasks to render."""

from pathlib import Path

import pytest
import torch
from transformers import BertForMaskedLM

from fewloop_trainer.encoder import load_model, load_tokenizer
from fewloop_trainer.render import Renderer
from fewloop_trainer.task import load_task
from folders import TINY_MODEL, definition_of

# A tiny model's steps are too short to share: two threads wait for each other more than they work.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model_folder() -> Path:
    return TINY_MODEL


@pytest.fixture
def tiny_model() -> BertForMaskedLM:
    """A fresh one for every test: training changes it."""
    return load_model(TINY_MODEL).eval()


@pytest.fixture(scope="session")
def tiny_tokenizer():
    return load_tokenizer(TINY_MODEL)


@pytest.fixture(scope="session")
def sentiment(tiny_tokenizer):
    """A task of two labels with uneven words, and its renderer."""
    task = load_task(definition_of())
    return task, Renderer(tiny_tokenizer, task)

"""What several test files need: the committed tiny model, its tokenizer, a task, a finished run."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import BertForMaskedLM

from fewloop_trainer import run, run_state
from fewloop_trainer.encoder import load_model, load_tokenizer
from fewloop_trainer.fixture import VOCABULARY
from fewloop_trainer.render import Renderer
from fewloop_trainer.task import load_task
from folders import TINY_MODEL, definition_of, ordinary_run

# A tiny model's steps are too short to share: two threads wait for each other more than they work.
torch.set_num_threads(1)

# Runs of a few rows pass through all stages too.
run_state.FEWEST_ROWS_FOR_ALL_WEIGHTS = 8


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


@dataclass(frozen=True)
class FinishedRun:
    folder: Path
    status: int
    seen: set[tuple[str, bool, int]]
    """Stage, whether in training, and token id, of all that any model was given."""


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> FinishedRun:
    """A run from its beginning to its end, on the rows of `ordinary_run`."""
    folder = ordinary_run(tmp_path_factory.mktemp("finished"))
    seen: set[tuple[str, bool, int]] = set()
    stage = "before"

    def watch(module: torch.nn.Module, inputs: tuple) -> None:
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == VOCABULARY:
            seen.update((stage, module.training, token) for token in inputs[0].unique().tolist())

    enter_stage = run_state.Run.enter

    def enter(self: run_state.Run, name: str, fraction: float) -> None:
        nonlocal stage
        stage = name
        enter_stage(self, name, fraction)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(watch)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_state.Run, "enter", enter)
        status = run.run(folder)
    hook.remove()
    return FinishedRun(folder, status, seen)

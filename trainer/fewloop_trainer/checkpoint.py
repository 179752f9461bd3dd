"""The checkpoint of a long training: a killed one, started again, goes on to the same model.

Besides weights and optimizer it holds the states of chance; batches are drawn again up to where it stopped.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fewloop_trainer.tensor_file import read_tensors, write_tensors

SECONDS = 30.0
"""Between two checkpoints: one takes half a second."""


class Checkpoint:
    """`path`: a file of one training alone, whose settings never change. The last step is always kept."""

    def __init__(self, path: Path, steps: int):
        self.path, self.steps = path, steps
        self.saved_at = time.monotonic()

    def resume(
        self, optimizer: torch.optim.Optimizer, trained: Sequence[torch.Tensor], rng: np.random.Generator
    ) -> int:
        """Puts all back as it was kept; the number of steps taken by then, 0 where nothing was kept."""
        if not self.path.exists():
            return 0
        state = read_tensors(self.path)
        with torch.no_grad():
            for parameter, kept in zip(trained, state["weights"], strict=True):
                parameter.copy_(kept)
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch"])
        if "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"])
        rng.bit_generator.state = state["numpy"]
        return state["step"]

    def keep(
        self, step: int, optimizer: torch.optim.Optimizer, trained: Sequence[torch.Tensor], rng: np.random.Generator
    ) -> None:
        """Writes the file, whole or not at all, if it is time to."""
        if step < self.steps and time.monotonic() - self.saved_at < SECONDS:
            return
        state = {
            "step": step,
            "weights": [parameter.detach() for parameter in trained],
            "optimizer": optimizer.state_dict(),
            "torch": torch.get_rng_state(),
            **({"cuda": torch.cuda.get_rng_state()} if torch.get_default_device().type == "cuda" else {}),
            "numpy": rng.bit_generator.state,
        }
        write_tensors(self.path, state)
        self.saved_at = time.monotonic()

"""`work/` of a run folder: what a stage computed, written whole or not at all, and the run's progress.

A killed run, started again, finds there what was finished, as long as its rows are the same.
"""

import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from fewloop_trainer.files import write_json
from fewloop_trainer.training import AtWork, nobody_waits

POLL_SECONDS = 0.05


def wait_until(there: Callable[[], bool], at_work: AtWork = nobody_waits) -> None:
    """Until another process of the run has written it, `at_work` called meanwhile. Where that one fails, torchrun ends
    this one."""
    while not there():
        at_work()
        time.sleep(POLL_SECONDS)


class Workspace:
    def __init__(self, folder: Path):
        self.folder, self.work = folder, folder / "work"
        self.work.mkdir(exist_ok=True)

    def take_inputs(self, digests: dict[str, str], first: bool) -> None:
        """Empties `work/` where it is of rows with other digests than these: a text was forgotten while the run was
        open. Arrays go by row, and adapted weights have learned the text. The first process does it, the others wait.
        Without `inputs.json`, of an older trainer, all is kept."""
        path = self.work / "inputs.json"

        def are_taken() -> bool:
            return path.exists() and json.loads(path.read_text()) == digests

        if not first:
            wait_until(are_taken)
            return
        if path.exists() and not are_taken():
            for found in self.work.iterdir():
                if found.is_dir():
                    shutil.rmtree(found)
                elif found != path:  # which goes last: killed in between, the next attempt must see it
                    found.unlink()
        write_json(path, digests)

    def cached(self, name: str, compute: Callable[[], dict[str, np.ndarray]]) -> list[np.ndarray]:
        path = self.work / f"{name}.npz"
        if not path.exists():
            partial = self.work / f"{name}.partial.npz"
            np.savez(partial, **compute())
            partial.replace(path)
        stored = np.load(path)
        return [stored[key] for key in stored.files]

    def wait_for(self, name: str, at_work: AtWork) -> None:
        wait_until(lambda: self.finished(name), at_work)

    def finished(self, name: str) -> bool:
        return (self.work / f"{name}.npz").exists() or (self.work / f"{name}.safetensors").exists()

    def save(self, name: str, state: dict[str, torch.Tensor]) -> None:
        """In fp16: what is served has no more."""
        partial = self.work / f"{name}.partial"
        save_file({key: tensor.detach().half().contiguous() for key, tensor in state.items()}, partial)
        partial.replace(self.work / f"{name}.safetensors")

    def load(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.work / f"{name}.safetensors")

    def finished_models(self) -> list[str]:
        """Cross-fitted ones, of which the predictions are kept, and whole ones."""
        found = [*self.work.glob("*.fold*.npz"), *self.work.glob("*.safetensors")]
        return sorted(path.stem for path in found if ".partial" not in path.name)

    def took(self, name: str, steps: int, seconds: float, process: int) -> None:
        write_json(self.work / f"{name}.json", {"steps": steps, "seconds": round(seconds, 2), "process": process})

    def steps_taken(self, names: list[str]) -> dict[str, int]:
        files = [self.work / f"{name}.json" for name in names]
        return {path.stem: json.loads(path.read_text())["steps"] for path in files if path.exists()}

    def progress(self, stage: str, progress: float, metrics: dict[str, object]) -> None:
        line: dict[str, object] = {"at": datetime.now(UTC).isoformat(), "stage": stage, "progress": round(progress, 4)}
        if metrics:
            line["metrics"] = metrics
        with (self.folder / "progress.jsonl").open("a") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

"""A base model made out of another one by further training, as a folder that any method or run may start from.

It is made once: its name is the digest of all that determines it, and a killed training goes on from its checkpoint.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from transformers import BertForMaskedLM

from fewloop_trainer.base_model import copy_tokenizer, save_model
from fewloop_trainer.bundle import library_versions
from fewloop_trainer.cell import base_digest, digest_of


def derive(base: Path, work: Path, described: object, train: Callable[[Path], BertForMaskedLM]) -> Path:
    """The folder in `work` of what `train` makes of `base`; `described` (JSON): all else that determines it.

    `train` gets a folder to go on from after a kill.
    """
    key = digest_of([base_digest(base), described, library_versions()])[:32]
    folder, checkpoints, partial = work / key, work / f"{key}.work", work / f"{key}.partial"
    if not folder.exists():
        checkpoints.mkdir(parents=True, exist_ok=True)
        model = train(checkpoints)
        shutil.rmtree(partial, ignore_errors=True)
        save_model(model, partial)
        copy_tokenizer(base, partial)
        partial.rename(folder)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return folder

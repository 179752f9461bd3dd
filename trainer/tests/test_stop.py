"""How a run ends from outside. A stand-in for PyTorch keeps the trainer where it would be importing the real one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from folders import ROOT, read_json, reviews, write_run

STAND_IN = """
import os, pathlib, sys, time
folder = pathlib.Path(os.environ["RUN_FOLDER"])
parent = os.getppid()
(folder / "importing").write_text(str(os.getpid()))
while os.getppid() == parent:
    time.sleep(0.02)
time.sleep(4)  # more than the trainer takes to notice
(folder / "survived").touch()
os._exit(0)
"""
SERVICE = """
import os, subprocess, sys
arguments = [str(os.getpid()) if a == "SELF" else a for a in sys.argv[1:]]
subprocess.run([sys.executable, "-m", "fewloop_trainer", "run", *arguments])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "torch.py").write_text(STAND_IN)
    return write_run(tmp_path / "run", reviews(4), [])


def environment(folder: Path) -> dict[str, str]:
    paths = os.pathsep.join((str(folder.parent), str(ROOT / "trainer")))
    return os.environ | {"PYTHONPATH": paths, "RUN_FOLDER": str(folder)}


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def start_service(folder: Path, *arguments: str) -> subprocess.Popen:
    """A process whose child the trainer is; returns once that is importing."""
    service = subprocess.Popen([sys.executable, "-c", SERVICE, *arguments, str(folder)], env=environment(folder))
    until((folder / "importing").exists)
    return service


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_imports_is_not_lost(folder, number):
    trainer = subprocess.Popen([sys.executable, "-m", "fewloop_trainer", "run", str(folder)], env=environment(folder))
    until((folder / "importing").exists)
    trainer.send_signal(number)
    assert trainer.wait(10) == 1
    assert read_json(folder / "result.json")["code"] == "STOPPED"


def test_a_trainer_that_was_told_its_parent_ends_with_it(folder):
    service = start_service(folder, "--parent", "SELF")
    service.kill()
    service.wait()
    until((folder / "result.json").exists, 10)
    assert read_json(folder / "result.json")["code"] == "STOPPED"
    assert not (folder / "survived").exists()


def test_a_trainer_whose_parent_is_gone_before_it_looks_ends_too(folder):
    not_the_parent = str(os.getpid())
    trainer = subprocess.run(
        [sys.executable, "-c", SERVICE, "--parent", not_the_parent, str(folder)], env=environment(folder), timeout=60
    )
    assert trainer.returncode == 0
    assert read_json(folder / "result.json")["code"] == "STOPPED"


def test_a_trainer_that_was_not_told_outlives_its_parent(folder):
    service = start_service(folder)
    service.kill()
    service.wait()
    until((folder / "survived").exists, 30)
    assert not (folder / "result.json").exists()

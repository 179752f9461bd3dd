"""The trainer's commands: `run` for the service; `fetch-base`, `import-encoder`, `pretrain`, `continue-train`,
`export-base` for base models; `benchmark`."""

import argparse
import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from fewloop_trainer.adapt_settings import AdaptSettings
from fewloop_trainer.files import write_json
from fewloop_trainer.stop import Stopped, end_with_parent, raise_on_signal

if TYPE_CHECKING:  # it brings NumPy, which the commands import once signals are heard
    from fewloop_trainer.data import RunError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fewloop_trainer", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _run_arguments(commands.add_parser("run", help="trains what a run folder describes; resumes where it stopped"))
    _benchmark_arguments(commands.add_parser("benchmark", help="methods on FewCLUE's few-shot tasks; resumes"))
    _fetch_base_arguments(commands.add_parser("fetch-base", help="a base model's folder, of a model on a hub"))
    _import_encoder_arguments(commands.add_parser("import-encoder", help="base model from the published ONNX file"))
    _pretrain_arguments(commands.add_parser("pretrain", help="masked-language modelling on text (head, DAPT, TAPT)"))
    _continue_arguments(commands.add_parser("continue-train", help="a base model taught by other tasks' labelled rows"))
    _export_base_arguments(commands.add_parser("export-base", help="model.onnx and golden.json of a base model"))
    _tiny_model_arguments(commands.add_parser("make-tiny-model", help="the tests' model, cut out of a base model"))
    options = parser.parse_args(arguments)
    try:
        return options.call(options)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        print(f"fewloop_trainer {options.command}: {error.strerror}: {error.filename}", file=sys.stderr)
        return 2


def _refused(command: str, error: "RunError") -> int:
    """Says why; the exit status, 2 where what was given is at fault."""
    print(f"{command}: {error}", file=sys.stderr)
    return 2 if error.code == "BAD_INPUT" else 1


def stop_on_signal() -> Callable[[], bool]:
    """A function that turns true on SIGTERM or SIGINT, so that work stops at a place it can go on from."""
    stopped = False

    def handle(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return lambda: stopped


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parent", type=int, metavar="PID", help="stop once this process is no longer the parent")
    parser.add_argument(
        "--processes",
        type=lambda text: None if text == "auto" else _whole(text),
        default=1,
        metavar="N",
        help="that share out the models, two cores or a GPU each; auto: as many as there are, and memory allows",
    )
    parser.add_argument("--rows-at-once", type=_whole, metavar="N", help="of a batch, where memory is short")
    parser.add_argument("--recompute", action="store_true", help="layers on the way back, where memory is short")
    parser.set_defaults(call=_run)


def _run(options: argparse.Namespace) -> int:
    # Before PyTorch is imported: that takes seconds, in which a signal must not be lost.
    raise_on_signal()
    if not options.folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "no folder", str(options.folder))
    try:
        if options.parent is not None:
            end_with_parent(options.parent)
        processes = options.processes
        if processes is None:
            from fewloop_trainer.fitting import fitting

            processes = fitting(options.folder)
        if processes > 1:
            from fewloop_trainer.processes import run_several

            return run_several(options.folder, processes, _saving_options(options))
        from fewloop_trainer.run import run
        from fewloop_trainer.training import Saving

        return run(options.folder, Saving(options.rows_at_once, options.recompute))
    except Stopped:
        result = options.folder / "result.json"
        # torchrun stops the others where a process of the run fails: its reason stands there already.
        if "RANK" not in os.environ or not result.exists():
            message = "stopped from outside; the same command goes on"
            write_json(result, {"ok": False, "code": "STOPPED", "message": message})
        return 1


def _saving_options(options: argparse.Namespace) -> list[str]:
    rows = [] if options.rows_at_once is None else ["--rows-at-once", str(options.rows_at_once)]
    return [*rows, *(["--recompute"] if options.recompute else [])]


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number over 0")
    return int(text)


def _benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    root = Path(__file__).parents[2]
    parser.add_argument("data", type=Path, help="FewCLUE's folder: a folder a task in it")
    parser.add_argument("--tasks", type=_names, default=(), help="eprstmt,bustm,...; all where none are named")
    parser.add_argument("--methods", type=_names, default=(), help="zero-shot,pet,...; all where none are named")
    parser.add_argument("--splits", type=_names, default=("0", "1", "2", "3", "4"), help="0,1,2,3,4,all")
    parser.add_argument("--seeds", type=_seeds, default=(0,), help="0,1,...")
    parser.add_argument("--base", type=Path, default=root / "models/base-zh", help="folder of the base model")
    parser.add_argument("--task-files", type=Path, default=root / "examples/fewclue", metavar="DIR")
    parser.add_argument("--work", type=Path, default=Path(".fewloop/benchmark"), help="what a cell goes on from")
    parser.add_argument("--cells", type=Path, metavar="DIR", help="finished cells; `cells` in WORK where none is named")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="the report; JSON and plots beside it")
    parser.add_argument("--json", action="store_true", help="results as JSON on standard output, not Markdown")
    parser.add_argument("--threads", type=_whole, default=os.cpu_count() or 1, help="part of what results depend on")
    parser.add_argument("--limit-test", type=_whole, metavar="N", help="the first N test rows alone, for a try")
    parser.add_argument("--finished", action="store_true", help="a report of finished cells; computes nothing")
    parser.add_argument("--parent", type=int, metavar="PID", help="stop once this process is no longer the parent")
    parser.set_defaults(call=_benchmark)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(int(seed) for seed in _names(text))


def _benchmark(options: argparse.Namespace) -> int:
    raise_on_signal()
    try:
        if options.parent is not None:
            end_with_parent(options.parent)
        from fewloop_trainer.benchmark import BenchmarkSettings, benchmark
        from fewloop_trainer.data import RunError
        from fewloop_trainer.fewclue import TASKS
        from fewloop_trainer.methods import METHODS

        settings = BenchmarkSettings(
            data=options.data,
            tasks=options.tasks or TASKS,
            methods=options.methods or tuple(METHODS),
            splits=options.splits,
            seeds=options.seeds,
            base=options.base.resolve(),
            task_files=options.task_files,
            work=options.work,
            threads=options.threads,
            cells=options.cells,
            limit_test=options.limit_test,
            finished=options.finished,
        )
        try:
            return benchmark(settings, options.out, options.json)
        except RunError as error:
            return _refused("fewloop benchmark", error)
    except Stopped:
        print("stopped; the same command goes on behind the last finished cell", file=sys.stderr)
        return 1


def _fetch_base_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", help="OWNER/NAME, or OWNER/NAME@REVISION: a branch, a tag, a commit (HF_ENDPOINT's hub)"
    )
    parser.add_argument("out", type=Path, help="folder to make")
    parser.set_defaults(call=_fetch_base)


def _fetch_base(options: argparse.Namespace) -> int:
    from fewloop_trainer.data import RunError
    from fewloop_trainer.hub import fetch_base

    try:
        revision, difference = fetch_base(options.name, options.out)
    except RunError as error:
        return _refused("fewloop_trainer fetch-base", error)
    name = options.name.partition("@")[0]
    print(f"{options.out}: {name}@{revision}, ONNX Runtime within {difference:.1e} of PyTorch", file=sys.stderr)
    return 0


def _import_encoder_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", type=Path, help="the jar from Maven Central, or the folder it was unpacked to")
    parser.add_argument("out", type=Path)
    parser.set_defaults(call=_import_encoder)


def _import_encoder(options: argparse.Namespace) -> int:
    from fewloop_trainer.base_model import import_encoder

    difference = import_encoder(options.artifact, options.out)
    print(f"{options.out}: last_hidden_state within {difference:.1e} of the source", file=sys.stderr)
    return 0


def _pretrain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", type=Path, help="folder of the model to start from")
    parser.add_argument("out", type=Path, help="folder of the model to write")
    parser.add_argument("texts", type=Path, nargs="+", help="files or folders: .txt, .jsonl, .json, .csv")
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints and the curve; resumes there")
    for field in fields(AdaptSettings):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=type(field.default), default=field.default)
    parser.set_defaults(call=_pretrain)


def _pretrain(options: argparse.Namespace) -> int:
    from fewloop_trainer.adapt import pretrain, read_texts
    from fewloop_trainer.base_model import copy_tokenizer, save_model
    from fewloop_trainer.data import RunError
    from fewloop_trainer.processes import take_gpu

    take_gpu()

    settings = AdaptSettings(**{field.name: getattr(options, field.name) for field in fields(AdaptSettings)})
    try:
        model = pretrain(
            options.base,
            lambda: read_texts(options.texts),
            options.work,
            settings,
            lambda line: print(json.dumps(line), flush=True),
            stop_on_signal(),
        )
    except RunError as error:
        return _refused("fewloop_trainer pretrain", error)
    if model is None:
        print(f"stopped; the same command goes on from {options.work}", file=sys.stderr)
        return 1
    save_model(model, options.out)
    copy_tokenizer(options.base, options.out)
    return 0


def _continue_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="folder of the model to write")
    parser.add_argument(
        "--lesson",
        type=Path,
        nargs=2,
        action="append",
        required=True,
        metavar=("TASK_FILE", "ROWS"),
        help="a task and its labelled rows (JSON lines, FewCLUE's or our own); may be repeated",
    )
    parser.add_argument("--method", choices=("efl", "pet"), default="efl", help="pet: all lessons at once (multi-task)")
    root = Path(__file__).parents[2]
    parser.add_argument(
        "--init-from", type=Path, default=root / "models/base-zh", help="folder of the model to start from"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints; resumes there")
    parser.add_argument("--steps", type=int, default=None, help="batches of each training (efl 300, pet 600)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=_whole, default=os.cpu_count() or 1)
    parser.set_defaults(call=_continue)


def _continue(options: argparse.Namespace) -> int:
    raise_on_signal()
    try:
        from fewloop_trainer.data import RunError
        from fewloop_trainer.lessons import read_lesson, teach

        try:
            lessons = [read_lesson(*files) for files in options.lesson]
            folder = teach(
                options.init_from.resolve(),
                options.work,
                options.method,
                lessons,
                options.seed,
                options.threads,
                options.steps,
                lambda step, loss: print(json.dumps({"step": step, "loss": round(loss, 4)}), flush=True),
            )
            shutil.copytree(folder, options.out, dirs_exist_ok=True)
        except RunError as error:
            return _refused("fewloop_trainer continue-train", error)
    except Stopped:
        print(f"stopped; the same command goes on from {options.work}", file=sys.stderr)
        return 1
    return 0


def _export_base_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path)
    parser.set_defaults(call=_export_base)


def _export_base(options: argparse.Namespace) -> int:
    from fewloop_trainer.bundle import export_base
    from fewloop_trainer.data import RunError

    try:
        print(f"ONNX Runtime within {export_base(options.folder):.1e} of PyTorch", file=sys.stderr)
    except RunError as error:
        return _refused("fewloop_trainer export-base", error)
    return 0


def _tiny_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", type=Path, help="folder of the base model")
    parser.add_argument("out", type=Path)
    parser.add_argument("texts", type=Path, nargs="*", help="files or folders to choose characters by and train on")
    parser.set_defaults(call=_make_tiny_model)


def _make_tiny_model(options: argparse.Namespace) -> int:
    from fewloop_trainer.fixture import make_tiny_model

    make_tiny_model(options.base, options.out, options.texts, lambda line: print(json.dumps(line), file=sys.stderr))
    return 0

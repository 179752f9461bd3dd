"""A whole run as the service would start it: five teachers, pseudo-labels over 5,000 texts, a student, a bundle.

EPRSTMT's 32 train rows of split 0 and its unlabelled texts (no dev, no test row), PET as in
`examples/fewclue/eprstmt.yaml` and with a fifth template, without TAPT. Wall clock, processor time and memory are those of the trainer's processes together, read from /proc.

    python bench/trainer-speed/run.py FEWCLUE_FOLDER WORK [--budget SECONDS] [--processes N] [--precisions fp32,int8]

By the trainer's Python, from the repository's root. Prints one line of JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "trainer"))

from fewloop_trainer import fewclue, recipe  # noqa: E402
from fewloop_trainer.data import file_digest  # noqa: E402
from fewloop_trainer.keys import split_group, split_of  # noqa: E402
from fewloop_trainer.task_file import read_definition  # noqa: E402

TEXTS, CALIBRATION = 5000, 300
FIFTH = "这次买得很{mask}：{text}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--budget", type=float, default=720)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--precisions", default="fp32", help="of the bundle; further ones are compared on 2,000 texts")
    options = parser.parse_args()
    folder = options.work / f"run-{time.strftime('%H%M%S')}"
    write(folder, options)
    load_before, started = os.getloadavg(), time.monotonic()
    command = ["-m", "fewloop_trainer", "run", str(folder.resolve()), "--processes", str(options.processes)]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with (folder / "trainer.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT / "trainer", env=environment, stdout=log, stderr=log
        )
        peak, cpu = watch(process)
    wall = time.monotonic() - started
    result = json.loads((folder / "result.json").read_text())
    report = json.loads((folder / "bundle/report.json").read_text()) if result["ok"] else {}
    lines = [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]
    estimate = next(line["metrics"] for line in lines if "estimateSeconds" in line.get("metrics", {}))
    keys = ("seconds", "steps")
    found = {
        "ok": result["ok"],
        "processes": options.processes,
        "precisions": options.precisions,
        "budgetSeconds": options.budget,
        "wallSeconds": round(wall, 1),
        "cpuSeconds": round(cpu, 1),
        "peakMemoryMb": round(peak / 2**20),
        "load": [round(load, 1) for load in (*load_before, *os.getloadavg())],
        "estimate": estimate,
        "pseudoLabels": {k: report["pseudoLabels"][k] for k in ("candidates", "selected")} if report else None,
        **{key: report.get(key) for key in keys},
    }
    print(json.dumps(found))


def write(folder: Path, options: argparse.Namespace) -> None:
    source = options.data / "eprstmt"
    definition = read_definition(ROOT / "examples/fewclue/eprstmt.yaml")
    definition["templates"] = [*definition["templates"], FIFTH]
    learning = {"unlabelled": TEXTS + CALIBRATION, "budgetSeconds": options.budget}
    definition["method"] = ["pet"]
    definition["learning"] = {k: v for k, v in definition["learning"].items() if k != "adaptation"} | learning
    definition["serving"] = definition["serving"] | {"precisions": options.precisions.split(",")}
    labelled = [recipe.row_of(row) | {"label": row["label"], "split": "train"} for row in rows(source / "train_0.json")]
    known = {row["splitGroup"] for row in labelled}
    unlabelled: dict[str, dict] = {}
    for row in map(recipe.row_of, rows(source / "unlabeled.json")):
        group = split_group(row["text"])
        if len(unlabelled) < TEXTS + CALIBRATION and group not in known and split_of(group) == "train":
            unlabelled.setdefault(group, row)
    base = ROOT / "models/base-zh"
    settings = {
        "formatVersion": 1,
        "runId": "00000000-0000-4000-8000-000000000000",
        "task": definition["name"],
        "version": 1,
        "taskRevision": 1,
        "definitionDigest": "0" * 64,
        "definition": definition,
        "seed": 0,
        "baseModel": {"name": base.name, "folder": str(base), "digest": file_digest(base / "model.safetensors")},
        "budgetSeconds": options.budget,
        "threads": os.cpu_count(),
        "prior": None,
    }
    recipe.write_run(folder, settings, labelled, list(unlabelled.values()))


def rows(path: Path) -> list[dict]:
    """Split on \\n alone, as FewCLUE is written."""
    found = (fewclue.row_of(json.loads(line)) for line in path.read_text().split("\n") if line.strip())
    return [row for row in found if row is not None]


def watch(process: subprocess.Popen) -> tuple[int, float]:
    """Until it ends: the most bytes that it and its children had resident at once, and their processor seconds."""
    peak, page = 0, os.sysconf("SC_PAGE_SIZE")
    while process.poll() is None:
        resident = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in family(process.pid))
        peak = max(peak, resident * page)
        time.sleep(0.5)
    times = os.times()
    return peak, times.children_user + times.children_system


def family(pid: int) -> list[int]:
    """The process and all below it that still run."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        Path(f"/proc/{pid}/statm").read_text()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


if __name__ == "__main__":
    main()

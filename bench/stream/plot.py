"""docs/results/stream.png: memory over the records of the path, and records a second with the model.

python plot.py docs/results
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NAMES = {"limit": "limit", "fewloop": "Fewloop", "loop": "Python loop", "mlserver": "MLServer"}


def main(folder):
    path, model = (read(folder / name) for name in ("stream-path.json", "stream-model.json"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    if path:
        last = [run for run in path["runs"] if run["build"] == "now"][-1]
        for part in ("worker", "postgresql", "broker"):
            points = [(one["records"], one["mib"][part]) for one in last["series"]]
            left.plot(*zip(*points, strict=True), label=part)
        left.set(title="Memory, a model that costs nothing", xlabel="records", ylabel="MiB", ylim=(0, None))
        left.legend()
    if model:
        rounds = [one for one in model["rounds"] if "failed" not in one]
        # A system that was left out (--only) or failed has no bar: one of height 0 would be a figure.
        measured = [system for system in NAMES if any(one["system"] == system for one in rounds)]
        for at, system in enumerate(measured):
            speeds = [one.get("textsPerSecond", one.get("recordsPerSecond")) for one in rounds if one["system"] == system]
            right.bar(at, max(speeds), color="tab:blue")
            right.text(at, max(speeds), str(round(max(speeds))), ha="center", va="bottom")
        right.set_xticks(range(len(measured)), [NAMES[system] for system in measured])
        right.set(title="With the model on the same cores", ylabel="records a second")
    figure.tight_layout()
    figure.savefig(folder / "stream.png", dpi=120)


def read(file):
    return json.loads(file.read_text()) if file.exists() else None


if __name__ == "__main__":
    main(Path(sys.argv[1]))

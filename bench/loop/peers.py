"""The loop's peers on the very labels that each configuration had: TF-IDF with logistic regression, and SetFit.

    python bench/loop/peers.py OUT --base models/base-zh

Reads OUT/<configuration>/state.json and peers-data.json (both written by loop.ts), writes peers.json beside them; what
is already there is not computed again. SetFit takes minutes a point: `--points 1` has it judge the last one alone.
"""

import argparse
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "trainer"))

from fewloop_trainer.peers import set_fit, tf_idf

SEED = 42


def predicted(fit, train, held_out, base):
    labels, probabilities = fit(train, held_out, {"base": str(base), "seed": SEED})
    return [labels[best] for best in probabilities.argmax(-1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", type=Path, default=Path("models/base-zh"))
    parser.add_argument("--points", type=int, help="only so many of a configuration's points, the largest label sets")
    options = parser.parse_args()
    folders = [file.parent for file in sorted(options.out.glob("*/state.json"))]
    # The cheap one first, everywhere; the largest sets first.
    for name, fit in (("tfidf", tf_idf), ("setfit", set_fit)):
        for folder in folders:
            compare(folder, name, fit, options.base, options.points)


def compare(folder, name, fit, base, points):
    state = json.loads((folder / "state.json").read_text())
    data = json.loads((folder / "peers-data.json").read_text())
    held_out, wanted = [row["text"] for row in data["heldOut"]], [row["label"] for row in data["heldOut"]]
    file = folder / "peers.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for point in list(reversed(state["points"]))[:points]:
        train = state["labelled"][: point["labels"]]
        key = f"{name}-{point['labels']}"
        if key in results or not train:
            continue
        started = time.monotonic()
        said = predicted(fit, train, held_out, base)
        hits = "".join("1" if a == b else "0" for a, b in zip(said, wanted, strict=True))
        results[key] = {"hits": hits, "seconds": time.monotonic() - started}
        print(f"{folder.name} {key}: {hits.count('1') / len(hits):.3f}", flush=True)
        file.with_suffix(".partial").write_text(json.dumps(results))
        file.with_suffix(".partial").replace(file)


if __name__ == "__main__":
    main()

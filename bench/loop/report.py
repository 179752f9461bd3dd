"""Table and plot of the loop: OUT/<configuration>/{state,peers}.json → docs/results/loop-*.{md,png}.

    python bench/loop/report.py OUT docs/results
"""

import json
import math
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib
from scipy.stats import norm

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def accuracy(hits):
    return hits.count("1") / len(hits)


def paired_difference(a, b):
    """Mean of a - b over the same rows with its 95 % interval (normal approximation of the paired difference)."""
    differences = [int(x) - int(y) for x, y in zip(a, b, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((d - mean) ** 2 for d in differences) / (len(differences) - 1)
    half = norm.ppf(0.975) * math.sqrt(variance / len(differences))
    return mean, mean - half, mean + half


def load(out):
    rows = []
    for file in sorted(out.glob("*/state.json")):
        target, strategy, seed = file.parent.name.rsplit("-", 2)
        if strategy == "start":  # every strategy begins with its points
            continue
        peers_file = file.parent / "peers.json"
        peers = json.loads(peers_file.read_text()) if peers_file.exists() else {}
        rows.append({"target": target, "strategy": strategy, "seed": seed, **json.loads(file.read_text()), "peers": peers})
    return rows


def table(rows):
    lines = [
        "| target | strategy | seed | labels | Fewloop | TF-IDF + LR | SetFit | minus TF-IDF (95 %) | minus SetFit (95 %)"
        " | retrain s | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for point in row["points"]:
            cells = [row["target"], row["strategy"], row["seed"], point["labels"], f"{100 * point['accuracy']:.1f}"]
            differences = []
            for peer in ("tfidf", "setfit"):
                hits = row["peers"].get(f"{peer}-{point['labels']}", {}).get("hits")
                cells.append(f"{100 * accuracy(hits):.1f}" if hits else "")
                mean = paired_difference(point["hits"], hits) if hits else None
                differences.append(f"{100 * mean[0]:+.1f} ({100 * mean[1]:+.1f} to {100 * mean[2]:+.1f})" if mean else "")
            seconds = point["trainSeconds"]
            cells += [*differences, f"{seconds:.0f}" if seconds else "", point["verdict"] or ""]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def load_table(rows):
    lines = ["| configuration | phase | requests | failures | p50 ms | p99 ms |", "|---|---|---|---|---|---|"]
    for row in rows:
        for phase, values in (row["load"] or {"phases": {}})["phases"].items():
            lines.append(
                f"| {row['target']} {row['strategy']} {row['seed']} | {phase} | {values['requests']}"
                f" | {values['failures']} | {values['p50Ms']:.0f} | {values['p99Ms']:.0f} |"
            )
    return "\n".join(lines)


def plot(rows, file):
    targets = sorted({row["target"] for row in rows})
    figure, axes = plt.subplots(1, len(targets), figsize=(6 * len(targets), 4.2), squeeze=False)
    for axis, target in zip(axes[0], targets, strict=True):
        curves = defaultdict(lambda: defaultdict(list))
        for row in (r for r in rows if r["target"] == target):
            for point in row["points"]:
                curves[f"Fewloop, {row['strategy']}"][point["labels"]].append(point["accuracy"])
                for peer, name in (("tfidf", "TF-IDF + LR"), ("setfit", "SetFit")):
                    hits = row["peers"].get(f"{peer}-{point['labels']}", {}).get("hits")
                    if hits:
                        curves[f"{name}, {row['strategy']} labels"][point["labels"]].append(accuracy(hits))
        for name, values in curves.items():
            labels = sorted(values)
            style = "-" if name.startswith("Fewloop") else "--"
            axis.plot(labels, [100 * sum(values[n]) / len(values[n]) for n in labels], style, marker="o", label=name)
        axis.set(title=target, xlabel="labels", ylabel="accuracy on held-out reviews, %")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main():
    out, results = Path(sys.argv[1]), Path(sys.argv[2])
    rows = load(out)
    results.mkdir(parents=True, exist_ok=True)
    (results / "loop-table.md").write_text(table(rows) + "\n\n" + load_table(rows) + "\n")
    plot(rows, results / "loop.png")
    raw = [{**row, "labelled": len(row["labelled"])} for row in rows]
    (results / "loop.json").write_text(json.dumps(raw) + "\n")


if __name__ == "__main__":
    main()

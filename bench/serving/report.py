"""Tables and plot of one run of serving.ts: OUT/raw.jsonl → docs/results/serving.{md,png,jsonl}.

python bench/serving/report.py OUT docs/results
"""

import json
import math
import shutil
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS = "fewloop"
AUTO = "fewloop student (auto)"
"""A trained version's student in what the service takes by itself."""
LIMITS = ["limit (Python)", "limit (Node)"]
# The aims are about these peers; the pipeline is no server.
PEERS = ["litserve", "bentoml", "mlserver", "ray"]


def load(out):
    """(round, set, level, contestant) → figures; other keys → value."""
    measured, other = {}, {}
    for line in (out / "raw.jsonl").read_text().split("\n"):
        if not line:
            continue
        entry = json.loads(line)
        parts = entry["key"].split(" | ")
        if parts[0].isdigit():
            measured[(int(parts[0]), *parts[1:])] = entry["value"]
        else:
            other[entry["key"]] = entry["value"]
    return measured, other


def ordered(values):
    return list(dict.fromkeys(values))


def rates(measured, level, contestant):
    """Texts a second, one a round."""
    rounds = sorted({key[0] for key in measured})
    found = [measured.get((r, *level, contestant), {}) for r in rounds]
    return [value["textsPerSecond"] for value in found if value.get("textsPerSecond") is not None]


def mean(values):
    return sum(values) / len(values) if values else math.nan


def best_limit(measured, level):
    return max(
        (mean(rates(measured, level, name)) for name in LIMITS if rates(measured, level, name)), default=math.nan
    )


def number(value, digits=0):
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else f"{value:,.{digits}f}"


def both(measured, level, contestant, field, digits=0):
    """The rounds' figures, in order."""
    rounds = sorted({key[0] for key in measured})
    found = [measured.get((r, *level, contestant), {}).get(field) for r in rounds]
    return " / ".join(number(value, digits) for value in found if value is not None)


def throughput(measured, levels):
    lines = [
        "| texts | load | contestant | texts/s, by round | of the limit | p50 ms | p99 ms | p99.9 ms | CPU s per 1,000"
        " | peak PSS MiB | failed | setting |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for level in levels:
        limit = best_limit(measured, level)
        for contestant in ordered(key[3] for key in measured if key[1:3] == level):
            values = [value for key, value in measured.items() if key[1:] == (*level, contestant)]
            error = next((value["error"] for value in values if "error" in value), None)
            if error:
                lines.append(f"| {level[0]} | {level[1]} | {contestant} | {error[:80].replace('|', ' ')} |" + " |" * 8)
                continue
            memory = "peakPssMib" if "peakPssMib" in values[0] else "peakMib"
            cells = [
                *level,
                contestant,
                both(measured, level, contestant, "textsPerSecond"),
                number(mean(rates(measured, level, contestant)) / limit, 2),
                both(measured, level, contestant, "p50Ms"),
                both(measured, level, contestant, "p99Ms"),
                both(measured, level, contestant, "p999Ms"),
                both(measured, level, contestant, "cpuSecondsPer1000", 2),
                both(measured, level, contestant, memory),
                both(measured, level, contestant, "failures"),
                values[0].get("setting", ""),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def ratios(measured, levels):
    """Ours over the limit, and over the best peer: throughput, and p99 where arrivals are given."""
    lines = [
        "| texts | load | of the limit | of the best peer | best peer | p99 over the best peer's |",
        "|---|---|---|---|---|---|",
    ]
    for level in levels:
        ours = mean(rates(measured, level, OURS))
        peers = {name: mean(rates(measured, level, name)) for name in PEERS if rates(measured, level, name)}
        best = max(peers, key=peers.get) if peers else ""
        cells = [
            *level,
            number(ours / best_limit(measured, level), 2),
            number(ours / peers[best], 2) if best else "",
            best,
            number(p99_ratio(measured, level), 2),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def aims(measured, other):
    """What was wanted of this service on two cores, beside what it had; what was not measured is left out."""
    lines = ["| aim | here |", "|---|---|"]

    def tell(aim, values, digits=2, unit=""):
        told = [number(value, digits) for value in values if not math.isnan(value)]
        if told:
            lines.append(f"| {aim} | {' and '.join(told)}{unit} |")

    def of_limit(*names):
        return [mean(rates(measured, level, OURS)) / best_limit(measured, level) for level in mixed(*names)]

    def in_auto(name):
        (level,) = mixed(name)
        return mean(rates(measured, level, AUTO)) / mean(rates(measured, level, "fewloop student (fp32)"))

    def of_peers(name, ours=OURS):
        (level,) = mixed(name)
        best = max(
            (mean(rates(measured, level, peer)) for peer in PEERS if rates(measured, level, peer)), default=math.nan
        )
        return mean(rates(measured, level, ours)) / best

    def in_tuning(name, load_name):
        (level,) = mixed(name)
        found = [
            v.get("textsPerSecond", 0)
            for k, v in other.items()
            if k.startswith("tune | ") and k.endswith(f" | {load_name}")
        ]
        return mean(rates(measured, level, OURS)) / max(found, default=math.nan)

    tell("0.90 of the limit with 64 texts a request and by ingest", of_limit("64 texts a request", "ingest"))
    tell("0.80 of the limit at 32 connections", of_limit("32 connections"))
    pair = ("8 connections", "32 connections")
    tell("1.4 times the best peer at 8 and at 32 connections", [of_peers(name) for name in pair])
    tell("the same beside the most that any peer had while it was tuned", [in_tuning(n, n.split(" ")[0]) for n in pair])
    names = [*pair, "64 texts a request"]
    own = "what the service admits by itself, int8"
    tell(f"2.5 times the best peer with {own}: at 8, at 32, with 64 texts", [of_peers(name, AUTO) for name in names])
    tell(f"the same beside the student in fp32 ({own})", [in_auto(name) for name in names])
    opened = mixed(*(name for name in ordered(key[2] for key in measured) if name.startswith("open")))
    tell(
        f"half the best peer's p99 at the same arrival rate ({', '.join(name for _, name in opened)})",
        [p99_ratio(measured, level) for level in opened],
    )
    delays = [
        value["eventLoopP99Ms"] for key, value in measured.items() if key[3] == OURS and "eventLoopP99Ms" in value
    ]
    free = other.get("free core", {}).get("eventLoopP99Ms", math.nan)
    tell("event loop's delay under 10 ms at full load, 128 connections, with a core left free for it", [free], 1, " ms")
    tell("the same with none left free, the most of all loads", [max(delays, default=math.nan)], 1, " ms")
    memory = [value["peakPssMib"] for key, value in measured.items() if key[3] == OURS and "peakPssMib" in value]
    tell(
        "all processes together under 500 MB (477 MiB); least and most",
        [min(memory, default=math.nan), max(memory, default=math.nan)],
        0,
        " MiB",
    )
    return lines


def mixed(*names):
    return [("mixed", name) for name in names]


def p99_ratio(measured, level):
    """Ours over the best peer's, means over rounds."""
    p99 = {
        name: mean(
            [v["p99Ms"] for key, v in measured.items() if key[1:] == (*level, name) and v.get("p99Ms") is not None]
        )
        for name in [OURS, *PEERS]
    }
    others = [p99[name] for name in PEERS if not math.isnan(p99[name])]
    return p99[OURS] / min(others) if others else math.nan


def event_loop(measured, levels):
    lines = ["| texts | load | ms |", "|---|---|---|"]
    for level in levels:
        delay = both(measured, level, OURS, "eventLoopP99Ms", 1)
        if delay:
            lines.append("| " + " | ".join([*level, delay]) + " |")
    return lines


def sweep(other):
    lines = ["| limit | sessions × threads | batch | texts/s |", "|---|---|---|---|"]
    for key, value in other.items():
        if key.startswith("sweep | "):
            _, name, sessions, batch = key.split(" | ")
            lines.append(f"| {name} | {sessions} | {batch} | {number(value.get('textsPerSecond'))} |")
    return lines


def tuning(other):
    lines = ["| peer | processes × threads, batch, wait | load | texts/s | p99 ms |", "|---|---|---|---|---|"]
    for key, value in other.items():
        if key.startswith("tune | "):
            _, name, setting, load_name = key.split(" | ")
            cells = [name, setting, load_name, number(value.get("textsPerSecond")), number(value.get("p99Ms"))]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def overload(value):
    if value is None or "error" in value:
        return [f"Not measured: {value['error'] if value else 'left out of this run'}."]
    total = sum(value["outcomes"].values())
    share = ", ".join(
        f"{name} {count} ({100 * count / total:.1f} %)" for name, count in sorted(value["outcomes"].items())
    )
    return [
        f"{value['ratePerSecond']} single-text requests a second for {value['seconds']} s, each with a deadline of"
        f" {value['deadlineMs']} ms. Outcomes: {share}. Answered: p99 {number(value['answeredP99Ms'])} ms, later than"
        f" the deadline by the client's clock {value['late']}. Refused: p50 {number(value['refusedP50Ms'])} ms, p99"
        f" {number(value['refusedP99Ms'])} ms. PSS in the second quarter {number(value['pssMibSecondQuarter'])} MiB,"
        f" in the last {number(value['pssMibLastQuarter'])} MiB.",
    ]


def plot(measured, closed, opened, file):
    names = [name for name in [*LIMITS, OURS, *PEERS] if any(key[3] == name for key in measured)]
    figure, axes = plt.subplots(1, 2, figsize=(13, 4.5))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        heights = [mean(rates(measured, level, name)) / best_limit(measured, level) for level in closed]
        axes[0].bar([x + i * width for x in range(len(closed))], heights, width, label=name)
    axes[0].set_xticks([x + 0.4 for x in range(len(closed))], ["\n".join(level) for level in closed], fontsize=6)
    axes[0].set_ylabel("texts/s over the limit's")
    axes[0].legend(fontsize=7)
    for name in [OURS, *PEERS]:
        points = []
        for level in opened:
            found = [value for key, value in measured.items() if key[1:] == (*level, name) and "p99Ms" in value]
            if found:
                points.append((mean([v["ratePerSecond"] for v in found]), mean([v["p99Ms"] for v in found])))
        if points:
            axes[1].plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    axes[1].set_yscale("log")
    axes[1].set_xlabel("arrivals a second (Poisson)")
    axes[1].set_ylabel("p99, ms")
    if opened:
        axes[1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main():
    out, results = Path(sys.argv[1]), Path(sys.argv[2])
    measured, other = load(out)
    levels = ordered(key[1:3] for key in measured)
    opened = [level for level in levels if level[1].startswith("open")]
    closed = [level for level in levels if level not in opened]
    machine = other["machine"]
    lines = [
        "# Serving",
        "",
        f"One run of `bench/serving` ({machine['at'][:10]}; {machine['cpu']}, {machine['cores']} cores; Node"
        f" {machine['node']}): `base-zh`, fp32, a single member on one template, no cache, at most 128 tokens; the same"
        " ONNX file, tokenizer and texts for all. A load is given to each in turn, alone on the machine, in rounds that"
        " stand beside each other; what counts are the ratios. The client runs on the same cores. How:"
        " [bench/serving](../../bench/serving/README.md); all figures: [serving.jsonl](serving.jsonl).",
        "",
        "What it says, and what else was measured: [serving-notes.md](serving-notes.md).",
        "",
        "![](serving.png)",
        "",
        "## Aims",
        *aims(measured, other),
        "",
        "## Ratios",
        "The limit: onnxruntime alone on ids sorted by length, at its best batch, the better of Python and Node.",
        "",
        *ratios(measured, levels),
        "",
        "## Closed loop",
        "Memory of limits and pipelines is their peak resident size. `pipeline`: Hugging Face, PyTorch, in its own"
        " process without a server.",
        "",
        *throughput(measured, closed),
        "",
        "## Event loop",
        "How late the service's event loop is, 99th percentile in ms, by load and round. No core is left free for it:"
        " model hosts and the client want both. (With a core left free there is a host less.)",
        "",
        *event_loop(measured, levels),
        "",
        "## Fixed arrival rates",
        "`open s`: arrivals at the share s of the best peer's closed-loop peak at 32 connections; latency from when a"
        " request was due.",
        "",
        *throughput(measured, opened),
        "",
        "## Overload",
        *overload(other.get("overload")),
        "",
        "## How the limit was found",
        *sweep(other),
        "",
        "## How the peers were tuned",
        "The best setting at 8 and at 32 connections and with 64 texts a request is the one measured there.",
        "",
        *tuning(other),
        "",
    ]
    results.mkdir(parents=True, exist_ok=True)
    (results / "serving.md").write_text("\n".join(lines))
    shutil.copy(out / "raw.jsonl", results / "serving.jsonl")
    plot(measured, closed, opened, results / "serving.png")


if __name__ == "__main__":
    main()

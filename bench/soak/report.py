"""Judges a soak: failed requests, the slope of memory, p99 against the first five minutes.

    python bench/soak/report.py OUT [--plot FILE]

Memory: the proportional set size of what is of no file (bench/serving/tree.ts says why), of the service and all below it
but the trainer, which comes and goes; its median a minute, from the sixth minute on (the first five warm caches), regressed on time. The interval is by Newey and West's
errors (1987), which allow for ten minutes of autocorrelation: a retrain and five swaps.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import statsmodels.api as sm

CELL = math.log(1.01)
FIRST_S = 300
LAGS = 10
PARTS = ("service", "hosts", "postgres")


def read(folder: Path) -> dict[str, list[dict]]:
    kinds: dict[str, list[dict]] = {}
    for line in (folder / "samples.jsonl").read_text().splitlines():
        sample = json.loads(line)
        kinds.setdefault(sample["kind"], []).append(sample)
    return kinds


def quantile(windows: list[dict], share: float) -> float:
    """Milliseconds, over all answers of the windows."""
    cells: dict[int, int] = {}
    for window in windows:
        for cell, count in window["cells"].items():
            cells[int(cell)] = cells.get(int(cell), 0) + count
    left = share * sum(cells.values())
    for cell in sorted(cells):
        left -= cells[cell]
        if left <= 0:
            return math.exp(cell * CELL)
    return math.nan


def slope(seconds: np.ndarray, mib: np.ndarray) -> tuple[float, float, float]:
    """MiB an hour and its 95 % interval."""
    minutes = np.floor(seconds / 60)
    medians = [(minute, np.median(mib[minutes == minute])) for minute in np.unique(minutes)]
    x, y = np.array(medians).T
    lags = min(LAGS, max(1, len(x) // 4))
    errors = {"maxlags": lags, "use_correction": True}
    fit = sm.OLS(y, sm.add_constant(x / 60)).fit(cov_type="HAC", cov_kwds=errors, use_t=True)
    low, high = fit.conf_int()[1]
    return fit.params[1], low, high


def line(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def during(windows: list[dict], spans: list[tuple[float, float]]) -> list[dict]:
    """Those that overlap one of the spans; a window ends where it was written, 10 s after it began."""
    return [w for w in windows if any(w["at"] > begin and w["at"] - 10 < end for begin, end in spans)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    kinds = read(args.folder)
    begin = kinds["begin"][-1]
    # What was before the clock began is the preparation.
    windows = [w for w in kinds["window"] if w["answered"] + w["failed"] > 0]
    runs = [r for r in kinds.get("run", [])[1:]]
    swaps = kinds.get("swap", [])[1:]
    memory = kinds["memory"]
    failed = sum(w["failed"] for w in windows)
    answered = sum(w["answered"] for w in windows)

    print(f"{begin['date'][:16]}Z, {begin['cpu']}, {begin['cores']} processor(s), Node {begin['node']}.")
    print(
        f"{begin['minutes']:g} minutes; capacity {begin['textsPerSecond']:.0f} requests/s, load {begin['ratePerSecond']:.0f}/s ({begin['share']:.0%})."
    )
    print(
        f"Requests {answered + failed}, failed {failed}; swaps {len(swaps)}; runs {len(runs)}, of which "
        f"{sum(r['state'] == 'SUCCEEDED' for r in runs)} succeeded; of the driver's acts failed "
        f"{len(kinds.get('driver', []))}.\n"
    )

    first = [w for w in windows if w["at"] <= FIRST_S]
    later = [w for w in windows if w["at"] > FIRST_S]
    trained = [(r["begun"], r["at"]) for r in runs]
    swapped = [(s["begun"], s["at"]) for s in swaps]
    training = during(later, trained)
    swapping = [w for w in during(later, swapped) if w not in training]
    quiet = [w for w in later if w not in training and w not in swapping]
    print(line("windows of 10 s", "number", "p50 ms", "p99 ms", "p99 over the first five minutes", "load average"))
    print("|---|---|---|---|---|---|")
    base = quantile(first, 0.99)
    groups = [
        ("first five minutes", first),
        ("after them", later),
        ("of these: neither swap nor retrain", quiet),
        ("a swap", swapping),
        ("a retrain", training),
    ]
    for name, group in groups:
        if not group:
            continue
        p50, p99 = quantile(group, 0.5), quantile(group, 0.99)
        load = np.median([w["load"] for w in group])
        print(line(name, len(group), f"{p50:.1f}", f"{p99:.1f}", f"{p99 / base:.2f}", f"{load:.1f}"))

    print()
    print(line("memory", "at the sixth minute, MiB", "at the end", "slope, MiB an hour", "95 % interval"))
    print("|---|---|---|---|---|")
    seconds = np.array([m["at"] for m in memory])
    series = {part: np.array([m[part] for m in memory]) for part in PARTS}
    series["together"] = sum(series[part] for part in PARTS)
    kept = seconds > FIRST_S
    for part, mib in series.items():
        if kept.sum() < 48:
            break
        middle, low, high = slope(seconds[kept], mib[kept])
        edges = [np.median(mib[kept][:12]), np.median(mib[kept][-12:])]
        print(line(part, f"{edges[0]:.0f}", f"{edges[1]:.0f}", f"{middle:+.1f}", f"{low:+.1f} to {high:+.1f}"))

    processor = kinds.get("processor", [])
    if len(processor) > 1:
        a, b = processor[0], processor[-1]
        span = b["at"] - a["at"]
        of = {k: (b[k] - a[k]) / span for k in ("machine", "service", "driver")}
        others = of["machine"] - of["service"] - of["driver"]
        print(
            f"\nProcessors in use: service {of['service']:.2f}, driver {of['driver']:.2f}, others on the machine "
            f"{others:.2f}, of {begin['cores']}."
        )
    if args.plot:
        plot(args.plot, windows, seconds, series, trained)


def plot(
    file: Path,
    windows: list[dict],
    seconds: np.ndarray,
    series: dict[str, np.ndarray],
    trained: list[tuple[float, float]],
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 6), sharex=True)
    minutes = [w["at"] / 60 for w in windows]
    top.plot(minutes, [quantile([w], 0.99) for w in windows], lw=0.8, label="p99 of 10 s")
    top.plot(minutes, [quantile([w], 0.5) for w in windows], lw=0.8, label="p50")
    top.set_yscale("log")
    top.set_ylabel("ms")
    for name, mib in series.items():
        bottom.plot(seconds / 60, mib, lw=0.8, label=name)
    bottom.set_ylabel("MiB (PSS)")
    bottom.set_xlabel("minutes")
    for axes in (top, bottom):
        for begin, end in trained:
            axes.axvspan(begin / 60, end / 60, color="0.9")
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()

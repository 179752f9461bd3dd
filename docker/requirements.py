"""From the trainer's lock file (standard input) to what an image installs, hashes and all.

cuda: all of it. cpu: without PyTorch and its CUDA libraries. torch-cpu [SHA256]: PyTorch's build for CPUs, of the
same version, which is on an index of its own. What only the trainer's tests need is in none of them.
"""

import re
import sys

TESTS_ONLY = {"iniconfig", "pluggy", "pytest", "ruff"}
OF_CUDA = re.compile(r"cuda-|nvidia-|triton$")


def main(kind: str, sha256: str = "") -> None:
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", sys.stdin.read())
    # A package may stand there more than once, for different Pythons.
    packages = [(entry.split("==")[0], entry) for entry in entries if "==" in entry]
    if missing := TESTS_ONLY - {name for name, _ in packages}:
        raise SystemExit(f"not in the lock file any more: {', '.join(sorted(missing))}")
    if kind == "torch-cpu":
        version = next(entry.split()[0] for name, entry in packages if name == "torch")
        print(f"{version}+cpu --hash=sha256:{sha256}" if sha256 else f"{version}+cpu")
        return
    for name, entry in packages:
        unwanted = name in TESTS_ONLY or (kind == "cpu" and (name == "torch" or OF_CUDA.match(name)))
        if not unwanted:
            print(entry, end="")


main(*sys.argv[1:])

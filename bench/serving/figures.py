"""What the programs without a server print of themselves."""

import json
import os
import resource


def tell(scored, seconds, cpu_before):
    """Prints figures of `scored` texts in `seconds`; `cpu_before`: what `cpu_seconds` gave at the start."""
    figures = {
        "textsPerSecond": scored / seconds,
        "cpuSecondsPer1000": 1000 * (cpu_seconds() - cpu_before) / scored,
        "peakMib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))


def cpu_seconds():
    """Of this process, all its threads."""
    return sum(os.times()[:2])

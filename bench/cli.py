"""What a person waits for who types a command: start-up alone, and with one question to a cluster.

Seconds are the p90 of the trials, with the median beside them; the command is started as a shell
starts it. The interpreter's own start, in the same run, says how much of it is not Skep's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.report import Row, run, seconds
from tests.support.local_cluster import local_cluster

TRIALS = 20
SKEP = str(Path(sys.executable).with_name("skep"))
PYTHON = ("bare interpreter", (sys.executable, "-c", "pass"))


def main() -> None:
    """Measure and print."""
    run("cli", "start-up of the skep command", measure)


def measure(is_quick: bool) -> Iterable[Row]:
    """Without a cluster, then with one."""
    trials = 5 if is_quick else TRIALS
    yield from seconds(PYTHON[0], _times(PYTHON[1], os.environ, trials), None)
    yield from seconds("skep version", _times((SKEP, "version"), os.environ, trials), 0.25)
    yield from seconds("skep --help", _times((SKEP, "--help"), os.environ, trials), 0.25)
    with tempfile.TemporaryDirectory() as home, local_cluster(Path(home)):
        environ = {**os.environ, "SKEP_HOME": home}
        for words in (("service", "ls"), ("service", "ps", "web"), ("node", "ls")):
            times = _times((SKEP, *words), environ, trials)
            yield from seconds(f"skep {' '.join(words)}", times, 0.4)


def _times(words: Sequence[str], environ: Mapping[str, str], trials: int) -> list[float]:
    """Seconds of each run but the first, which fills the caches."""
    times = []
    for _ in range(trials + 1):
        began = time.perf_counter()
        subprocess.run(words, env=environ, capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    return times[1:]


if __name__ == "__main__":
    main()

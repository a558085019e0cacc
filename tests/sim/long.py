"""The simulator over many more seeds than a test run has time for.

python -m tests.sim.long [--minutes N] [--seed0 N] [--scenario NAME]
python -m tests.sim.long --scenario NAME --seed N      runs one seed again
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time
from collections import Counter

from tests.sim.world import Report, Scenario, SeedFailed, simulate

# Where each scenario is: "module:function". Imported when it runs, so that one seed starts fast.
SCENARIOS = {
    "echo": "tests.sim.test_world:echo_scenario",
    "raft": "tests.sim.raft_world:storm",
    "raft-five": "tests.sim.test_raft:five_in_a_storm",
    "raft-blackouts": "tests.sim.test_raft:blackouts",
    "cluster": "tests.sim.storm:storm",
    "calm": "tests.sim.storm:calm",
    "drains": "tests.sim.storm:drains",
}
# Enough to see what is wrong; the rest is usually the same thing again.
FAILURES_SHOWN = 10


def scenario(name: str) -> Scenario:
    """The scenario of this name."""
    module, _, function = SCENARIOS[name].partition(":")
    found: Scenario = getattr(importlib.import_module(module), function)
    return found


def fresh_seed() -> int:
    """Where to begin when nobody says so: somewhere new each time."""
    return time.time_ns() // 1_000 % 1_000_000_000


def run_for(names: list[str], minutes: float, seed0: int) -> int:
    """Run seeds of all scenarios in turn until time is up; the number of failures."""
    begin = time.monotonic()
    reports: list[Report] = []
    failures: list[str] = []
    seeds = Counter[str]()
    seed = seed0
    while time.monotonic() - begin < minutes * 60.0:
        for name in names:
            seeds[name] += 1
            try:
                reports.append(simulate(name, scenario(name), seed))
            except SeedFailed as failure:
                failures.append(f"{name} seed {seed}")
                if len(failures) <= FAILURES_SHOWN:
                    print(f"{failure}\n", flush=True)
        seed += 1
    _print_figures(reports, seeds, failures, time.monotonic() - begin)
    return len(failures)


def _print_figures(
    reports: list[Report], seeds: Counter[str], failures: list[str], took_s: float
) -> None:
    faults = sum((report.faults for report in reports), Counter[str]())
    virtual_h = sum(report.virtual_s for report in reports) / 3600.0
    print(
        f"seeds: {dict(seeds)} in {took_s:.0f} s, {sum(seeds.values()) / took_s * 3600:.0f} an hour"
    )
    print(f"virtual hours: {virtual_h:.2f}, {virtual_h * 3600 / took_s:.0f} times real time")
    print("faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items())))
    print(f"violations: {len(failures)}")
    for failure in failures:
        name, _, seed = failure.partition(" seed ")
        print(f"  python -m tests.sim.long --scenario {name} --seed {seed}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed0", type=int, default=None)
    parser.add_argument("--seed", type=int, default=None, help="run only this one")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), default=None)
    parser.add_argument("--trace", action="store_true", help="with --seed: print every line")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    names = [chosen.scenario] if chosen.scenario else sorted(SCENARIOS)
    if chosen.seed is None:
        seed0 = fresh_seed() if chosen.seed0 is None else chosen.seed0
        return min(run_for(names, chosen.minutes, seed0), 1)
    for name in names:
        try:
            report = simulate(name, scenario(name), chosen.seed, is_full_trace=chosen.trace)
        except SeedFailed as failure:
            print(failure)
            return 1
        if chosen.trace:
            print("\n".join(report.lines))
        print(f"{name}: seed {chosen.seed}: {report.virtual_s:.1f} virtual s, {report.digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

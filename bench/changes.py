"""Connections that fail while backends come and go: there should be none.

Three nodes in namespaces with a netproxy process each, the kernel plane, and a service of five
tasks that stop and start again, one after the other; see `bench.net.underload`. One client is a
task and uses the virtual address, another is outside of the cluster and uses a published port. Both
open new connections as fast as 32 at a time allow: how fast that is says how hard the question was.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec

from bench.net.figures import skipped
from bench.net.load import missing, programs
from bench.net.manager import Plan
from bench.net.underload import Outcome
from bench.net.updates import MANAGER, MANAGER_PORT, NODES, clean, said_by_manager
from bench.report import Row, at_most, run
from skep.netproxy.kernel.adapters import natrules, vips
from skep.netproxy.kernel.adapters.vipmodes import BPF, NFT
from tests.support.netns import lab, why_not

OUTSIDE = "n5"
CHANGES, QUICK_CHANGES = 200, 20
TASKS = 5
PER_S = 5000.0
LIMIT_S = 400.0
# In what wrk says of errors.
COUNTS = re.compile(r"(?:connect|read|write|timeout|responses:) (\d+)")


def main() -> None:
    """Measure and print."""
    run("changes", "connections that fail while backends come and go", measure)


def measure(is_quick: bool) -> Iterable[Row]:
    """Both kinds of virtual addresses."""
    yield Row("load of the machine before it", "", os.getloadavg()[0])
    for mode in (BPF, NFT):
        if why := why_not() or missing() or (vips if mode == BPF else natrules).supported():
            yield skipped(mode, why)
            continue
        try:
            outcomes = _measure(mode, QUICK_CHANGES if is_quick else CHANGES)
        except RuntimeError as error:
            yield skipped(mode, str(error))
            continue
        for outcome in outcomes:
            yield from _rows(mode, outcome)


def _measure(mode: str, changes: int) -> list[Outcome]:
    """Raises RuntimeError."""
    with tempfile.TemporaryDirectory() as folder, lab(5) as made:
        plan = Plan(
            address=f"{made.address(MANAGER)}:{MANAGER_PORT}",
            nodes=tuple((f"{made.name}-{each}", made.address(each)) for each in NODES),
            sockets=tuple(f"unix:{folder}/{each}.sock" for each in NODES),
            services=2,
            published=1,
            replicas=TASKS,
            changes=changes,
        )
        module = (
            *("bench.net.underload", msgspec.json.encode(plan).decode()),
            str(made.path(OUTSIDE)),
        )
        with programs(Path(folder)) as started:
            try:
                said = said_by_manager(made, started, plan, mode, module, LIMIT_S)
            finally:
                started.close()
                clean(made, started, plan)
    return msgspec.json.decode(said, type=list[Outcome])


def _rows(mode: str, outcome: Outcome) -> Iterator[Row]:
    name = f"{outcome.case}, {mode}, {outcome.changes} changes"
    yield Row(f"{name}: connections", "", outcome.connections)
    per_s = Row(f"{name}: new connections", "1/s", outcome.per_s, aim=f">= {PER_S:g}")
    yield replace(per_s, is_ok=outcome.per_s >= PER_S)
    failed = sum(map(int, COUNTS.findall(outcome.failed)))
    yield replace(at_most(f"{name}: failed", "", failed, 0), note=outcome.failed)


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    main()

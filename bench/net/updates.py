"""How long a change of endpoints takes to be in force everywhere, and the attaching of a task.

Three nodes in namespaces with a netproxy process each, the kernel plane, and one task on each node;
see `bench.net.manager` for what a change is. Services have three tasks, one on each node (one where
there are ten thousand services); twenty publish a port. The first changes of a series are not
counted, as they pay for what is done once.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from bench.net.figures import percentile_rows, skipped
from bench.net.load import Programs, programs
from bench.net.manager import Plan, Result, Series
from bench.report import Row
from skep.netproxy.kernel.adapters import natrules, vips
from skep.netproxy.kernel.adapters.vipmodes import BPF, NFT
from tests.support.netns import Lab, lab, why_not

NODES = ("n1", "n2", "n3")
MANAGER, MANAGER_PORT = "n4", 7777
SERVICES, BIG = 1000, 1000
P99_MS, BIG_MS, ATTACH_MS = 100.0, 50.0, 10.0
OTHER_SIZES = ((BPF, 100), (NFT, 100), (BPF, 10_000))
LIMIT_S = 90.0


def measure(is_quick: bool, mode: str) -> Iterable[Row]:
    """A thousand services, with one kind of virtual addresses."""
    yield from _measure(mode, SERVICES, is_quick)


def measure_growth(is_quick: bool) -> Iterable[Row]:
    """A tenth of them, and ten times as many."""
    for mode, services in () if is_quick else OTHER_SIZES:
        yield from _measure(mode, services, is_quick)


def _measure(mode: str, services: int, is_quick: bool) -> Iterator[Row]:
    if why := why_not() or (vips if mode == BPF else natrules).supported():
        yield skipped(f"updates, {mode}", why)
        return
    is_main = services == SERVICES
    name = f"{mode}, {services} services"
    few = is_quick or services > SERVICES
    with tempfile.TemporaryDirectory() as folder, lab(4) as made:
        plan = Plan(
            address=f"{made.address(MANAGER)}:{MANAGER_PORT}",
            nodes=tuple((f"{made.name}-{each}", made.address(each)) for each in NODES),
            sockets=tuple(f"unix:{folder}/{each}.sock" for each in NODES),
            services=services,
            # What counts is the number of services; of tasks, one node can't hold as many.
            replicas=1 if services > SERVICES else 3,
            marks=(folder, made.name),
            changes=20 if few else 200 if is_main else 100,
            big=BIG if is_main else 0,
            big_changes=10 if is_quick else 50,
            series_s=4.0 if few else 9.0,
            attaches=(10 if is_quick else 50) if is_main and mode == BPF else 0,
        )
        with programs(Path(folder)) as started:
            try:
                result = _run(made, started, plan, mode)
            except RuntimeError as error:
                yield skipped(f"updates, {name}", str(error))
                return
            finally:
                started.close()
                clean(made, started, plan)
    yield from _rows(name, result, is_main)


def _rows(name: str, result: Result, is_main: bool) -> Iterator[Row]:
    wrong = "; ".join(result.problems[:3])
    yield Row(f"whole cluster to three nodes, {name}", "s", result.whole_s, note=wrong)
    limit = P99_MS if is_main else None
    label = f"change to in force everywhere, {name}"
    yield from series_rows(f"{label}, VIP", result.internal, 0.99, limit)
    yield from series_rows(f"{label}, VIP and port", result.published, 0.99, limit)
    label = f"change of a service of {BIG} backends, {name}"
    yield from series_rows(label, result.big, 0.9, BIG_MS)
    yield from series_rows("attach a task to 2 networks", result.attach, 0.9, ATTACH_MS)


def series_rows(label: str, series: Series, share: float, limit_ms: float | None) -> Iterator[Row]:
    """Times with their bound, and the CPU; nothing where there was no such series."""
    if series.times_s:
        yield from percentile_rows(label, series.times_s, share, limit_ms)
        yield Row(f"{label}, CPU of one node", "ms", 1000 * series.cpu_s)


def _run(made: Lab, started: Programs, plan: Plan, mode: str) -> Result:
    """Raises RuntimeError."""
    text = msgspec.json.encode(plan).decode()
    said = said_by_manager(made, started, plan, mode, ("bench.net.manager", text), LIMIT_S)
    return msgspec.json.decode(said, type=Result)


def said_by_manager(  # noqa: PLR0913 - a rig, and what is to run on it
    made: Lab, started: Programs, plan: Plan, mode: str, module: Sequence[str], limit_s: float
) -> str:
    """The last line that this module prints, which runs as the manager of the plan's nodes with
    their netproxies. Raises RuntimeError."""
    for node in range(len(NODES)):
        _start(made, started, plan, mode, node)
    manager = started.start(made.path(MANAGER), "manager", sys.executable, "-m", *module)
    try:
        status = manager.wait(limit_s)
    except subprocess.TimeoutExpired:
        status = -1
    said = started.said("manager")
    if status != 0:
        last = (
            line for text in (said, *map(started.said, NODES)) for line in text.splitlines()[-1:]
        )
        raise RuntimeError(f"the manager ended with {status}: {' | '.join(last)}")
    return said.splitlines()[-1]


def _start(made: Lab, started: Programs, plan: Plan, mode: str, node: int) -> None:
    words = (*_words(started, plan, node), "--vip", mode)
    started.start(made.path(NODES[node]), NODES[node], *words)


def _words(started: Programs, plan: Plan, node: int) -> tuple[str, ...]:
    node_id, address = plan.nodes[node]
    return (
        *(sys.executable, "-m", "skep.netproxy.main", "--plane", "kernel"),
        *("--name", node_id, "--node-id", node_id, "--cluster-id", "bench"),
        *("--address", address, "--mesh", f"{address}:7946"),
        *("--insecure-listen", "10.200.0.0/24", "--managers", plan.address),
        *("--attach", plan.sockets[node]),
        *("--state-dir", str(started.folder / NODES[node])),
    )


def clean(made: Lab, started: Programs, plan: Plan) -> None:
    """Take away what the netproxies have left, as an operator would."""
    for node, name in enumerate(NODES):
        made.attempt(made.path(name), *_words(started, plan, node), "--clean")

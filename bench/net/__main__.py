"""The network beside the same path without it, and how soon what changes is in force.

Everything happens in namespaces of its own, which go at the end, with the load generators, servers
and peers that are installed; what is missing is skipped, and said. Rates are ratios to what is
measured next to them. What isn't begun within eight minutes is skipped too (quick: within 50 s).
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from bench import dns
from bench.net import kernel, relay, updates
from bench.net.figures import skipped
from bench.report import Row, run
from skep.netproxy.kernel.adapters.vipmodes import BPF, NFT

BUDGET_S, QUICK_BUDGET_S = 480.0, 50.0
Section = Callable[[bool], Iterable[Row]]
SECTIONS: tuple[tuple[str, Section], ...] = (
    ("BPF VIP", lambda is_quick: kernel.measure_vips(is_quick, BPF)),
    ("nft VIP", lambda is_quick: kernel.measure_vips(is_quick, NFT)),
    ("published port", kernel.measure_ingress),
    ("relay on loopback", relay.measure_loopback),
    ("updates, bpf", lambda is_quick: updates.measure(is_quick, BPF)),
    ("updates, nft", lambda is_quick: updates.measure(is_quick, NFT)),
    ("DNS", lambda is_quick: _dns(is_quick)),
    ("relay on links", relay.measure_links),
    ("connections, growth", kernel.measure_growth),
    ("updates, growth", updates.measure_growth),
)


def main() -> None:
    """Measure and print."""
    run("net", "what the network costs, and how fast it follows", measure)


def measure(is_quick: bool) -> Iterable[Row]:
    """All sections that the time is enough for."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    until = time.monotonic() + (QUICK_BUDGET_S if is_quick else BUDGET_S)
    yield Row("load of the machine before it", "", os.getloadavg()[0])
    for name, section in SECTIONS:
        if time.monotonic() > until:
            yield skipped(name, "the time is over")
        else:
            yield from section(is_quick)
    yield Row("load of the machine after it", "", os.getloadavg()[0])


def _dns(is_quick: bool) -> Iterable[Row]:
    return (replace(row, metric=f"DNS: {row.metric}") for row in dns.measure(is_quick))


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    main()

"""The arithmetic of the network's figures: what load generators print, and ratios of pairs.

Absolute rates depend on who else uses the machine, so none has an aim. Paths are measured in turns,
A B A B, and what is claimed is the median of the ratios of neighbours. CPU per piece of work hardly
depends on the others at all.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.report import Row, paired, with_greatest_ratio, with_least_ratio


@dataclass(frozen=True)
class Load:
    """One kind of work: how its rate and its cost are called, and what they are counted in.
    `cost` is in `cost_unit` per piece of work, of which a second of CPU has `costs_per_s`."""

    name: str
    unit: str
    cost: str
    cost_unit: str
    costs_per_s: float


KEPT = Load("kept-alive requests", "1/s", "CPU per request", "us", 1e6)
NEW = Load("new connections", "1/s", "CPU per connection", "us", 1e6)
BULK = Load("bulk, one stream", "Gbit/s", "CPU per GB", "s", 1.0)
LOADS = (KEPT, NEW, BULK)


@dataclass(frozen=True)
class Reading:
    """One run of one load: pieces of work a second, their number, and the CPU of everybody who
    took part. The number is of requests, connections or GB; `errors` is what went wrong."""

    rate: float
    pieces: float
    cpu_s: float
    errors: str = ""

    @property
    def cpu_s_per_piece(self) -> float:
        """Seconds of CPU for one of them."""
        return self.cpu_s / self.pieces


@dataclass(frozen=True)
class Aims:
    """The least rate and the greatest CPU, as multiples of the other's; None: no aim."""

    rate: float | None = None
    cpu: float | None = None


class BadOutput(Exception):
    """What a load generator printed isn't a result."""


def parse_wrk(text: str) -> tuple[float, float, str]:
    """Answers a second, their number, and errors. Raises BadOutput."""
    rate = re.search(r"^Requests/sec: +([\d.]+)", text, re.MULTILINE)
    count = re.search(r"^ +(\d+) requests in", text, re.MULTILINE)
    if rate is None or count is None or not int(count[1]):
        raise BadOutput(f"wrk: {text.strip()[-200:] or 'nothing'}")
    wrong = re.findall(r"^ +(Socket errors: .*|Non-2xx.*)$", text, re.MULTILINE)
    return float(rate[1]), float(count[1]), "; ".join(wrong)


def parse_iperf(text: str) -> tuple[float, float, str]:
    """Gbit/s that arrived, and how many GB. Raises BadOutput."""
    try:
        said = json.loads(text)
        arrived = said["end"]["sum_received"]
        gbit, gigabytes = arrived["bits_per_second"] / 1e9, arrived["bytes"] / 1e9
    except (ValueError, KeyError) as error:
        raise BadOutput(f"iperf3: {text.strip()[-200:] or 'nothing'}") from error
    if not gigabytes:
        raise BadOutput("iperf3: nothing arrived")
    return gbit, gigabytes, ""


Readings = Mapping[Load, Sequence[Reading]]


def compare(
    name: str, ours: Readings, peer: tuple[str, Readings], aims: Mapping[Load, Aims]
) -> Iterator[Row]:
    """A path beside another one of the same rounds: rates, then CPU."""
    peer_name, theirs = peer
    for load, bounds in aims.items():
        ours_of, theirs_of = ours[load], theirs[load]
        note = _errors((*ours_of, *theirs_of))
        row = Row(f"{name}: {load.name}", load.unit, None, peer_name, note=note)
        row = paired(row, [each.rate for each in ours_of], [each.rate for each in theirs_of])
        yield with_least_ratio(row, bounds.rate)
        costs, others = (
            [load.costs_per_s * each.cpu_s_per_piece for each in which]
            for which in (ours_of, theirs_of)
        )
        row = Row(f"{name}: {load.cost}", load.cost_unit, None, peer_name)
        yield with_greatest_ratio(paired(row, costs, others), bounds.cpu)


def _errors(readings: Iterable[Reading]) -> str:
    return "; ".join(dict.fromkeys(each.errors for each in readings if each.errors))


def skipped(metric: str, why: str) -> Row:
    """The row of what can't be measured on this machine."""
    return Row(metric, "", None, note=f"skipped: {why}")


def percentile_rows(
    name: str, times_s: Sequence[float], share: float, limit_ms: float | None, note: str = ""
) -> Iterator[Row]:
    """The median in ms, and the value that `share` of them don't exceed, with its bound."""
    ranked = sorted(1000 * each for each in times_s)
    yield Row(f"{name}, median of {len(ranked)}", "ms", statistics.median(ranked), note=note)
    high = ranked[min(int(share * len(ranked)), len(ranked) - 1)]
    label = f"{name}, p{100 * share:g}"
    if limit_ms is None:
        yield Row(label, "ms", high)
    else:
        yield Row(label, "ms", high, aim=f"<= {limit_ms:g}", is_ok=high <= limit_ms)

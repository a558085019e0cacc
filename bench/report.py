"""How every benchmark reports: one row per figure, as a table or as JSON lines."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

RECORDED = "recorded"


@dataclass(frozen=True)
class Recorded:
    """A peer's figure from another day, and which: release, machine, date."""

    value: float
    note: str


@dataclass(frozen=True)
class Row:
    """One figure. `is_ok` None: there is no aim. `note` says where a figure is from that was not
    measured in this run: such a peer has a name of "recorded", and no ratio is claimed of it.
    `skep` None: it could not be measured here, and `note` says why. `median_ratio` is there where
    both were measured in turns: of the ratios of neighbours, which are steadier than medians."""

    metric: str
    unit: str
    skep: float | None
    peer_name: str = "-"
    peer: float | None = None
    aim: str = "-"
    is_ok: bool | None = None
    note: str = ""
    median_ratio: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the peer's figure of the same run ours is."""
        if self.median_ratio is not None:
            return self.median_ratio
        if not self.peer or self.skep is None or self.peer_name == RECORDED:
            return None
        return self.skep / self.peer


def at_most(
    metric: str, unit: str, value: float, limit: float, peer: Recorded | None = None
) -> Row:
    """A figure with an upper bound, and a peer's of another day to look at."""
    row = Row(metric, unit, value, aim=f"<= {limit:g}", is_ok=value <= limit)
    if peer is not None:
        row = replace(row, peer_name=RECORDED, peer=peer.value, note=peer.note)
    return row


def against(metric: str, unit: str, value: float, peer: tuple[str, float], limit: float) -> Row:
    """A figure beside a peer's (its name, its value) of the same run, with a bound on the ratio."""
    is_ok = value <= limit * peer[1]
    return Row(metric, unit, value, peer[0], peer[1], aim=f"<= {limit:g}x", is_ok=is_ok)


def paired(row: Row, values: Sequence[float], peers: Sequence[float]) -> Row:
    """That row with the medians of both, which were measured in turns."""
    ratios = [ours / theirs for ours, theirs in zip(values, peers, strict=True)]
    said = f"ratios: {spread(ratios)}"
    return replace(
        row,
        skep=statistics.median(values),
        peer=statistics.median(peers),
        median_ratio=statistics.median(ratios),
        note=f"{said}; {row.note}" if row.note else said,
    )


def with_least_ratio(row: Row, least: float | None) -> Row:
    """That row with a lower bound on its ratio, if there is to be one."""
    if least is None or row.ratio is None:
        return row
    return replace(row, aim=f">= {least:g}x", is_ok=row.ratio >= least)


def with_greatest_ratio(row: Row, greatest: float | None) -> Row:
    """That row with an upper bound on its ratio, if there is to be one."""
    if greatest is None or row.ratio is None:
        return row
    return replace(row, aim=f"<= {greatest:g}x", is_ok=row.ratio <= greatest)


def seconds(
    name: str, times: Sequence[float], limit: float | None, peer: Recorded | None = None
) -> Iterator[Row]:
    """A figure in seconds: the median of its trials, and the p90 with its bound."""
    p90 = percentile(times, 0.9)
    yield Row(f"{name}, median of {len(times)}", "s", percentile(times, 0.5))
    label = f"{name}, p90"
    yield Row(label, "s", p90) if limit is None else at_most(label, "s", p90, limit, peer)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the values don't exceed."""
    ranked = sorted(values)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)]


def spread(values: Sequence[float]) -> str:
    """Median and range, for notes."""
    return f"median {statistics.median(values):.3g}, {min(values):.3g} to {max(values):.3g}"


def run(name: str, text: str, measure: Callable[[bool], Iterable[Row]]) -> None:
    """The command line of one benchmark. Exits 1 when an aim is missed."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=text)
    parser.add_argument("--quick", action="store_true", help="fewer trials: a look, not a figure")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    arguments = parser.parse_args()
    is_missed = False
    if not arguments.json:
        print(_line("metric", "unit", "skep", "peer_name", "peer", "ratio", "aim", "ok", "note"))
    for row in measure(arguments.quick):
        is_missed |= row.is_ok is False
        if arguments.json:
            shown = {**asdict(row), "ratio": row.ratio}
            shown["ok"] = shown.pop("is_ok")
            del shown["median_ratio"]
            print(json.dumps(shown), flush=True)
        else:
            print(
                _line(
                    row.metric,
                    row.unit,
                    _number(row.skep),
                    row.peer_name,
                    _number(row.peer),
                    _number(row.ratio),
                    row.aim,
                    "-" if row.is_ok is None else ("yes" if row.is_ok else "NO"),
                    row.note,
                ),
                flush=True,
            )
    sys.exit(1 if is_missed else 0)


def _line(*cells: str) -> str:
    widths = (52, 8, 10, 14, 10, 7, 10, 3, 0)
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"

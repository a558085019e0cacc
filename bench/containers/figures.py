"""The rows: trials of both sides in turns, and what is aimed at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from bench.containers import memory, trials
from bench.containers.side import PARALLELISM, Net, Order, Side
from bench.report import (
    RECORDED,
    Row,
    against,
    paired,
    percentile,
    with_greatest_ratio,
)

T = TypeVar("T")

FEW, MANY = 10, 50
# Medians, host network and overlay, on a quiet machine of two cores.
SWARM = "Docker Swarm 20.10.24, three nodes on two quiet cores, 2026-11-25"
CREATED_S = {
    (FEW, Net.HOST): 0.93,
    (FEW, Net.OVERLAY): 3.1,
    (MANY, Net.HOST): 2.6,
    (MANY, Net.OVERLAY): 9.2,
}
REMOVED_S = 5.7
UPDATED_S = {Order.STOP_FIRST: 17.9, Order.START_FIRST: 5.3}
REPLACED_S = {Net.HOST: 0.5, Net.OVERLAY: 1.0}
SHIM_MB = 13.0

CREATED_AIM = {Net.HOST: 0.9, Net.OVERLAY: 0.6}
UPDATED_AIM = {Order.STOP_FIRST: 0.3, Order.START_FIRST: 0.6}
REMOVED_AIM_S = 2.0
REPLACED_AIM = 1.0
# The shim is containerd's own on both sides; two of them differ by some tenths of a megabyte.
MEMORY_AIM = 1.05


def measured(ours: Side, peer: Side, is_quick: bool) -> Iterator[Row]:
    """All figures, both sides in turns."""
    for side in (ours, peer):
        # Programs are read from the disk, and processes have memory to ask for.
        trials.create_and_remove(side, FEW, Net.HOST)
    for replicas, count in {FEW: 2}.items() if is_quick else {FEW: 5, MANY: 3}.items():
        for net in Net:
            yield from _created(ours, peer, replicas, net, count)
    for order in Order:
        yield from _updated(ours, peer, order, 1 if is_quick else 3)
    for net in Net:
        yield from _replaced(ours, peer, net, 1 if is_quick else 5)
    yield from _remembered(ours, peer, FEW if is_quick else MANY)


def recorded(why: str) -> Iterator[Row]:
    """Swarm's figures of another day, where nothing can be measured."""
    for (replicas, net), value in CREATED_S.items():
        yield _recorded(_create_name(replicas, net), value, why)
    yield _recorded(_remove_name(FEW, Net.HOST), REMOVED_S, why)
    for order, value in UPDATED_S.items():
        yield _recorded(f"{_update_name(order)} no old one runs", value, why)
    for net, value in REPLACED_S.items():
        yield _recorded(_replace_name(net), value, why)
    yield replace(_recorded("added by a task, RSS", SHIM_MB, why), unit="MB")


def _recorded(metric: str, value: float, why: str) -> Row:
    return Row(metric, "s", None, RECORDED, value, note=f"{SWARM}; not run here: {why}")


def _create_name(replicas: int, net: Net) -> str:
    return f"create {replicas} until running, {net.value}"


def _remove_name(replicas: int, net: Net) -> str:
    return f"remove {replicas} until gone, {net.value}"


def _update_name(order: Order) -> str:
    return f"update {FEW} by {PARALLELISM}, {order.value}, until"


def _replace_name(net: Net) -> str:
    return f"container rm -f until replaced, {net.value}"


def _created(ours: Side, peer: Side, replicas: int, net: Net, count: int) -> Iterator[Row]:
    def trial(side: Side) -> tuple[float, float]:
        return trials.create_and_remove(side, replicas, net)

    mine, theirs = _in_turns(ours, peer, trial, count)
    created = [[each[0] for each in side] for side in (mine, theirs)]
    removed = [[each[1] for each in side] for side in (mine, theirs)]
    yield from _rows(_create_name(replicas, net), peer.name, created, CREATED_AIM[net])
    for row in _rows(_remove_name(replicas, net), peer.name, removed, None):
        # The aim is in seconds, for what a small service takes.
        is_aimed_at = replicas == FEW and row.skep is not None
        yield _within(row, REMOVED_AIM_S) if is_aimed_at else row


def _within(row: Row, limit_s: float) -> Row:
    assert row.skep is not None, row
    return replace(row, aim=f"<= {limit_s:g}", is_ok=row.skep <= limit_s)


def _updated(ours: Side, peer: Side, order: Order, count: int) -> Iterator[Row]:
    turns = _in_turns(ours, peer, lambda side: trials.update(side, FEW, order), count)
    new = [[each[0] for each in side] for side in turns]
    only = [[each[1] for each in side] for side in turns]
    yield from _rows(f"{_update_name(order)} all new run", peer.name, new, None)
    yield from _rows(f"{_update_name(order)} no old one runs", peer.name, only, UPDATED_AIM[order])


def _replaced(ours: Side, peer: Side, net: Net, count: int) -> Iterator[Row]:
    turns = _in_turns(ours, peer, lambda side: trials.replace(side, net, count), 2)
    times = [[time for turn in side for time in turn] for side in turns]
    yield from _rows(_replace_name(net), peer.name, times, REPLACED_AIM)


def _in_turns(
    ours: Side, peer: Side, trial: Callable[[Side], T], count: int
) -> tuple[list[T], list[T]]:
    """Ours first in one turn and the peer's first in the next."""
    mine: list[T] = []
    theirs: list[T] = []
    for number in range(count):
        turn = ((ours, mine), (peer, theirs))
        for side, results in turn if number % 2 == 0 else turn[::-1]:
            results.append(trial(side))
    return mine, theirs


def _rows(
    name: str, peer: str, times: Sequence[Sequence[float]], greatest: float | None
) -> Iterator[Row]:
    """The medians with the aim for their ratio, and the p90 of both."""
    mine, theirs = times
    row = paired(Row(f"{name}, median of {len(mine)}", "s", None, peer), mine, theirs)
    yield with_greatest_ratio(row, greatest)
    late = (percentile(each, 0.9) for each in times)
    yield Row(f"{name}, p90", "s", next(late), peer, next(late))


def _remembered(ours: Side, peer: Side, replicas: int) -> Iterator[Row]:
    """A service on each side, one after the other, since both count by what is new."""
    added: list[memory.Memory] = []
    kinds: list[dict[str, list[memory.Memory]]] = []
    for side in (ours, peer):
        before = memory.processes()
        with trials.service(side, trials.a_service(replicas)) as wish:
            added.append(memory.beside_tasks(side, wish.name, before))
            own = side.own_processes().items()
            kinds.append({kind: [memory.of([pid]) for pid in pids] for kind, pids in own})
    for what in ("rss", "pss"):
        mine, theirs = (getattr(each, what) for each in added)
        name = f"added by a task, {what.upper()}"
        yield against(name, "MB", mine, (peer.name, theirs), MEMORY_AIM)
    for kind, nodes in kinds[0].items():
        for what in ("rss", "pss"):
            most = max(getattr(each, what) for each in nodes)
            name = f"{kind} with {replicas} tasks, {what.upper()}, most"
            others = [getattr(each, what) for each in kinds[1].get(kind, ())]
            yield Row(name, "MB", most, peer.name if others else "-", max(others, default=None))

"""`skep service logs`."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Collection, Iterable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TextIO

from skep import client
from skep.cli import session
from skep.cli.errors import Exit, Failure
from skep.cli.loglines import Looks, Merge, Missing
from skep.cli.options import seconds
from skep.cli.output import note
from skep.client import Cluster
from skep.domain.base import SECOND_NS, TaskId
from skep.domain.control import LogEvent, LogLine, LogStream
from skep.domain.objects import Task


def logs(options: argparse.Namespace) -> None:
    """Print what the tasks of services, and single tasks, have written."""
    tail, since_ns = read_tail(options.tail), read_since(options.since, time.time_ns())
    looks = Looks(is_raw=options.raw, is_timed=options.timestamps, is_whole=options.no_trunc)
    printer = _Printer(looks, is_follow=options.follow)
    is_missed = False

    async def script(cluster: Cluster) -> None:
        nonlocal is_missed
        services, tasks = await _find(cluster, options.refs)
        if not options.raw:
            await _entitle(cluster, looks, services, tasks, options)
        events = cluster.logs(
            services,
            [task.id for task in tasks],
            tail=tail,
            since_ns=since_ns,
            is_follow=options.follow,
        )
        async with aclosing(events):
            async for event in events:
                if options.no_resolve and not options.raw:
                    await _entitle_late(cluster, looks, event)
                printer.take(event)
        printer.end()
        is_missed = await _is_missed(cluster, services, tasks, printer.missing.task_ids)

    try:
        session.run(options, script)
    except KeyboardInterrupt:
        if not options.follow:
            raise
        # This is how one stops to follow: no failure, and nothing to say about it.
        return
    if is_missed:
        raise Failure("some output could not be had: see the warnings")


async def _find(cluster: Cluster, refs: Iterable[str]) -> tuple[list[str], list[Task]]:
    services, tasks = [], []
    for ref in refs:
        try:
            services.append(str((await cluster.services.get(ref)).service.id))
        except client.NotFound:
            try:
                tasks.append(await cluster.tasks.get(ref))
            except client.NotFound:
                raise Failure(f"there is no service or task '{ref[:80]}'") from None
    return services, tasks


def _warn(problem: str) -> None:
    note(f"skep: warning: {' '.join(problem.split())}")


async def _is_missed(
    cluster: Cluster, services: list[str], named: list[Task], missing: Collection[TaskId | None]
) -> bool:
    """Whether any of what can't be had was asked for: tasks that are named, and those of the
    services that are still to run. What nobody wants any more is only nice to have."""
    if not missing:
        return False
    if None in missing or any(task.id in missing for task in named):
        return True
    for service in services:
        with contextlib.suppress(client.NotFound):
            tasks = await cluster.tasks.list(service=service, is_all=True)
            if any(task.is_wanted and task.id in missing for task in tasks):
                return True
    return False


async def _entitle(
    cluster: Cluster,
    looks: Looks,
    services: list[str],
    tasks: list[Task],
    options: argparse.Namespace,
) -> None:
    """Give the tasks there are their prefixes, so that they have one width from the first line."""
    names = {node.id: node.name for node in await cluster.nodes.list()}
    known = list(tasks)
    for service in services:
        known += await cluster.tasks.list(service=service, is_all=True)
    for task in known:
        node_id = task.node_id
        if options.no_resolve:
            looks.entitle(task.id, f"{task.service_id}.{task.slot}", node_id or "")
        elif node_id is not None:
            looks.entitle(task.id, task.name, names.get(node_id, node_id))


async def _entitle_late(cluster: Cluster, looks: Looks, event: LogEvent) -> None:
    """The ids of a task that came into being later."""
    if event.task_id is None or not event.lines:
        return
    if looks.titles.get(event.task_id, "@").endswith("@"):
        try:
            task = await cluster.tasks.get(event.task_id)
        except client.NotFound:
            return
        looks.entitle(task.id, f"{task.service_id}.{task.slot}", task.node_id or "")


class _Printer:
    """Lines of stdout go to stdout, those of stderr to stderr. Who follows gets them as they come,
    others in the order of their times, and after them what is missing."""

    def __init__(self, looks: Looks, *, is_follow: bool) -> None:
        self._looks = looks
        self._is_follow = is_follow
        self._merge = Merge()
        self.missing = Missing()
        self._last: TextIO | None = None
        self._is_safe = {out: out.isatty() for out in (sys.stdout, sys.stderr)}
        is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        self._is_coloured = {out: out.isatty() and not is_plain for out in self._is_safe}

    def take(self, event: LogEvent) -> None:
        """Print what can be printed with this event."""
        if not self._is_follow:
            self._show(self._merge.add(event))
            if event.problem:
                self.missing.add(event)
            return
        self._show((event, line) for line in event.lines)
        if problem := self.missing.told_now(event):
            _warn(problem)

    def end(self) -> None:
        """Print what is left."""
        self._show(self._merge.rest())
        if not self._is_follow:
            for problem in self.missing.lines():
                _warn(problem)

    def _show(self, lines: Iterable[tuple[LogEvent, LogLine]]) -> None:
        for event, line in lines:
            out = sys.stdout if line.stream is LogStream.STDOUT else sys.stderr
            if out is not self._last:
                self._flush()
                self._last = out
            out.buffer.write(
                self._looks.line(
                    event, line, is_safe=self._is_safe[out], is_coloured=self._is_coloured[out]
                )
            )
        self._flush()

    def _flush(self) -> None:
        if self._last is not None:
            self._last.flush()


def read_tail(text: str) -> int | None:
    """How many lines; None for all. Raises Failure."""
    if text == "all":
        return None
    if not re.fullmatch("[0-9]{1,9}", text):
        raise Failure(f"--tail: '{text}' is not a number of lines, and not 'all'", Exit.USAGE)
    return int(text)


def read_since(text: str | None, now_ns: int) -> int | None:
    """A wall time: so long ago, Unix seconds, or a date with its time. Raises Failure."""
    if text is None:
        return None
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) and float(text) >= SECOND_NS:
        return int(float(text) * SECOND_NS)
    try:
        return max(0, now_ns - int(seconds(text) * SECOND_NS))
    except (argparse.ArgumentTypeError, OverflowError):
        pass
    try:
        # Without a zone it is the time that the reader's clock shows.
        return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * SECOND_NS)
    except (ValueError, OverflowError):
        raise Failure(
            f"--since: '{text}' is neither a duration like 10s or 2h nor a time like "
            "2026-01-31T12:00:00Z",
            Exit.USAGE,
        ) from None

"""`skep service logs`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TextIO

from skep import client
from skep.cli import session
from skep.cli.errors import Exit, Failure
from skep.cli.loglines import Looks, Merge
from skep.cli.options import seconds
from skep.cli.output import note
from skep.client import Cluster
from skep.domain.base import SECOND_NS
from skep.domain.control import LogEvent, LogLine, LogStream
from skep.domain.objects import Task


def logs(options: argparse.Namespace) -> None:
    """Print what the tasks of services, and single tasks, have written."""
    tail, since_ns = read_tail(options.tail), read_since(options.since, time.time_ns())
    looks = Looks(is_raw=options.raw, is_timed=options.timestamps, is_whole=options.no_trunc)
    printer = _Printer(looks)

    async def script(cluster: Cluster) -> None:
        services, tasks = await _find(cluster, options.refs)
        if not options.raw:
            await _entitle(cluster, looks, services, tasks, options)
        merge = Merge()
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
                if options.follow:
                    printer.show((event, line) for line in event.lines)
                else:
                    printer.show(merge.add(event))
                if event.problem:
                    printer.warn(event.problem)
        printer.show(merge.rest())

    try:
        session.run(options, script)
    except KeyboardInterrupt:
        if not options.follow:
            raise
        # This is how one stops to follow: no failure, and nothing to say about it.
        return
    if printer.problems:
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
    """Lines of stdout go to stdout, those of stderr to stderr."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
        self._last: TextIO | None = None
        self._is_safe = {out: out.isatty() for out in (sys.stdout, sys.stderr)}
        is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        self._is_coloured = {out: out.isatty() and not is_plain for out in self._is_safe}
        self.problems = 0

    def show(self, lines: Iterable[tuple[LogEvent, LogLine]]) -> None:
        """Print lines."""
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

    def warn(self, problem: str) -> None:
        """Print what can't be had."""
        self.problems += 1
        note(f"skep: warning: {' '.join(problem.split())}")

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

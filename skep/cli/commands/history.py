"""`skep service history` and `skep service diff`: the specs that a service has had."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

import msgspec

from skep.cli import diff as differ
from skep.cli import output, rows, session
from skep.cli.errors import Failure
from skep.client import Cluster
from skep.domain.objects import Revision, Service, Task
from skep.domain.states import TaskState


def history(options: argparse.Namespace) -> None:
    """List the specs, the newest first."""

    async def script(cluster: Cluster) -> None:
        service = (await cluster.services.get(options.ref, is_stale=options.stale)).service
        kept = await cluster.services.history(service.id, is_stale=options.stale)
        tasks = await cluster.tasks.list(service=service.id, is_stale=options.stale)
        _show(history_rows(service, kept, tasks), options)

    session.run(options, script)


def _show(found: Sequence[rows.RevisionRow], options: argparse.Namespace) -> None:
    now_s = time.time()
    columns: output.Columns[rows.RevisionRow] = (
        ("REVISION", lambda row: f"{row.revision}{' *' if row.is_present else ''}"),
        ("CREATED", lambda row: f"{rows.age_text(now_s - row.created)} ago"),
        ("IMAGE", lambda row: row.image),
        ("TASKS", lambda row: str(row.running)),
        ("CHANGES", _what),
    )
    key = "revision" if options.quiet else None
    output.show(found, columns, shape=options.format, key=key)


def _what(row: rows.RevisionRow) -> str:
    # A note that says more than that there was a change says enough.
    return row.note if row.note not in ("", "updated") else row.changes or row.note


def history_rows(
    service: Service, kept: Sequence[Revision], tasks: Sequence[Task]
) -> list[rows.RevisionRow]:
    """A row for each revision, the newest first."""
    found = []
    counted: set[int] = set()
    for place, revision in enumerate(kept):
        older = kept[place + 1] if place + 1 < len(kept) else None
        # Specs that say the same of tasks share them; they are shown with the newest.
        shared = revision.task_revision or revision.number
        running = 0 if shared in counted else sum(1 for task in tasks if _runs(task, shared))
        counted.add(shared)
        what = differ.summary(differ.changes(older.spec, revision.spec)) if older else ""
        found.append(
            rows.RevisionRow(
                revision=revision.number,
                created=revision.created_ns / rows.NS_PER_S,
                image=revision.spec.task.run.image,
                note=revision.note,
                changes=what,
                running=running,
                is_present=revision.number == service.revision,
            )
        )
    return found


def _runs(task: Task, revision: int) -> bool:
    return task.revision == revision and task.status.state is TaskState.RUNNING


def diff(options: argparse.Namespace) -> None:
    """Show what changed between two specs."""

    async def script(cluster: Cluster) -> None:
        service = (await cluster.services.get(options.ref)).service
        kept = await cluster.services.history(service.id)
        old, new = _pair(service, kept, options)
        found = differ.changes(old.spec, new.spec)
        if options.format != "text":
            whole = {"service": service.name, "from": old.number, "to": new.number}
            changes = {"changes": msgspec.to_builtins(found)}
            output.write(whole | changes, shape=options.format)
            return
        print(f"{service.name}: revision {old.number} to {new.number}")
        for line in differ.lines(found) if found else ["no difference"]:
            print(coloured(output.printable(line)))

    session.run(options, script)


def coloured(line: str) -> str:
    """A line of a comparison as the terminal shows it."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    colour = {"-": "\x1b[31m", "+": "\x1b[32m"}.get(line[0])
    if colour is None or is_plain or not sys.stdout.isatty():
        return line
    return f"{colour}{line}\x1b[0m"


def _pair(
    service: Service, kept: Sequence[Revision], options: argparse.Namespace
) -> tuple[Revision, Revision]:
    """The revisions to compare. Raises Failure."""
    by_number = {revision.number: revision for revision in kept}
    new = _found(service, by_number, service.revision if options.new is None else options.new)
    if options.old is not None:
        return _found(service, by_number, options.old), new
    earlier = [number for number in by_number if number < new.number]
    if not earlier:
        raise Failure(
            f"{service.name} has no revision before {new.number} to compare it with; see 'skep "
            f"service history {service.name}'"
        )
    return by_number[max(earlier)], new


def _found(service: Service, by_number: dict[int, Revision], number: int) -> Revision:
    if number not in by_number:
        there = ", ".join(map(str, sorted(by_number))) or "none"
        raise Failure(f"{service.name} has no revision {number}; kept are {there}")
    return by_number[number]

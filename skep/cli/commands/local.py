"""`skep local ...`: the processes of a local cluster, one by one."""

from __future__ import annotations

import argparse

from skep.cli import output, rows
from skep.cli.errors import Failure
from skep.cli.local import cluster as local
from skep.cli.local import core, procs
from skep.cli.local.home import Home


def ls(options: argparse.Namespace) -> None:
    """List processes."""
    of, cluster = local.find(options.cluster)
    shown = [_row(of, cluster, state) for state in local.states(of, cluster)]
    columns: output.Columns[rows.ProcessRow] = (
        ("NAME", lambda row: row.name),
        ("PID", lambda row: "" if row.pid is None else str(row.pid)),
        ("STATE", lambda row: row.state),
        ("UPTIME", lambda row: "" if row.uptime_s is None else rows.age_text(row.uptime_s)),
        ("ADDRESS", lambda row: row.address),
        ("METRICS", lambda row: row.metrics),
        (
            "MEMORY",
            lambda row: "" if row.memory_bytes is None else rows.size_text(row.memory_bytes),
        ),
    )
    output.show(shown, columns, shape=options.format, key="name" if options.quiet else None)


def _row(of: Home, cluster: core.LocalCluster, state: local.State) -> rows.ProcessRow:
    process, found = state
    words = "stopped"
    if found:
        words = "paused" if found.state in "Tt" else "running"
    return rows.ProcessRow(
        name=process.name,
        node=process.node.name,
        kind=process.kind.name.lower(),
        pid=found.pid if found else None,
        state=words,
        uptime_s=round(procs.age_s(found), 1) if found else None,
        address=core.address_of(cluster, process),
        metrics=core.metrics_of(cluster, process),
        memory_bytes=found.rss_bytes if found else None,
        log=str(of.log(process)),
    )


def start(options: argparse.Namespace) -> None:
    """Start processes that don't run."""
    of, cluster = local.find(options.cluster)
    chosen = local.choose(cluster, options.names)
    with of.locked():
        started = local.start(of, cluster, chosen)
    for process in chosen:
        print(process.name if process in started else f"{process.name} is running already")


def stop(options: argparse.Namespace) -> None:
    """Stop processes by SIGTERM."""
    for state in _running(options):
        assert state.found is not None
        killed = local.stop([state.found])
        print(state.process.name)
        if killed:
            output.note(
                f"skep: warning: {state.process.name} did not end within "
                f"{local.STOP_GRACE_S:g} s and was killed"
            )


def kill(options: argparse.Namespace) -> None:
    """Kill processes, all at once."""
    running = _running(options)
    local.kill([state.found for state in running if state.found])
    for state in running:
        print(state.process.name)


def _running(options: argparse.Namespace) -> list[local.State]:
    of, cluster = local.find(options.cluster)
    chosen = local.choose(cluster, options.names)
    found = [state for state in local.states(of, cluster) if state.process in chosen]
    running = [state for state in found if state.found]
    if not running:
        names = ", ".join(state.process.name for state in found)
        raise Failure(f"{names}: not running; 'skep local start' starts it")
    return running

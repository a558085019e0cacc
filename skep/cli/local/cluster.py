"""Starting and stopping a local cluster's processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from skep.cli.errors import Exit, Failure
from skep.cli.local import core, home, namespaces, procs
from skep.env import DiceIds, Random, Rejected

# Managers hand leadership over and netproxies let short connections end; both take about a second.
STOP_GRACE_S = 8.0
# Tasks have grace periods of their own, which end long before this.
PURGE_DEADLINE_S = 120.0
# Most tasks end at once. Who waits longer wants to know for what.
PURGE_QUIET_S = 2.0
PURGE_LOOK_S = 0.05
LOG_TAIL_BYTES = 4096


class State(NamedTuple):
    """A process of the plan, and the one that runs."""

    process: core.LocalProcess
    found: procs.Found | None


def states(of: home.Home, cluster: core.LocalCluster) -> list[State]:
    """Every process of the cluster, running or not."""
    wanted = {process: of.arguments(cluster, process) for process in core.processes(cluster)}
    running: dict[core.LocalProcess, procs.Found] = {}
    for pid, arguments in procs.command_lines():
        for process, mine in wanted.items():
            if core.is_ours(arguments, mine):
                found = procs.look_up(pid)
                if found is not None:
                    running[process] = found
    return [State(process, running.get(process)) for process in wanted]


@contextlib.contextmanager
def opened(of: home.Home, asked: core.Wanted) -> Iterator[core.LocalCluster]:
    """The cluster, planned and written down if there was none, with its block held for as long
    as the context lasts: long enough to start what listens there."""
    cluster = of.load()
    if cluster is not None:
        _check_same(cluster, asked)
        is_down = all(state.found is None for state in states(of, cluster))
        with home.reserved(cluster.block) as is_free:
            if is_down and (not is_free or home.is_listening(cluster.block, cluster.ports)):
                raise Failure(
                    f"addresses 127.{cluster.block}.0.x of cluster '{of.name}' are in use by "
                    "another one; stop that one, or give this one up with 'skep down'",
                    Exit.REFUSED,
                )
            of.save(cluster)
            yield cluster
        return
    taken = home.blocks_in_folders()
    ids = DiceIds(_system_dice())
    while True:
        block = core.choose_block(taken)
        with home.reserved(block) as is_free:
            is_free = is_free and not namespaces.is_taken(block)
            if is_free and not home.is_listening(block, core.Ports()):
                cluster = core.plan_cluster(of.name, asked, block, ids)
                of.save(cluster)
                yield cluster
                return
        taken.add(block)


def _check_same(cluster: core.LocalCluster, asked: core.Wanted) -> None:
    if asked.plane not in (None, cluster.plane):
        raise Failure(
            f"cluster '{cluster.name}' has the {cluster.plane.value} plane; leave --plane out, or "
            f"begin anew after 'skep down --name {cluster.name}'",
            Exit.REFUSED,
        )
    if asked.engine not in (None, cluster.engine):
        raise Failure(
            f"cluster '{cluster.name}' has engine {cluster.engine}; leave --engine out, or "
            f"begin anew after 'skep down --name {cluster.name}'",
            Exit.REFUSED,
        )
    for what, given, there in (
        ("manager", asked.managers, len(cluster.managers())),
        ("worker", asked.workers, len(cluster.workers())),
    ):
        if given is not None and given != there:
            raise Failure(
                f"cluster '{cluster.name}' has {core.counted(there, what)}, not {given}; leave "
                f"--{what}s out, or "
                f"begin anew after 'skep down --name {cluster.name}'",
                Exit.REFUSED,
            )


def _system_dice() -> Random:
    import random

    return random.SystemRandom()


def start(
    of: home.Home, cluster: core.LocalCluster, wanted: Iterable[core.LocalProcess]
) -> list[core.LocalProcess]:
    """Start those of `wanted` that don't run; returns them."""
    running = {state.process for state in states(of, cluster) if state.found}
    missing = [process for process in wanted if process not in running]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    namespaces.make(cluster)
    for process in missing:
        procs.start_detached(
            (
                *namespaces.entering(cluster, process.node),
                sys.executable,
                *of.arguments(cluster, process),
            ),
            log=of.log(process),
            folder=of.node(process.node),
            environ=environ,
        )
    return missing


def stop(found: list[procs.Found]) -> list[procs.Found]:
    """Stop processes by SIGTERM, and what doesn't follow by SIGKILL; returns the latter."""
    return procs.end(found, STOP_GRACE_S)


def kill(found: Iterable[procs.Found]) -> None:
    """SIGKILL, at once, and wait for the end."""
    killed = [one for one in found if procs.send(one, signal.SIGKILL)]
    procs.wait_gone(killed, STOP_GRACE_S)


def take_down(of: home.Home, cluster: core.LocalCluster, tell: Callable[[str], None]) -> None:
    """Stop everything: agents, then their tasks, then the rest; remove the cluster's folder.
    `tell` is called with what takes long."""
    found = states(of, cluster)
    stop([s.found for s in found if s.found and s.process.kind is core.Kind.AGENT])
    _purge_tasks(of, cluster, tell)
    stop([s.found for s in found if s.found and s.process.kind is not core.Kind.AGENT])
    _clean_networks(of, cluster)
    namespaces.remove(cluster)
    of.remove()


def _purge_tasks(of: home.Home, cluster: core.LocalCluster, tell: Callable[[str], None]) -> None:
    """End the nodes' tasks, which outlive their agents, and remove what they hold of the machine.
    Each has its stop signal and grace; the nodes go side by side."""
    module = (sys.executable, "-P", "-m", "skep.worker.engine.main", "purge")
    running = [
        (
            node,
            subprocess.Popen(
                (
                    *module,
                    str(of.node(node) / "tasks"),
                    node.node_id,
                    *_containers(of, cluster, node),
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            ),
        )
        for node in cluster.workers()
        if (of.node(node) / "tasks").is_dir()
    ]
    _tell_who_is_slow(running, tell)
    failures = [failure for node, child in running if (failure := _purged(node, child))]
    if failures:
        raise failures[0]


def _containers(of: home.Home, cluster: core.LocalCluster, node: core.LocalNode) -> tuple[str, ...]:
    if not cluster.docker:
        return ()
    return ("--docker", cluster.docker, "--containers", str(of.node(node) / "containers"))


def _clean_networks(of: home.Home, cluster: core.LocalCluster) -> None:
    """Remove what the nodes' netproxies leave: servers of names, and all that is in the kernel."""
    # What tasks have left behind ends with its networks.
    for node, done in clean_nodes(of, cluster, cluster.workers(), "--force"):
        if done.returncode:
            raise Failure(f"{node.name} can't be cleaned up: {reason(done)}; repeat 'skep down'")


def clean_nodes(
    of: home.Home, cluster: core.LocalCluster, nodes: Iterable[core.LocalNode], *flags: str
) -> list[tuple[core.LocalNode, subprocess.CompletedProcess[str]]]:
    """How `netproxy --clean` ends on each of these nodes, side by side."""
    wanted = {p.node: p for p in core.processes(cluster) if p.kind is core.Kind.NETPROXY}
    running = [
        (
            node,
            subprocess.Popen(
                (
                    # Without the node's namespace there may still be those of its tasks.
                    *(
                        namespaces.entering(cluster, node)
                        if namespaces.is_there(cluster, node)
                        else ()
                    ),
                    sys.executable,
                    *of.arguments(cluster, wanted[node]),
                    "--clean",
                    *flags,
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ),
        )
        for node in nodes
        if of.node(node).is_dir()
    ]
    ended = []
    for node, child in running:
        try:
            output, errors = child.communicate(timeout=PURGE_DEADLINE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            output, errors = child.communicate()
        done = subprocess.CompletedProcess(child.args, child.returncode, output, errors)
        ended.append((node, done))
    return ended


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """The last thing that a failed process has said, without its own name."""
    last = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
    return last.removeprefix("netproxy: ")


def _tell_who_is_slow(
    running: list[tuple[core.LocalNode, subprocess.Popen[str]]], tell: Callable[[str], None]
) -> None:
    ends = time.monotonic() + PURGE_QUIET_S
    while any(child.poll() is None for _, child in running) and time.monotonic() < ends:
        time.sleep(PURGE_LOOK_S)
    for node, child in running:
        if child.poll() is None:
            tell(f"waiting for tasks of {node.name} to end; each has its stop grace period")


def _purged(node: core.LocalNode, child: subprocess.Popen[str]) -> Failure | None:
    """What went wrong with ending one node's tasks, if anything did."""
    try:
        _, errors = child.communicate(timeout=PURGE_DEADLINE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return Failure(
            f"tasks of {node.name} did not end within {PURGE_DEADLINE_S:g} s; repeat 'skep down'",
            Exit.TIMED_OUT,
        )
    if child.returncode == 0:
        return None
    last = (errors.strip().splitlines() or ["no reason was given"])[-1]
    return Failure(f"tasks of {node.name} could not be ended: {last}; repeat 'skep down'")


def last_words(of: home.Home, process: core.LocalProcess) -> str:
    """The last line of a process's log."""
    try:
        with open(of.log(process), "rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def check_alive(of: home.Home, cluster: core.LocalCluster) -> None:
    """Raise Failure, with a dead process's last words, if one of the cluster's is not running."""
    for state in states(of, cluster):
        if state.found is None:
            words = last_words(of, state.process)
            raise Failure(
                f"{state.process.name} has ended{f': {words}' if words else ''}; "
                f"see {of.log(state.process)}"
            )


def find(name: str) -> tuple[home.Home, core.LocalCluster]:
    """A cluster that must exist. Raises Failure."""
    of = home.Home(name)
    return of, of.require()


def choose(cluster: core.LocalCluster, names: list[str]) -> tuple[core.LocalProcess, ...]:
    """The processes of these names. Raises Failure."""
    try:
        return core.named(cluster, names)
    except Rejected as error:
        raise Failure(str(error), Exit.USAGE) from None

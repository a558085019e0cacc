"""Removing all that a node's netproxy has left on its machine: `--clean`.

It says what it removes, and refuses while somebody needs it: a netproxy that runs holds the state
folder's lock, and tasks that run would be cut off from their networks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from skep.domain.base import NodeId, decode
from skep.env import Env, RealDisk, Rejected, Retryable, real_env
from skep.netproxy.adapters.options import Options, host_place
from skep.netproxy.adapters.running import processes_of
from skep.netproxy.dns.adapters.client import DnsClient
from skep.netproxy.network import STATE_FILE, SavedAttachments
from skep.rpc import GrpcTransport

if TYPE_CHECKING:
    from skep.netproxy.kernel.adapters.place import HostPlace

# Tasks and their pids that are told at once.
TOLD_LIMIT = 5


def opened_disk(state_dir: str) -> RealDisk:
    """The state folder, which is one netproxy's alone. Raises Rejected while another has it."""
    try:
        return RealDisk(Path(state_dir))
    except Rejected:
        raise Rejected(
            f"a netproxy of this node runs already, with the state folder {state_dir}; stop that "
            "one first"
        ) from None


async def clean(options: Options) -> int:
    """Remove it, or with `--dry-run` only say what there is; returns the exit status. Raises
    Rejected, before anything is done, while a netproxy or a task of the node runs."""
    disk = opened_disk(options.state_dir)
    held = None
    try:
        place = host_place(options) if options.plane == "kernel" else None
        if place is not None:
            from skep.netproxy.kernel.adapters.holding import hold

            held = hold(place)
        if not (options.force or options.dry_run):
            _check_idle(disk, NodeId(options.node_id), place)
        there = _left(place)
        if options.dry_run:
            _tell("there is", (*there, *_names(options)))
            return 0
        env: Env = real_env(options.name or options.node_id, GrpcTransport(), disk)
        problems = await _remove(env, options, place)
        still = _left(place)
        _tell("removed", [what for what in there if what not in still])
        problems += tuple(f"still there: {what}" for what in still)
    finally:
        if held is not None:
            os.close(held)
        disk.close()
    for problem in problems:
        print(f"netproxy: {problem}", file=sys.stderr)
    return 1 if problems else 0


async def _remove(env: Env, options: Options, place: HostPlace | None) -> tuple[str, ...]:
    problems: tuple[str, ...] = ()
    try:
        if await DnsClient(env, _socket(options)).end():
            _tell("removed", ("the process that answers names",))
    except Retryable as error:
        problems += (f"names: {error}",)
    if place is not None:
        from skep.netproxy.kernel.adapters.leftovers import clean as clean_kernel

        problems += await clean_kernel(place)
    env.disk.remove(STATE_FILE)
    return problems


def _left(place: HostPlace | None) -> tuple[str, ...]:
    if place is None:
        return ()
    from skep.netproxy.kernel.adapters import leftovers

    return leftovers.look(place)


def _check_idle(disk: RealDisk, node_id: NodeId, place: HostPlace | None) -> None:
    namespaces: dict[str, Path] = {}
    if place is not None:
        from skep.netproxy.kernel.adapters import leftovers

        namespaces = leftovers.namespaces(place)
    running = processes_of(_attached(disk, node_id), namespaces)
    if running:
        listed = [f"{task_id} (pid {pids[0]})" for task_id, pids in running.items()]
        more = f" and {len(listed) - TOLD_LIMIT} more" if len(listed) > TOLD_LIMIT else ""
        raise Rejected(
            f"tasks of this node run: {', '.join(listed[:TOLD_LIMIT])}{more}; drain the node "
            "first, or end them"
        )


def _attached(disk: RealDisk, node_id: NodeId) -> tuple[str, ...]:
    try:
        data = disk.read(STATE_FILE)
        saved = decode(SavedAttachments, data) if data is not None else None
    except (msgspec.DecodeError, OSError):
        return ()
    if saved is None or saved.node_id != node_id:
        return ()
    return tuple(each.request.task_id for each in saved.attached)


def _names(options: Options) -> tuple[str, ...]:
    return ("the socket of the process that answers names",) if _socket(options).exists() else ()


def _socket(options: Options) -> Path:
    return Path(options.state_dir) / "dns.sock"


def _tell(what: str, things: tuple[str, ...] | list[str]) -> None:
    for thing in things:
        print(f"{what}: {thing}")

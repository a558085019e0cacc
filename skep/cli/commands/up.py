"""`skep up` and `skep down`: a whole cluster on this machine."""

from __future__ import annotations

import argparse
import asyncio
import socket
import time
from typing import TYPE_CHECKING

from skep.cli import output
from skep.cli.errors import Exit, Failure
from skep.cli.local import cluster as local
from skep.cli.local import core, dockerhost
from skep.cli.local.home import Home, root
from skep.cli.output import Progress
from skep.domain.spec import DOCKER, PROCESS

if TYPE_CHECKING:
    from skep import client
    from skep.stackfile import ReadStack

# Looking whether processes live and managers answer costs milliseconds.
LOOK_PERIOD_S = 0.2
LOOK_DEADLINE_S = 1.0
# A published port opens within milliseconds of convergence; this is for a busy machine.
PORTS_DEADLINE_S = 5.0


def up(options: argparse.Namespace) -> None:
    """Start what is missing, deploy the stack, and say where everything is."""
    stack = None
    of = Home(options.cluster)
    if options.file is not None:
        # Before anything is started: a wrong file starts nothing.
        from skep.cli.stackfiles import read_stack

        there = of.load()
        engine = options.engine or (PROCESS if there is None else there.engine)
        stack = read_stack([options.file], "", engine=engine)
    try:
        _up(of, stack, options)
    except KeyboardInterrupt:
        name = "" if of.name == "default" else f" --name {of.name}"
        raise Failure(
            f"interrupted, but cluster '{of.name}' goes on running: 'skep up{name}' picks it up, "
            f"'skep down{name}' stops it",
            Exit.INTERRUPTED,
        ) from None


def _up(of: Home, stack: ReadStack | None, options: argparse.Namespace) -> None:
    ends = time.monotonic() + options.timeout
    with of.locked(), local.opened(of, _wanted(options)) as cluster:
        if cluster.docker:
            dockerhost.look(cluster.docker, is_kernel=cluster.plane is core.Plane.KERNEL)
        started = local.start(of, cluster, core.processes(cluster))
        if started:
            names = ", ".join(process.name for process in started)
            output.note(f"started {names}")
        # The block is held until the managers listen there, which this waits for.
        _drive(of, cluster, stack, options, ends)
    if len(cluster.managers()) % 2 == 0:
        output.note(
            f"skep: warning: {len(cluster.managers())} managers bear no more failures than "
            f"{len(cluster.managers()) - 1}; use an odd number"
        )
    if options.watch:
        # Without the lock: other commands may act on the cluster that is watched.
        _watch(of, cluster)


def _wanted(options: argparse.Namespace) -> core.Wanted:
    plane = None if options.plane is None else core.Plane(options.plane)
    docker = dockerhost.chosen(options.docker_host) if options.engine == DOCKER else ""
    return core.Wanted(
        options.managers, options.workers, plane, options.vip, options.engine, docker
    )


def _watch(of: Home, plan: core.LocalCluster) -> None:
    """Stay with the board until its user has had enough."""
    from skep import client
    from skep.cli import session
    from skep.cli.commands import top

    async def go() -> None:
        where = plan.control_addresses()
        async with client.connect(where, deadline_s=session.CALL_DEADLINE_S) as cluster:
            if top.can_be_live():
                await top.live(cluster, of.name, "q ends this; the cluster goes on running")
            else:
                await top.once(cluster, of.name)

    asyncio.run(go())
    name = "" if of.name == "default" else f" --name {of.name}"
    output.note(f"cluster '{of.name}' goes on running; 'skep down{name}' stops it")


def _drive(
    of: Home,
    plan: core.LocalCluster,
    stack: ReadStack | None,
    options: argparse.Namespace,
    ends: float,
) -> None:
    from skep import client
    from skep.cli import session
    from skep.cli.commands.stack import deploy_and_wait

    async def go() -> None:
        addresses = plan.control_addresses()
        async with client.connect(addresses, deadline_s=session.CALL_DEADLINE_S) as cluster:
            leader = await _until_ready(of, plan, cluster, ends)
            if stack is not None:
                options.timeout = max(0.0, ends - time.monotonic())
                await deploy_and_wait(cluster, stack, options)
            views = await cluster.services.list()
            published = [
                (view.service.name, port.published)
                for view in views
                for port in view.service.ports or view.service.spec.ports
                if port.published is not None
            ]
            if not options.detach:
                await _until_open(plan, [port for _, port in published])
            _say_where(of, plan, leader, published, session.counts(views))

    asyncio.run(go())


async def _until_ready(
    of: Home, plan: core.LocalCluster, cluster: client.Cluster, ends: float
) -> str:
    """Wait until a leader is elected and every worker has registered; returns the leader's name.
    A process that dies meanwhile ends the wait."""
    from skep import client
    from skep.domain.objects import NodeState

    progress = Progress()
    missing = "no leader yet"
    try:
        while True:
            local.check_alive(of, plan)
            try:
                nodes = await cluster.nodes.snapshot(deadline_s=LOOK_DEADLINE_S)
            except (client.Unavailable, client.OutcomeUnknown):
                missing = "the managers have not elected a leader yet"
            else:
                ready = {n.name for n in nodes.nodes if n.state is NodeState.READY}
                late = [node.name for node in plan.workers() if node.name not in ready]
                leaders = [node.name for node in nodes.nodes if node.id == nodes.leader_id]
                if leaders and not late:
                    return leaders[0]
                missing = f"waiting for {', '.join(late) or 'a leader'}"
            progress.say(missing)
            if time.monotonic() > ends:
                raise Failure(
                    f"cluster '{of.name}' is not ready in time: {missing}; its processes go on: "
                    f"see 'skep local ls' and {of.logs}",
                    Exit.TIMED_OUT,
                )
            await asyncio.sleep(LOOK_PERIOD_S)
    finally:
        progress.done()


async def _until_open(plan: core.LocalCluster, ports: list[int]) -> None:
    """Wait until every published port takes connections on every worker."""
    ends = time.monotonic() + PORTS_DEADLINE_S
    closed = {(plan.host(node), port) for node in plan.workers() for port in ports}
    while closed and time.monotonic() < ends:
        closed = {place for place in closed if not _is_open(*place)}
        if closed:
            await asyncio.sleep(LOOK_PERIOD_S)
    if closed:
        listed = ", ".join(f"{host}:{port}" for host, port in sorted(closed))
        output.note(
            f"skep: warning: nothing answers at {listed} yet; another program may hold the port"
        )


def _is_open(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=LOOK_PERIOD_S):
            return True
    except OSError:
        return False


def _say_where(
    of: Home,
    plan: core.LocalCluster,
    leader: str,
    published: list[tuple[str, int]],
    counts: str,
) -> None:
    name = "" if _is_meant(of) else f" --cluster {of.name}"
    hosts = [plan.host(node) for node in plan.workers()]
    lines = [
        f"cluster '{of.name}' is up: {core.counted(len(plan.managers()), 'manager')} "
        f"(leader {leader}), {core.counted(len(plan.workers()), 'worker')}",
        f"services  {counts}",
    ]
    for service, port in published:
        urls = "  ".join(f"http://{host}:{port}/" for host in hosts)
        lines.append(f"open      {urls}  ({service})")
    down = "" if of.name == "default" else f" --cluster {of.name}"
    lines += [
        f"control   {' '.join(plan.control_addresses())}",
        *_metrics_lines(plan),
        f"logs      {of.logs}",
        f"look      skep node ls{name}; skep service ls{name}; skep local ls{down}",
        f"stop      skep down{down}",
    ]
    print("\n".join(lines))


def _is_meant(of: Home) -> bool:
    """Whether commands mean this cluster without being told so."""
    from skep.cli import contextfile

    nothing = argparse.Namespace(managers_address=None, context=None, cluster=None)
    try:
        target = contextfile.target(nothing)
    except Failure:
        return False
    return target.managers is None and target.cluster == of.name


def _metrics_lines(plan: core.LocalCluster) -> list[str]:
    lines = []
    for kind in core.Kind:
        urls = [
            f"http://{core.metrics_of(plan, process)}/metrics"
            for process in core.processes(plan)
            if process.kind is kind
        ]
        if urls:
            lines.append(f"metrics   {kind.name.lower():<8}  {' '.join(urls)}")
    return lines


def down(options: argparse.Namespace) -> None:
    """Stop everything of a local cluster and remove its folder."""
    of = Home(options.cluster)
    if of.load() is None:
        print(f"there is no cluster '{of.name}' in {root()}; nothing to stop, which is no failure")
        return
    with of.locked():
        cluster = of.load()
        if cluster is not None:
            local.take_down(of, cluster, output.note)
    print(f"cluster '{of.name}' is down; its folder {of.folder} is removed")

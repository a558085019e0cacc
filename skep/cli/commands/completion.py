"""`skep completion`, and `skep __complete`, which its scripts ask for names."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator

# A shell that waits longer for a name is worse than one that has none to offer.
DEADLINE_S = 1.0
CALL_DEADLINE_S = 0.9
NAMES_LIMIT = 1000

# What a shell would read as something else is no good as a completion.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*=?")


def script(options: argparse.Namespace) -> None:
    """Print a completion script."""
    from skep.cli import completion, parser, shells

    write = {"bash": shells.bash, "zsh": shells.zsh, "fish": shells.fish}[options.shell]
    print(write(tuple(completion.places(parser.build()))), end="")


def names(options: argparse.Namespace) -> None:
    """Print names of a kind, a line each; nothing where that goes wrong, or takes too long."""
    with _ending_in_time(), contextlib.suppress(Exception, SystemExit):
        kind, *reach = options.words
        parser = argparse.ArgumentParser(add_help=False)
        for flag in ("--cluster", "--context", "--managers-address"):
            parser.add_argument(flag)
        parser.add_argument("of", nargs="?")
        found = _KINDS[kind](parser.parse_args(reach))
        print(
            "".join(f"{name}\n" for name in found[:NAMES_LIMIT] if _PLAIN.fullmatch(name)), end=""
        )


@contextlib.contextmanager
def _ending_in_time() -> Iterator[None]:
    """End the whole process, whatever it is at, when the deadline has passed."""
    before = signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, DEADLINE_S)
    # Complaints of libraries would end up in the middle of the line that is being typed.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _contexts(options: argparse.Namespace) -> list[str]:
    from skep.cli import contextfile, contexts

    return [contexts.LOCAL, *sorted(contextfile.load().contexts)]


def _clusters(options: argparse.Namespace) -> list[str]:
    from skep.cli.local import home

    return home.names()


def _processes(options: argparse.Namespace) -> list[str]:
    from skep.cli.local import cluster as local
    from skep.cli.local import core

    _, plan = local.find(options.cluster or "default")
    found: dict[str, None] = {}
    for process in core.processes(plan):
        found[process.node.name] = found[process.name] = None
    return list(found)


def _objects(kind: str) -> Callable[[argparse.Namespace], list[str]]:
    def found(options: argparse.Namespace) -> list[str]:
        return asyncio.run(_ask(options, kind))

    return found


async def _ask(options: argparse.Namespace, kind: str) -> list[str]:
    from skep import client
    from skep.cli import session

    where = session.addresses(options)
    async with client.connect(where, deadline_s=CALL_DEADLINE_S) as cluster:
        match kind:
            case "nodes":
                return [node.name for node in await cluster.nodes.list(is_stale=True)]
            case "revisions":
                if not options.of:
                    return []
                kept = await cluster.services.history(options.of, is_stale=True)
                return [str(revision.number) for revision in kept]
            case "networks":
                return [view.network.name for view in await cluster.networks.list(is_stale=True)]
            case "configs":
                return [view.config.name for view in await cluster.configs.list(is_stale=True)]
            case "secrets":
                return [view.name for view in await cluster.secrets.list(is_stale=True)]
            case "registries":
                return [view.name for view in await cluster.registries.list(is_stale=True)]
            case "volumes":
                return [view.volume.name for view in await cluster.volumes.list(is_stale=True)]
            case "stacks":
                return [stack.name for stack in await cluster.stacks.list(is_stale=True)]
            case "tasks":
                tasks = await cluster.tasks.list(is_stale=True)
                return sorted({task.name for task in tasks if task.is_wanted})
        end = "=" if kind == "scale" else ""
        views = await cluster.services.list(is_stale=True)
        return [f"{view.service.name}{end}" for view in views]


_KINDS: dict[str, Callable[[argparse.Namespace], list[str]]] = {
    "contexts": _contexts,
    "clusters": _clusters,
    "processes": _processes,
    **{
        kind: _objects(kind)
        for kind in (
            *("nodes", "services", "stacks", "tasks", "networks", "scale", "revisions"),
            *("configs", "secrets", "registries", "volumes"),
        )
    },
}

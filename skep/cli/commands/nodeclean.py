"""`skep node clean`: removing what stopped nodes of a local cluster have left in the kernel."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence

from skep.cli.errors import Exit, Failure
from skep.cli.local import cluster as local
from skep.cli.local import core


def clean(options: argparse.Namespace) -> None:
    """Clean nodes up, or without --yes say what there is to clean up."""
    of, cluster = local.find(options.cluster)
    nodes = _chosen(cluster, options.refs, is_all=options.all)
    with of.locked():
        running = [
            state.process.name
            for state in local.states(of, cluster)
            if state.found and state.process.node in nodes
            if state.process.kind is core.Kind.NETPROXY
        ]
        if running:
            names = " ".join(running)
            raise Failure(
                f"{names} {'runs' if len(running) == 1 else 'run'}; stop what is to be cleaned up "
                f"first: skep local stop {names} --cluster {cluster.name}",
                Exit.REFUSED,
            )
        flags = () if options.yes else ("--dry-run",)
        failed = _tell(local.clean_nodes(of, cluster, nodes, *flags))
    if failed:
        raise Failure("; ".join(failed), Exit.REFUSED)
    if not options.yes:
        print("nothing was removed; --yes removes it")


def _tell(
    results: Sequence[tuple[core.LocalNode, subprocess.CompletedProcess[str]]],
) -> list[str]:
    """Print what was done; returns what could not be, by node."""
    failed = []
    for node, done in results:
        lines = done.stdout.splitlines()
        for line in lines:
            print(f"{node.name}: {line}")
        if done.returncode:
            failed.append(f"{node.name}: {local.reason(done)}")
        elif not lines:
            print(f"{node.name}: nothing is left")
    return failed


def _chosen(
    cluster: core.LocalCluster, names: Sequence[str], *, is_all: bool
) -> tuple[core.LocalNode, ...]:
    there = {node.name: node for node in cluster.workers()}
    if is_all == bool(names):
        raise Failure("name the nodes to clean up, or give --all instead", Exit.USAGE)
    for name in names:
        if name not in there:
            raise Failure(
                f"'{name}' has no netproxy in local cluster '{cluster.name}'; there are "
                f"{', '.join(there) or 'none'}",
                Exit.USAGE,
            )
    return tuple(there.values()) if is_all else tuple(there[name] for name in dict.fromkeys(names))

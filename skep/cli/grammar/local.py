"""`skep up`, `skep down` and `skep local ...`."""

from __future__ import annotations

import argparse

from skep.cli.options import Subparsers, command, count, group, named, shows, waits
from skep.domain.spec import ENGINES


def add(commands: Subparsers) -> None:
    """Add them."""
    up = waits(command(commands, "up", "up.up", "start a cluster on this machine, with a stack"))
    up.add_argument("file", nargs="?", metavar="FILE", help="a stack file to deploy")
    up.add_argument("--managers", type=count, metavar="N", help="default: 3")
    up.add_argument("--workers", type=count, metavar="N", help="default: 3")
    up.add_argument(
        "--plane", choices=("relay", "kernel"), help="what moves packets (default: relay)"
    )
    up.add_argument(
        "--engine",
        choices=ENGINES,
        help="what runs services whose stack file doesn't say it; with docker, nodes run "
        "containers as well (default: process)",
    )
    up.add_argument(
        "--docker-host",
        metavar="unix://SOCKET",
        help="the Docker engine that the nodes share (default: $DOCKER_HOST, then "
        "unix:///var/run/docker.sock)",
    )
    # For tests of the fallback on machines that have BPF.
    up.add_argument("--vip", choices=("auto", "bpf", "nft"), default="auto", help=argparse.SUPPRESS)
    up.add_argument("--watch", action="store_true", help="stay, with the board of 'skep top'")
    named(up)
    down = command(commands, "down", "up.down", "stop a local cluster and remove all it left")
    named(down)

    local = group(commands, "local", "the processes of a local cluster")
    ls = shows(command(local, "ls", "local.ls", "list its processes"))
    named(ls)
    for name, text in (
        ("start", "start processes that don't run"),
        ("stop", "stop processes as an operator would (SIGTERM); tasks go on"),
        ("kill", "kill processes as a fault would (SIGKILL); tasks go on"),
    ):
        acts = command(local, name, f"local.{name}", text)
        acts.add_argument(
            "names", nargs="+", metavar="NAME", help="m1, w1.agent, w1.netproxy; w1 means both"
        )
        named(acts)

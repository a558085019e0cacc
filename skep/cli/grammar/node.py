"""`skep node ...`."""

from __future__ import annotations

from skep.cli.options import (
    Subparsers,
    command,
    group,
    inspects,
    may_be_stale,
    named,
    of_tasks,
    reaches,
    seconds,
    shows,
)

# Each service moves its tasks by its update policy; this is for several of them with a minute each.
DRAIN_TIMEOUT_S = 300.0


def add(commands: Subparsers) -> None:
    """Add them."""
    node = group(commands, "node", "the machines of a cluster")
    may_be_stale(reaches(shows(command(node, "ls", "node.ls", "list nodes"))))
    inspect = reaches(command(node, "inspect", "node.inspect", "show all there is about nodes"))
    inspects(inspect)
    inspect.add_argument("--pretty", action="store_true", help="what people look for, as text")
    ps = reaches(shows(command(node, "ps", "node.ps", "list the tasks of nodes")))
    of_tasks(ps).add_argument("refs", nargs="+", metavar="NODE")
    ps.add_argument("-a", "--all", action="store_true", help="ended tasks too")
    update = reaches(command(node, "update", "node.update", "change nodes"))
    update.add_argument("refs", nargs="+", metavar="NODE")
    update.add_argument("--availability", choices=("active", "pause", "drain"))
    update.add_argument("--label-add", action="append", default=[], metavar="KEY=VALUE")
    update.add_argument("--label-rm", action="append", default=[], metavar="KEY")
    update.add_argument(
        "--wait", action="store_true", help="with drain: until no task is left on them"
    )
    update.add_argument(
        "--timeout",
        dest="wait_s",
        type=seconds,
        metavar="DURATION",
        help=f"how long --wait waits (default: {DRAIN_TIMEOUT_S:g}s)",
    )
    rm = reaches(command(node, "rm", "node.rm", "forget nodes that are down"))
    rm.add_argument("refs", nargs="+", metavar="NODE")
    clean = command(
        node, "clean", "nodeclean.clean", "remove what a stopped local node has left in the kernel"
    )
    clean.add_argument("refs", nargs="*", metavar="NODE", help="w1; of the local cluster")
    clean.add_argument("--all", action="store_true", help="all nodes of the local cluster")
    clean.add_argument("-y", "--yes", action="store_true", help="do it; without, only say what")
    named(clean)
    _setup_docker(node)


def _setup_docker(node: Subparsers) -> None:
    setup = command(
        node, "setup-docker", "dockersetup.setup", "let this machine's Docker run Skep's containers"
    )
    setup.add_argument(
        "--folder", metavar="FOLDER", help="where to put the runtime (default: /usr/local/lib/skep)"
    )
    setup.add_argument(
        "--daemon-file",
        metavar="FILE",
        help="dockerd's configuration (default: /etc/docker/daemon.json)",
    )
    setup.add_argument(
        "--pid-file", metavar="FILE", help="dockerd's pid (default: /var/run/docker.pid)"
    )
    setup.add_argument(
        "--no-reload", action="store_true", help="don't have a running dockerd read it again"
    )

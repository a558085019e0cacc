"""`skep network ...`."""

from __future__ import annotations

from skep.cli.options import (
    Subparsers,
    command,
    group,
    may_be_stale,
    narrowed,
    reaches,
    shows,
    waits,
)


def add(commands: Subparsers) -> None:
    """Add them."""
    network = group(commands, "network", "what connects tasks, and keeps them apart")
    _create(network)
    ls = shows(command(network, "ls", "network.ls", "list networks"))
    narrowed(ls, "name=, id=, label=, driver= or stack=; several of a key: any, but all labels")
    may_be_stale(reaches(ls))
    inspect = command(network, "inspect", "network.inspect", "show all about networks")
    reaches(inspect).add_argument(
        "refs", nargs="+", metavar="REF", help="a name, an id, or its beginning"
    )
    inspect.add_argument("--pretty", action="store_true", help="what people look for, as text")
    inspect.add_argument(
        "-f",
        "--format",
        default="json",
        metavar="FORMAT",
        help="json, yaml, or fields such as '{{.IPAM.Config}}'",
    )
    rm = waits(reaches(command(network, "rm", "network.rm", "remove networks nobody is on")))
    rm.add_argument("refs", nargs="+", metavar="NETWORK")
    doctor = command(
        network, "doctor", "network.doctor", "compare every node's networks with the managers'"
    )
    reaches(doctor).add_argument("--format", choices=("table", "json", "yaml"), default="table")
    why = command(
        network, "why", "network.why", "say what a name leads to for a task, and whether it works"
    )
    reaches(why).add_argument("name", metavar="SERVICE|NAME", help="as the task would ask for it")
    why.add_argument(
        "--from",
        dest="from_task",
        required=True,
        metavar="TASK",
        help="the task that asks: web.1, or its id",
    )
    why.add_argument("--format", choices=("table", "json", "yaml"), default="table")


def _create(network: Subparsers) -> None:
    create = reaches(command(network, "create", "network.create", "create a network"))
    create.add_argument("name", metavar="NAME")
    create.add_argument("-d", "--driver", default="overlay", help="overlay, which spans nodes")
    create.add_argument(
        "--subnet", default="", metavar="CIDR", help="such as 10.1.2.0/24; default: the next free"
    )
    create.add_argument(
        "--gateway", default="", metavar="IP", help="an address that no task gets; default: first"
    )
    create.add_argument(
        "--internal", action="store_true", help="nothing outside can be reached from it alone"
    )
    create.add_argument("--attachable", action="store_true", help="single containers may join")
    create.add_argument("--encrypted", action="store_true", help="encrypt what leaves a node")
    create.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    create.add_argument(
        "-o",
        "--opt",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the driver: encrypted; others are kept and shown",
    )

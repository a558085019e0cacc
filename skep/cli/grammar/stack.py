"""`skep stack ...`."""

from __future__ import annotations

from skep.cli.options import Subparsers, command, group, may_be_stale, reaches, shows, waits


def add(commands: Subparsers) -> None:
    """Add them."""
    stack = group(commands, "stack", "sets of services, deployed as one")
    deploy = waits(
        reaches(command(stack, "deploy", "stack.deploy", "make the cluster hold a stack")),
        for_updates=True,
    )
    deploy.add_argument(
        "-c", "-f", "--compose-file", "--file", dest="file", required=True, help="'-' is stdin"
    )
    deploy.add_argument("--prune", action="store_true", help="remove services no longer named")
    deploy.add_argument("name", nargs="?", default="", metavar="STACK", help="default: its name:")
    may_be_stale(reaches(shows(command(stack, "ls", "stack.ls", "list stacks"))))
    ps = reaches(shows(command(stack, "ps", "stack.ps", "list a stack's tasks, ended too")))
    ps.add_argument("name", metavar="STACK")
    services = reaches(
        shows(command(stack, "services", "stack.services", "list a stack's services"))
    )
    services.add_argument("name", metavar="STACK")
    rm = waits(reaches(command(stack, "rm", "stack.rm", "remove stacks")))
    rm.add_argument("names", nargs="+", metavar="STACK")

"""`skep stack ...`."""

from __future__ import annotations

from skep.cli.options import (
    Parser,
    Subparsers,
    command,
    group,
    may_be_stale,
    of_services,
    of_tasks,
    reaches,
    shows,
    waits,
)
from skep.domain.spec import ENGINES, PROCESS


def add(commands: Subparsers) -> None:
    """Add them."""
    stack = group(commands, "stack", "sets of services, deployed as one")
    deploy = waits(
        reaches(
            command(
                stack,
                "deploy",
                "stack.deploy",
                "make the cluster hold a stack",
                aliases=("up",),
            )
        ),
        for_updates=True,
    )
    _reads_files(deploy)
    deploy.add_argument("--prune", action="store_true", help="remove services no longer named")
    config = command(stack, "config", "stack.config", "show what stack files mean, merged")
    _reads_files(config)
    config.add_argument("--format", choices=("yaml", "json"), default="yaml")
    config.add_argument(
        "--engine",
        choices=ENGINES,
        default=PROCESS,
        help="what runs services that don't say it; a cluster has its own (default: process)",
    )
    config.add_argument("-q", "--quiet", action="store_true", help="only check")
    config.add_argument(
        "--no-interpolate", action="store_true", help="leave variables as they stand; check no keys"
    )
    may_be_stale(reaches(shows(command(stack, "ls", "stack.ls", "list stacks"))))
    ps = reaches(shows(command(stack, "ps", "stack.ps", "list a stack's tasks, ended too")))
    of_tasks(ps).add_argument("name", metavar="STACK")
    services = reaches(
        shows(command(stack, "services", "stack.services", "list a stack's services"))
    )
    of_services(services).add_argument("name", metavar="STACK")
    rm = waits(reaches(command(stack, "rm", "stack.rm", "remove stacks")))
    rm.add_argument("names", nargs="+", metavar="STACK")


def _reads_files(command: Parser) -> None:
    command.add_argument(
        "-c",
        "-f",
        "--compose-file",
        "--file",
        dest="files",
        action="append",
        required=True,
        metavar="FILE",
        help="'-' is stdin; further ones are merged over the first",
    )
    command.add_argument(
        "--env-file",
        dest="env_files",
        action="append",
        default=[],
        metavar="FILE",
        help="variables, instead of those in .env beside the first file",
    )
    command.add_argument("name", nargs="?", default="", metavar="STACK", help="default: its name:")

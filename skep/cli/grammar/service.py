"""`skep service ...`."""

from __future__ import annotations

from skep.cli.options import (
    Parser,
    Subparsers,
    command,
    count,
    group,
    inspects,
    may_be_stale,
    reaches,
    shows,
    waits,
)


def add(commands: Subparsers) -> None:
    """Add them."""
    service = group(commands, "service", "what a cluster keeps running")
    may_be_stale(reaches(shows(command(service, "ls", "service.ls", "list services"))))
    inspects(reaches(command(service, "inspect", "service.inspect", "show all about services")))
    ps = reaches(shows(command(service, "ps", "service.ps", "list services' tasks, ended too")))
    ps.add_argument("refs", nargs="+", metavar="SERVICE")
    may_be_stale(ps)
    why = reaches(command(service, "why", "why.why", "explain why services aren't as asked"))
    why.add_argument("refs", nargs="+", metavar="SERVICE")
    why.add_argument("--format", choices=("table", "json", "yaml"), default="table")

    create = command(service, "create", "service.create", "create a service")
    waits(reaches(create))
    create.add_argument("--name", required=True)
    create.add_argument("--publish", "-p", action="append", default=[], metavar="8080:80")
    create.add_argument("--env", "-e", action="append", default=[], metavar="NAME=VALUE")
    create.add_argument("--label", "-l", action="append", default=[], metavar="KEY=VALUE")
    create.add_argument("--constraint", action="append", default=[], metavar="EXPRESSION")
    _describes(create)
    create.add_argument("command", nargs="*", metavar="COMMAND", help="best after '--'")
    create.set_defaults(needs_command=True)
    create.add_argument("-q", "--quiet", action="store_true", help="print nothing but the id")

    scale = waits(reaches(command(service, "scale", "service.scale", "set replicas")))
    scale.add_argument("targets", nargs="+", metavar="SERVICE=REPLICAS")

    update = waits(reaches(command(service, "update", "service.update", "change a service")))
    update.add_argument("ref", metavar="SERVICE")
    for flag, metavar in (
        ("publish", "8080:80"),
        ("env", "NAME=VALUE"),
        ("label", "KEY=VALUE"),
        ("constraint", "EXPRESSION"),
    ):
        update.add_argument(f"--{flag}-add", action="append", default=[], metavar=metavar)
        update.add_argument(f"--{flag}-rm", action="append", default=[], metavar="WHICH")
    _describes(update)
    update.add_argument("--force", action="store_true", help="new tasks even without a change")
    update.epilog = "A new command comes after '--'."
    update.set_defaults(command=[], needs_command=False)

    rm = waits(reaches(command(service, "rm", "service.rm", "remove services")))
    rm.add_argument("refs", nargs="+", metavar="SERVICE")


def _describes(command: Parser) -> None:
    """What a service's tasks are; durations, sizes and amounts as in a stack file."""
    command.add_argument("--replicas", type=count, metavar="N")
    for flag, metavar in (
        ("image", "NAME"),
        ("workdir", "FOLDER"),
        ("user", "USER"),
        ("stop-signal", "SIGNAL"),
        ("stop-grace-period", "DURATION"),
        ("health-cmd", "LINE"),
        ("health-interval", "DURATION"),
        ("health-timeout", "DURATION"),
        ("health-start-period", "DURATION"),
        ("health-start-interval", "DURATION"),
        ("health-retries", "N"),
        ("restart-condition", "none|on-failure|any"),
        ("restart-delay", "DURATION"),
        ("restart-max-attempts", "N"),
        ("restart-window", "DURATION"),
        ("limit-cpu", "CPUS"),
        ("limit-memory", "SIZE"),
        ("limit-pids", "N"),
        ("reserve-cpu", "CPUS"),
        ("reserve-memory", "SIZE"),
    ):
        command.add_argument(f"--{flag}", metavar=metavar)
    command.add_argument("--no-healthcheck", action="store_true")

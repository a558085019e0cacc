"""`skep service ...`."""

from __future__ import annotations

from skep.cli.options import (
    Parser,
    Subparsers,
    command,
    count,
    group,
    may_be_stale,
    reaches,
    shows,
    waits,
)

_LISTS = (
    ("publish", "8080:80"),
    ("env", "NAME=VALUE"),
    ("label", "KEY=VALUE"),
    ("constraint", "EXPRESSION"),
    ("placement-pref", "spread=node.labels.NAME"),
)


def add(commands: Subparsers) -> None:
    """Add them."""
    service = group(commands, "service", "what a cluster keeps running")
    may_be_stale(reaches(shows(command(service, "ls", "service.ls", "list services"))))
    _inspect(service)
    ps = reaches(shows(command(service, "ps", "service.ps", "list services' tasks, ended too")))
    ps.add_argument("refs", nargs="+", metavar="SERVICE")
    may_be_stale(ps)
    why = reaches(command(service, "why", "why.why", "explain why services aren't as asked"))
    why.add_argument("refs", nargs="+", metavar="SERVICE")
    why.add_argument("--format", choices=("table", "json", "yaml"), default="table")
    _logs(service)
    _create(service)
    scale = waits(reaches(command(service, "scale", "service.scale", "set replicas")))
    scale.add_argument("targets", nargs="+", metavar="SERVICE=REPLICAS")
    _quiet(scale)
    _update(service)
    _past(service)
    rm = waits(reaches(command(service, "rm", "service.rm", "remove services")))
    rm.add_argument("refs", nargs="+", metavar="SERVICE")


def _inspect(service: Subparsers) -> None:
    inspect = reaches(command(service, "inspect", "service.inspect", "show all about services"))
    inspect.add_argument("refs", nargs="+", metavar="REF", help="a name, an id, or its beginning")
    inspect.add_argument("--pretty", action="store_true", help="what people look for, as text")
    inspect.add_argument(
        "-f",
        "--format",
        default="json",
        metavar="FORMAT",
        help="json, yaml, or fields such as '{{.Spec.Name}}'",
    )


def _logs(service: Subparsers) -> None:
    logs = reaches(command(service, "logs", "logs.logs", "print what services' tasks have written"))
    logs.add_argument("refs", nargs="+", metavar="SERVICE|TASK")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    logs.add_argument("--since", metavar="10s|TIME", help="nothing older; TIME as RFC 3339 has it")
    logs.add_argument(
        "-n", "--tail", default="all", metavar="N|all", help="of each task the newest"
    )
    logs.add_argument("-t", "--timestamps", action="store_true", help="when each line was written")
    logs.add_argument("--raw", action="store_true", help="nothing before the lines")
    logs.add_argument("--no-trunc", action="store_true", help="whole ids")
    logs.add_argument("--no-resolve", action="store_true", help="ids instead of names")


def _create(service: Subparsers) -> None:
    create = command(service, "create", "service.create", "create a service")
    waits(reaches(create))
    create.add_argument("--name", required=True)
    short = {"publish": ["-p"], "env": ["-e"], "label": ["-l"]}
    for flag, metavar in _LISTS:
        names = [f"--{flag}", *short.get(flag, [])]
        create.add_argument(*names, action="append", default=[], metavar=metavar)
    _describes(create)
    create.add_argument("command", nargs="*", metavar="COMMAND", help="best after '--'")
    create.set_defaults(needs_command=True)
    create.add_argument("-q", "--quiet", action="store_true", help="print nothing but the id")


def _update(service: Subparsers) -> None:
    update = reaches(command(service, "update", "service.update", "change a service"))
    _quiet(waits(update, for_updates=True))
    update.add_argument("ref", metavar="SERVICE")
    for flag, metavar in _LISTS:
        update.add_argument(f"--{flag}-add", action="append", default=[], metavar=metavar)
        update.add_argument(f"--{flag}-rm", action="append", default=[], metavar="WHICH")
    _describes(update)
    update.add_argument("--args", metavar="WORDS", help="new arguments; the entrypoint stays")
    update.add_argument("--force", action="store_true", help="new tasks even without a change")
    update.add_argument(
        "--rollback", action="store_true", help="back to the spec before the last update"
    )
    update.epilog = "A new command comes after '--'. Without any change, a paused update goes on."
    update.set_defaults(command=[], needs_command=False)


def _past(service: Subparsers) -> None:
    rollback = command(service, "rollback", "service.rollback", "go back to an earlier spec")
    _quiet(waits(reaches(rollback), for_updates=True))
    rollback.add_argument("ref", metavar="SERVICE")
    rollback.add_argument(
        "--to", type=count, metavar="REVISION", help="default: that before the last update"
    )
    history = command(service, "history", "history.history", "list the specs a service has had")
    may_be_stale(reaches(shows(history))).add_argument("ref", metavar="SERVICE")
    diff = reaches(command(service, "diff", "history.diff", "compare two specs of a service"))
    diff.add_argument("ref", metavar="SERVICE")
    diff.add_argument("old", nargs="?", type=count, metavar="A", help="default: the one before B")
    diff.add_argument("new", nargs="?", type=count, metavar="B", help="default: the present one")
    diff.add_argument("--format", choices=("text", "json", "yaml"), default="text")


def _quiet(command: Parser) -> None:
    command.add_argument("-q", "--quiet", action="store_true", help="no progress")


def _describes(command: Parser) -> None:
    """What a service's tasks are; durations, sizes and amounts as in a stack file."""
    command.add_argument("--replicas", type=count, metavar="N")
    for flag, metavar in (
        ("image", "NAME"),
        ("entrypoint", "WORDS"),
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
        ("replicas-max-per-node", "N"),
    ):
        command.add_argument(f"--{flag}", metavar=metavar)
    for prefix, actions in (
        ("update", "pause|continue|rollback"),
        ("rollback", "pause|continue"),
    ):
        for flag, metavar in (
            ("parallelism", "N"),
            ("delay", "DURATION"),
            ("monitor", "DURATION"),
            ("max-failure-ratio", "SHARE"),
            ("failure-action", actions),
            ("order", "stop-first|start-first"),
            ("healthy-deadline", "DURATION"),
        ):
            command.add_argument(f"--{prefix}-{flag}", metavar=metavar)
    command.add_argument("--no-healthcheck", action="store_true")
    command.add_argument(
        "--log-opt", action="append", default=[], metavar="NAME=VALUE", help="max-size, max-file"
    )

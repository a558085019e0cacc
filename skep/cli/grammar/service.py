"""`skep service ...`."""

from __future__ import annotations

from skep.cli.grammar import containers, described
from skep.cli.options import (
    Parser,
    Subparsers,
    command,
    count,
    group,
    may_be_stale,
    of_services,
    of_tasks,
    reaches,
    shows,
    waits,
)


def add(commands: Subparsers) -> None:
    """Add them."""
    service = group(commands, "service", "what a cluster keeps running")
    may_be_stale(reaches(of_services(shows(command(service, "ls", "service.ls", "list services")))))
    _inspect(service)
    ps = reaches(shows(command(service, "ps", "service.ps", "list services' tasks, ended too")))
    ps.add_argument("refs", nargs="+", metavar="SERVICE")
    may_be_stale(of_tasks(ps))
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
    create.add_argument("--name", required=True, metavar="NAME", help="the service's name")
    short = {"publish": ["-p"], "env": ["-e"], "label": ["-l"]}
    for flag, metavar, text in described.LISTS:
        names = [f"--{flag}", *short.get(flag, [])]
        create.add_argument(*names, action="append", default=[], metavar=metavar, help=text)
    described.add_to(create, is_new=True)
    containers.add_new(create)
    create.add_argument(
        "command",
        nargs="*",
        metavar="COMMAND",
        help="what to run; of a container, IMAGE and its arguments",
    )
    create.set_defaults(needs_command=False, is_rest_command=True)
    create.add_argument("-q", "--quiet", action="store_true", help="print nothing but the id")


def _update(service: Subparsers) -> None:
    update = reaches(command(service, "update", "service.update", "change a service"))
    _quiet(waits(update, for_updates=True))
    update.add_argument("ref", metavar="SERVICE")
    for flag, metavar, text in described.LISTS:
        for end, shown, meaning in (("add", metavar, text), ("rm", *described.REMOVED[flag])):
            update.add_argument(
                f"--{flag}-{end}", action="append", default=[], metavar=shown, help=meaning
            )
    described.add_to(update, is_new=False)
    containers.add_changes(update)
    update.add_argument("--args", metavar="WORDS", help="new arguments; the entrypoint stays")
    update.add_argument("--force", action="store_true", help="new tasks even without a change")
    update.add_argument(
        "--rollback", action="store_true", help="back to the spec before the last update"
    )
    update.epilog = "A new command comes after '--'. Without any change, a paused update goes on."
    update.set_defaults(command=[], needs_command=False, is_rest_command=False)


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

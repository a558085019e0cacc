"""The command line: every command, its options, and what it calls.

Commands are named as "module.function" in `skep.cli.commands` and loaded only when called.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from skep.cli.errors import Exit

TIMEOUT_S = 60.0
# More than anything there is to count has.
COUNT_DIGITS = 9
_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Parser = argparse.ArgumentParser
Subparsers = Any


class _Version(argparse.Action):
    """Does what the version command does."""

    def __call__(self, parser: Parser, namespace: argparse.Namespace, *_: object) -> None:
        _loader("version.show")(namespace)
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Errors are one line, like all of ours, and name a misspelt option first."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As always; but an unknown option is told before an option that it was meant to be is
        found missing."""
        if self.get_default("run") is not None:
            known = [name for action in self._actions for name in action.option_strings]
            for word in args or ():
                name = word.partition("=")[0]
                if re.fullmatch("--[a-z-]+", name) and name not in known:
                    self._unknown(name, known)
        return super().parse_known_args(args, namespace)

    def _unknown(self, name: str, known: Sequence[str]) -> NoReturn:
        import difflib

        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]}" if close else ""
        self.error(f"unrecognized arguments: {name}{hint}")

    def error(self, message: str) -> NoReturn:
        print(f"skep: error: {message}; see '{self.prog} --help'", file=sys.stderr)
        raise SystemExit(int(Exit.USAGE))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of one call. What follows "--" is a command for a service, word by word, and
    never read as options of ours. Exits with 2 for what can't be understood."""
    words = list(arguments)
    cut = words.index("--") if "--" in words else len(words)
    parser = build()
    options = parser.parse_args(words[:cut])
    tail = words[cut + 1 :]
    if hasattr(options, "timeout") and options.timeout <= 0 and not options.detach:
        parser.error("--timeout 0 leaves no time to wait; use --detach, which doesn't wait")
    if not hasattr(options, "command") and tail:
        parser.error(f"this takes no command: -- {' '.join(tail)}")
    if hasattr(options, "command"):
        options.command = [*options.command, *tail]
        if not options.command and options.needs_command:
            parser.error("what to run is missing; add it after '--', as in: -- sleep 3600")
    return options


def build() -> Parser:
    """The whole command line."""
    top = _Parser(prog="skep", description="Run services across machines, and keep them running.")
    top.add_argument("--version", action=_Version, nargs=0, help="say which release this is")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    _add_local(commands)
    _add_node(commands)
    _add_service(commands)
    _add_stack(commands)
    _command(commands, "version", "version.show", "say which release this is")
    return top


def _command(parent: Subparsers, name: str, target: str, text: str) -> Parser:
    # Scripts outlive releases: an abbreviation that is clear today may not be tomorrow.
    command: Parser = parent.add_parser(
        name, help=text, description=text[0].upper() + text[1:], allow_abbrev=False
    )
    command.set_defaults(run=_loader(target))
    return command


def _loader(target: str) -> Callable[[argparse.Namespace], None]:
    def run(options: argparse.Namespace) -> None:
        module, _, function = target.partition(".")
        getattr(importlib.import_module(f"skep.cli.commands.{module}"), function)(options)

    return run


def _group(parent: Subparsers, name: str, text: str) -> Subparsers:
    group = parent.add_parser(name, help=text, description=text[0].upper() + text[1:])
    return group.add_subparsers(metavar="COMMAND", required=True)


# --------------------------------------------------------------------------- shared options


def _reaches(command: Parser) -> Parser:
    """Options of commands that speak to a cluster."""
    command.add_argument(
        "--cluster", default="default", metavar="NAME", help="a local cluster (default: default)"
    )
    command.add_argument(
        "--managers-address",
        metavar="HOST:PORT,...",
        help="managers of any cluster; without it $SKEP_ADDRESS, then the local cluster",
    )
    return command


def _shows(command: Parser) -> Parser:
    """Options of commands that list things."""
    command.add_argument("--format", choices=("table", "json", "yaml"), default="table")
    command.add_argument("-q", "--quiet", action="store_true", help="ids only")
    command.add_argument("--no-trunc", action="store_true", help="whole ids in tables")
    return command


def _may_be_stale(command: Parser) -> Parser:
    """For reads that are worth something without a quorum."""
    command.add_argument(
        "--stale", action="store_true", help="what any manager that answers has, perhaps outdated"
    )
    return command


def _waits(command: Parser) -> Parser:
    """Options of commands that wait for what they asked for."""
    command.add_argument("-d", "--detach", action="store_true", help="don't wait")
    command.add_argument(
        "--timeout",
        type=seconds,
        default=TIMEOUT_S,
        metavar="DURATION",
        help=f"how long to wait (default: {TIMEOUT_S:g}s)",
    )
    return command


def seconds(text: str) -> float:
    """Seconds in "90", "90s", "1.5m" or "1m30s"."""
    total, position = 0.0, 0
    for found in re.finditer(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|$)", text):
        if found.start() != position:
            break
        total += float(found.group(1)) * _UNITS_S[found.group(2)]
        position = found.end()
    if not text or position != len(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a duration; write one like 90s or 2m")
    return total


def count(text: str) -> int:
    """A number of things."""
    if not re.fullmatch("[0-9]+", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    if len(text) > COUNT_DIGITS:
        raise argparse.ArgumentTypeError(f"'{text}' is too large")
    return int(text)


# --------------------------------------------------------------------------------- commands


def _add_local(commands: Subparsers) -> None:
    up = _waits(_command(commands, "up", "up.up", "start a cluster on this machine, with a stack"))
    up.add_argument("file", nargs="?", metavar="FILE", help="a stack file to deploy")
    up.add_argument("--managers", type=count, metavar="N", help="default: 3")
    up.add_argument("--workers", type=count, metavar="N", help="default: 3")
    _named(up)
    down = _command(commands, "down", "up.down", "stop a local cluster and remove all it left")
    _named(down)

    local = _group(commands, "local", "the processes of a local cluster")
    ls = _shows(_command(local, "ls", "local.ls", "list its processes"))
    _named(ls)
    for name, text in (
        ("start", "start processes that don't run"),
        ("stop", "stop processes as an operator would (SIGTERM); tasks go on"),
        ("kill", "kill processes as a fault would (SIGKILL); tasks go on"),
    ):
        command = _command(local, name, f"local.{name}", text)
        command.add_argument(
            "names", nargs="+", metavar="NAME", help="m1, w1.agent, w1.netproxy; w1 means both"
        )
        _named(command)


def _named(command: Parser) -> None:
    command.add_argument(
        "--name", "--cluster", dest="cluster", default="default", help="default: default"
    )


def _add_node(commands: Subparsers) -> None:
    node = _group(commands, "node", "the machines of a cluster")
    _may_be_stale(_reaches(_shows(_command(node, "ls", "node.ls", "list nodes"))))
    inspect = _reaches(_command(node, "inspect", "node.inspect", "show all there is about nodes"))
    _inspects(inspect)
    ps = _reaches(_shows(_command(node, "ps", "node.ps", "list the tasks of nodes")))
    ps.add_argument("refs", nargs="+", metavar="NODE")
    ps.add_argument("-a", "--all", action="store_true", help="ended tasks too")
    update = _reaches(_command(node, "update", "node.update", "change nodes"))
    update.add_argument("refs", nargs="+", metavar="NODE")
    update.add_argument("--availability", choices=("active", "pause", "drain"))
    update.add_argument("--label-add", action="append", default=[], metavar="KEY=VALUE")
    update.add_argument("--label-rm", action="append", default=[], metavar="KEY")
    rm = _reaches(_command(node, "rm", "node.rm", "forget nodes that are down"))
    rm.add_argument("refs", nargs="+", metavar="NODE")


def _inspects(command: Parser) -> None:
    command.add_argument("refs", nargs="+", metavar="REF", help="a name, an id, or its beginning")
    command.add_argument("--format", choices=("json", "yaml"), default="json")


def _add_service(commands: Subparsers) -> None:
    service = _group(commands, "service", "what a cluster keeps running")
    _may_be_stale(_reaches(_shows(_command(service, "ls", "service.ls", "list services"))))
    _inspects(_reaches(_command(service, "inspect", "service.inspect", "show all about services")))
    ps = _reaches(_shows(_command(service, "ps", "service.ps", "list services' tasks, ended too")))
    ps.add_argument("refs", nargs="+", metavar="SERVICE")
    _may_be_stale(ps)

    create = _command(service, "create", "service.create", "create a service")
    _waits(_reaches(create))
    create.add_argument("--name", required=True)
    create.add_argument("--publish", "-p", action="append", default=[], metavar="8080:80")
    create.add_argument("--env", "-e", action="append", default=[], metavar="NAME=VALUE")
    create.add_argument("--label", "-l", action="append", default=[], metavar="KEY=VALUE")
    create.add_argument("--constraint", action="append", default=[], metavar="EXPRESSION")
    _describes(create)
    create.add_argument("command", nargs="*", metavar="COMMAND", help="best after '--'")
    create.set_defaults(needs_command=True)
    create.add_argument("-q", "--quiet", action="store_true", help="print nothing but the id")

    scale = _waits(_reaches(_command(service, "scale", "service.scale", "set replicas")))
    scale.add_argument("targets", nargs="+", metavar="SERVICE=REPLICAS")

    update = _waits(_reaches(_command(service, "update", "service.update", "change a service")))
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

    rm = _waits(_reaches(_command(service, "rm", "service.rm", "remove services")))
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


def _add_stack(commands: Subparsers) -> None:
    stack = _group(commands, "stack", "sets of services, deployed as one")
    deploy = _waits(
        _reaches(_command(stack, "deploy", "stack.deploy", "make the cluster hold a stack"))
    )
    deploy.add_argument(
        "-c", "-f", "--compose-file", "--file", dest="file", required=True, help="'-' is stdin"
    )
    deploy.add_argument("--prune", action="store_true", help="remove services no longer named")
    deploy.add_argument("name", nargs="?", default="", metavar="STACK", help="default: its name:")
    _may_be_stale(_reaches(_shows(_command(stack, "ls", "stack.ls", "list stacks"))))
    ps = _reaches(_shows(_command(stack, "ps", "stack.ps", "list a stack's tasks, ended too")))
    ps.add_argument("name", metavar="STACK")
    services = _reaches(
        _shows(_command(stack, "services", "stack.services", "list a stack's services"))
    )
    services.add_argument("name", metavar="STACK")
    rm = _waits(_reaches(_command(stack, "rm", "stack.rm", "remove stacks")))
    rm.add_argument("names", nargs="+", metavar="STACK")

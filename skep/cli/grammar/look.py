"""`skep events`, `skep watch` and `skep top`: what happens in a cluster."""

from __future__ import annotations

from skep.cli.options import Parser, Subparsers, command, count, reaches, seconds

KINDS = ("node", "service", "task", "stack", "network", "config", "secret")


def add(commands: Subparsers) -> None:
    """Add them."""
    events = reaches(command(commands, "events", "events.events", "tell what happens, in words"))
    events.add_argument(
        "--since",
        type=count,
        metavar="VERSION",
        help="begin after this version, as far back as 10,000 changes (default: now)",
    )
    events.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="service=, node=, stack= or kind=; of one key any value will do",
    )
    events.add_argument("--format", choices=("table", "json"), default="table")
    _ends(events)
    watch = reaches(
        command(commands, "watch", "events.watch", "show each changed object, as lines of JSON")
    )
    watch.add_argument(
        "--from",
        dest="since",
        type=count,
        metavar="VERSION",
        help="begin after this version (default: now)",
    )
    watch.add_argument("--kind", action="append", default=[], choices=KINDS)
    _ends(watch)
    top = reaches(command(commands, "top", "top.top", "show a cluster's state, live"))
    top.add_argument("--once", action="store_true", help="show it once, as plain text, and end")


def _ends(command: Parser) -> None:
    """Both run until Ctrl-C, or until one of these."""
    command.add_argument(
        "--until",
        "--until-version",
        type=count,
        metavar="VERSION",
        help="end when all changes up to this version have been shown",
    )
    command.add_argument(
        "--for", dest="span_s", type=seconds, metavar="DURATION", help="end after this time"
    )

"""What the command line is built of: commands, groups, and the options that many of them share.

Commands are named as "module.function" in `skep.cli.commands` and loaded only when called.
"""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Callable
from typing import Any

TIMEOUT_S = 60.0
# Docker's other words for the same.
ALIASES = {"ls": ("list",), "rm": ("remove",)}
# More than anything there is to count has.
COUNT_DIGITS = 9
_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Parser = argparse.ArgumentParser
Subparsers = Any


def command(
    parent: Subparsers, name: str, target: str, text: str, *, aliases: tuple[str, ...] = ()
) -> Parser:
    """One command; `target` is what it runs, `aliases` are other names of it."""
    # Scripts outlive releases: an abbreviation that is clear today may not be tomorrow.
    command: Parser = parent.add_parser(
        name,
        aliases=(*ALIASES.get(name, ()), *aliases),
        help=text,
        description=text[0].upper() + text[1:],
        allow_abbrev=False,
    )
    command.set_defaults(run=loader(target))
    return command


def loader(target: str) -> Callable[[argparse.Namespace], None]:
    """Runs a command, loading it first."""

    def run(options: argparse.Namespace) -> None:
        module, _, function = target.partition(".")
        getattr(importlib.import_module(f"skep.cli.commands.{module}"), function)(options)

    return run


def group(parent: Subparsers, name: str, text: str) -> Subparsers:
    """Commands under one word."""
    group = parent.add_parser(name, help=text, description=text[0].upper() + text[1:])
    return group.add_subparsers(metavar="COMMAND", required=True)


def reaches(command: Parser) -> Parser:
    """Options of commands that speak to a cluster."""
    command.add_argument("--cluster", metavar="NAME", help="a local cluster (default: default)")
    command.add_argument(
        "--context", metavar="CONTEXT", help="a cluster by its context: see 'skep context ls'"
    )
    command.add_argument(
        "--managers-address",
        metavar="HOST:PORT,...",
        help="managers of any cluster; without all of these $SKEP_ADDRESS, $SKEP_CONTEXT, the "
        "context in use, then the local cluster",
    )
    return command


def shows(command: Parser) -> Parser:
    """Options of commands that list things."""
    command.add_argument("--format", choices=("table", "json", "yaml"), default="table")
    command.add_argument("-q", "--quiet", action="store_true", help="ids only")
    command.add_argument("--no-trunc", action="store_true", help="whole ids and errors in tables")
    return command


def of_services(command: Parser) -> Parser:
    """For lists of services."""
    return narrowed(command, "name=, id= or label=; several of a key: any of them, but all labels")


def of_tasks(command: Parser) -> Parser:
    """For lists of tasks."""
    return narrowed(command, "name=, id=, node= or desired-state=; several of a key: any of them")


def narrowed(command: Parser, text: str) -> Parser:
    """For lists that a filter narrows; `text` says by what."""
    command.add_argument(
        "-f", "--filter", action="append", default=[], metavar="KEY=VALUE", help=text
    )
    return command


def may_be_stale(command: Parser) -> Parser:
    """For reads that are worth something without a quorum."""
    command.add_argument(
        "--stale", action="store_true", help="what any manager that answers has, perhaps outdated"
    )
    return command


def waits(command: Parser, *, for_updates: bool = False) -> Parser:
    """Options of commands that wait for what they asked for; None is the default timeout of those
    that wait `for_updates`, which are as slow as their policies say."""
    command.add_argument("-d", "--detach", action="store_true", help="don't wait")
    default = "as long as updates may take by their policies" if for_updates else f"{TIMEOUT_S:g}s"
    command.add_argument(
        "--timeout",
        type=seconds,
        default=None if for_updates else TIMEOUT_S,
        metavar="DURATION",
        help=f"how long to wait (default: {default})",
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


def inspects(command: Parser) -> None:
    """For commands that show objects whole."""
    command.add_argument("refs", nargs="+", metavar="REF", help="a name, an id, or its beginning")
    command.add_argument("--format", choices=("json", "yaml"), default="json")


def named(command: Parser) -> None:
    """For commands that are about one local cluster."""
    command.add_argument(
        "--name", "--cluster", dest="cluster", default="default", help="default: default"
    )

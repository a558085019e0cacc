"""The command line as shells have to know it, read off the parser itself. Pure.

What a word may be is a "spec" of one or more parts: "@services" are names that `skep __complete`
knows, "@revisions" those of the service that the first argument names, "/" is a file, "-" is
anything; other parts are the words themselves.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping

import msgspec

FILES = "/"
ANYTHING = "-"

# What the names in capitals, which help texts show, stand for.
_BY_METAVAR: Mapping[str, str] = {
    "SERVICE": "@services",
    "NODE": "@nodes",
    "STACK": "@stacks",
    "TASK": "@tasks",
    "NETWORK": "@networks",
    "CONFIG": "@configs",
    "SECRET": "@secrets",
    "VOLUME": "@volumes",
    "REGISTRY": "@registries",
    "CONTEXT": "@contexts",
    "REVISION": "@revisions",
    "FILE": FILES,
    "FOLDER": FILES,
}
_BY_GROUP: Mapping[tuple[str, str], str] = {
    ("service", "REF"): "@services",
    ("node", "REF"): "@nodes",
    ("network", "REF"): "@networks",
    ("config", "REF"): "@configs",
    ("secret", "REF"): "@secrets",
    ("volume", "REF"): "@volumes",
    ("local", "NAME"): "@processes",
    ("service", "A"): "@revisions",
    ("service", "B"): "@revisions",
}
_BY_DEST: Mapping[str, str] = {
    "cluster": "@clusters",
    "context": "@contexts",
    "managers_address": "@managers",
    "file": FILES,
    "files": FILES,
}


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """An option under all its spellings. An empty `spec`: it takes no value."""

    flags: tuple[str, ...]
    spec: str = ""
    text: str = ""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What may follow after the words of `path`: commands, or options and arguments. Of the
    arguments the last one may come again where `is_many`. `aliases` are other names of commands,
    with the names that are offered."""

    path: str
    aliases: tuple[tuple[str, str], ...] = ()
    commands: tuple[tuple[str, str], ...] = ()
    options: tuple[Option, ...] = ()
    arguments: tuple[str, ...] = ()
    is_many: bool = False


def places(parser: argparse.ArgumentParser, path: str = "") -> Iterator[Place]:
    """Every place of a command line, the outer ones first."""
    commands: list[tuple[str, str]] = []
    aliases: list[tuple[str, str]] = []
    options: list[Option] = []
    arguments: list[str] = []
    is_many = False
    inner: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {each.dest: each.help or "" for each in action._choices_actions}
            names = {action.choices[name]: name for name in texts}
            commands += texts.items()
            aliases += [(n, names[each]) for n, each in action.choices.items() if n not in texts]
            inner += [(f"{path} {name}".strip(), each) for each, name in names.items()]
        elif action.option_strings:
            options.append(
                Option(
                    flags=tuple(action.option_strings),
                    spec="" if action.nargs == 0 else _spec(path, action),
                    text=_text(action),
                )
            )
        elif action.help != argparse.SUPPRESS:
            arguments.append(_spec(path, action))
            is_many = action.nargs in ("*", "+")
    yield Place(
        path=path,
        aliases=tuple(aliases),
        commands=tuple(commands),
        options=tuple(options),
        arguments=tuple(arguments),
        is_many=is_many,
    )
    for below, each in inner:
        yield from places(each, below)


def _spec(path: str, action: argparse.Action) -> str:
    if action.choices is not None:
        return " ".join(map(str, action.choices))
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if re.fullmatch(r"[a-z-]+(?:\|[a-z-]+)+", metavar):
        # Words in small letters are what to type, not what it stands for.
        return metavar.replace("|", " ")
    if metavar.startswith("SERVICE="):
        return "@scale"
    group = path.partition(" ")[0]
    words = re.findall("[A-Z]+", metavar)
    found = [_BY_GROUP.get((group, word)) or _BY_METAVAR.get(word) for word in words]
    known = [each for each in found if each]
    is_option = bool(action.option_strings)
    if is_option and action.dest in _BY_DEST:
        return _BY_DEST[action.dest]
    # "NAME=VALUE" and the like are no names of ours, whatever their first word is.
    return " ".join(dict.fromkeys(known)) if known and "=" not in metavar else ANYTHING


def _text(action: argparse.Action) -> str:
    if not action.help or action.help == argparse.SUPPRESS:
        return ""
    return " ".join((action.help % {"prog": "skep", "default": action.default}).split())

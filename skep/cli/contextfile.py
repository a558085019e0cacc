"""The file of contexts: `$SKEP_CONFIG`, or ~/.config/skep/config.json."""

from __future__ import annotations

import argparse
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from skep.cli import contexts


def path() -> Path:
    """Where the file is, or would be."""
    given = os.environ.get("SKEP_CONFIG")
    return Path(given).absolute() if given else Path.home() / ".config/skep/config.json"


def load() -> contexts.Config:
    """The contexts; none where there is no file. Raises Failure, OSError."""
    try:
        data = path().read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return contexts.Config()
    return contexts.read(data, str(path()))


def change(edit: Callable[[contexts.Config], contexts.Config]) -> None:
    """Load, edit and write as one step: two commands at once lose nothing, and a power cut leaves
    the old file or the new one. Raises Failure, OSError."""
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = os.open(target.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        data = contexts.write(edit(load()))
        temporary = target.with_name(f".{target.name}.new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        temporary.replace(target)
        os.fsync(folder)
    finally:
        os.close(folder)


def target(options: argparse.Namespace) -> contexts.Target:
    """The cluster that a command's options and the environment mean. Raises Failure."""
    given = contexts.Given(
        managers_address=options.managers_address,
        context=options.context,
        cluster=options.cluster,
        env_address=os.environ.get("SKEP_ADDRESS"),
        env_context=os.environ.get("SKEP_CONTEXT"),
    )
    return contexts.choose(given, load)


def suffix(options: argparse.Namespace) -> str:
    """What a command that is shown to the person needs after it, to be about the same cluster as
    this one: what this one was told by options. The rest holds for the next command, too."""
    if options.managers_address:
        return f" --managers-address {options.managers_address}"
    if options.context:
        return f" --context {options.context}"
    return f" --cluster {options.cluster}" if options.cluster else ""

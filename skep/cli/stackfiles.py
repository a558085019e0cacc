"""Reading stack files, and the variables in them, from disk or stdin."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from skep import stackfile
from skep.cli.errors import Exit, Failure
from skep.cli.output import note
from skep.domain.control import STACK_FILE_LIMIT_BYTES
from skep.domain.spec import PROCESS
from skep.domain.storage import CONFIG_LIMIT_BYTES
from skep.stackfile import Reading, ReadStack, StackFileError, StackText

STDIN = "-"
# What a manager's word begins with: a field of the request, of which the file has no such path.
_FIELD = re.compile(
    r"spec\.(service|network)s\[([0-9]+)\]"
    r"(?:\.name|\.ports\[[0-9]+\]\.published|\.task\.networks\[[0-9]+\]\.network"
    r"|\.task\.run\.(?:config|secret)s\[[0-9]+\]\.name)?"
)


def read_stack(
    paths: Sequence[str], name: str, env_files: Sequence[str] = (), engine: str = PROCESS
) -> ReadStack:
    """The stack in files ("-" is stdin), later ones merged over earlier ones. Without `name` it is
    the files' own, or the first file's name without its ending. `engine` runs services that name
    none. Raises Failure."""
    try:
        files, reading = _loaded(paths, name, env_files)
        return stackfile.read(files, replace(reading, default_engine=engine))
    except StackFileError as error:
        raise _failure(error) from None


def raw_stack(paths: Sequence[str], name: str) -> dict[str, Any]:
    """The merged files as plain values, with their variables as they stand. Raises Failure."""
    try:
        files, reading = _loaded(paths, name, (), is_interpolated=False)
        values = stackfile.raw_values(files, reading)
    except StackFileError as error:
        raise _failure(error) from None
    return values


def _failure(error: StackFileError) -> Failure:
    return Failure(str(error), Exit.USAGE, others=error.others)


def _warn(line: str) -> None:
    note(f"skep: warning: {line}")


def _loaded(
    paths: Sequence[str], name: str, env_files: Sequence[str], *, is_interpolated: bool = True
) -> tuple[list[StackText], Reading]:
    """The texts of the files, and how they are to be read."""
    if paths.count(STDIN) > 1:
        raise Failure("'-', which is stdin, can be read only once; name a file", Exit.USAGE)
    first = paths[0]
    folder = Path.cwd() if first == STDIN else Path(first).absolute().parent
    files = []
    for path in paths:
        shown = "stdin" if path == STDIN else path
        files.append(StackText(shown, stackfile.decode(_bytes(path), file=shown)))
    reading = Reading(
        environ=_variables(folder, env_files) if is_interpolated else {},
        name=name,
        fallback_name="" if first == STDIN else Path(first).stem,
        folder=str(folder),
        warn=_warn,
        open=_content,
    )
    return files, reading


def _bytes(path: str) -> bytes:
    # One byte more than allowed is enough for the parser to say that it is too large.
    if path == STDIN:
        return sys.stdin.buffer.read(STACK_FILE_LIMIT_BYTES + 1)
    try:
        with open(path, "rb") as file:
            return file.read(STACK_FILE_LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Failure(f"{path}: {why}", Exit.USAGE) from None


def _content(path: str) -> bytes:
    """A file that a stack file names. Raises OSError. One byte more than allowed is enough for its
    reader to say that it is too large."""
    with open(path, "rb") as file:
        return file.read(CONFIG_LIMIT_BYTES + 1)


def _variables(folder: Path, env_files: Sequence[str]) -> Mapping[str, str]:
    """The shell's variables, before those of the files that were named, the last first; where none
    was, before those of `.env` beside the stack file."""
    found: dict[str, str] = {}
    beside = folder / ".env"
    for path in env_files or ([os.path.relpath(beside)] if beside.is_file() else []):
        text = stackfile.decode(_bytes(path), file=path)
        known = {**found, **os.environ}
        found |= stackfile.read_dotenv(text, file=path, environ=known, warn=_warn)
    return {**found, **os.environ}


def placed(message: str, stack: ReadStack) -> str:
    """A manager's word on a stack, with the place and the name of the service or network instead of
    a path in the request: those are what its reader wrote."""
    found = _FIELD.match(message)
    if found is None:
        return message
    is_service = found.group(1) == "service"
    names = [each.name for each in (stack.spec.services if is_service else stack.spec.networks)]
    if int(found.group(2)) >= len(names):
        return message
    name = names[int(found.group(2))]
    places = stack.places if is_service else stack.network_places
    where = f"{places[name]}: " if name in places else ""
    rest = message[found.end() :].lstrip(".: ")
    return f"{where}{found.group(1)} '{name}': {rest}"

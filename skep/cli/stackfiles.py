"""Reading a stack file from disk or stdin."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from skep import stackfile
from skep.cli.errors import Exit, Failure
from skep.cli.output import note
from skep.domain.control import STACK_FILE_LIMIT_BYTES
from skep.domain.spec import StackSpec


def read_stack(path: str, name: str) -> StackSpec:
    """The stack in a file ("-" is stdin). Without `name` it is the file's own, or the file's name
    without its ending. Raises Rejected, Failure."""
    if path == "-":
        shown, folder, fallback = "stdin", os.getcwd(), ""
        data = sys.stdin.buffer.read(STACK_FILE_LIMIT_BYTES + 1)
    else:
        whole = Path(path).absolute()
        shown, folder, fallback = path, str(whole.parent), whole.stem
        try:
            with open(path, "rb") as file:
                # One byte more than allowed is enough for the parser to say that it is too large.
                data = file.read(STACK_FILE_LIMIT_BYTES + 1)
        except OSError as error:
            raise Failure(f"{path}: {error.strerror or error}", Exit.USAGE) from None
    text = stackfile.decode(data, file=shown)
    return stackfile.parse(
        text,
        file=shown,
        name=name,
        fallback_name=fallback,
        environ=os.environ,
        folder=folder,
        warn=lambda line: note(f"skep: warning: {line}"),
    )


def placed(message: str, spec: StackSpec, path: str) -> str:
    """A manager's word on a stack, with the file and the service instead of a path in the request:
    that is what its reader wrote, and the number of the service is not."""
    found = re.match(r"spec\.services\[([0-9]+)\](?:\.name|\.ports\[[0-9]+\]\.published)?", message)
    if found is None or int(found.group(1)) >= len(spec.services):
        return message
    name = spec.services[int(found.group(1))].name
    rest = message[found.end() :].lstrip(".: ")
    return f"{'stdin' if path == '-' else path}: service '{name}': {rest}"

"""Reading a stack file from disk or stdin."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from skep import stackfile
from skep.cli.output import note
from skep.domain.control import STACK_FILE_LIMIT_BYTES
from skep.domain.spec import StackSpec


def read_stack(path: str, name: str) -> StackSpec:
    """The stack in a file ("-" is stdin). Without `name` it is the file's own, or the file's name
    without its ending. Raises Rejected, OSError."""
    if path == "-":
        shown, folder, fallback = "stdin", os.getcwd(), ""
        data = sys.stdin.buffer.read(STACK_FILE_LIMIT_BYTES + 1)
    else:
        whole = Path(path).absolute()
        shown, folder, fallback = path, str(whole.parent), whole.stem
        with open(path, "rb") as file:
            # One byte more than allowed is enough for the parser to say that it is too large.
            data = file.read(STACK_FILE_LIMIT_BYTES + 1)
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

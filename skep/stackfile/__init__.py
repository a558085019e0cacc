"""Stack files (Compose files as Docker Swarm reads them) to `StackSpec`.

Nothing here touches a disk or the environment: the caller passes the text and the variables. Every
error is a `StackFileError`, which knows the file, the line and the column.
"""

from skep.stackfile.errors import StackFileError
from skep.stackfile.stack import decode, parse

__all__ = ["StackFileError", "decode", "parse"]

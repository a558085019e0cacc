"""Stack files (Compose files as Docker Swarm reads them) to `StackSpec`, and back.

Nothing here touches a disk or the environment: the caller passes the texts and the variables. Every
error is a `StackFileError`, which knows the file, the line and the column.
"""

from skep.stackfile.dotenv import read_dotenv
from skep.stackfile.errors import StackFileError
from skep.stackfile.stack import Reading, ReadStack, StackText, decode, parse, raw_values, read
from skep.stackfile.writer import stack_values

__all__ = [
    "ReadStack",
    "Reading",
    "StackFileError",
    "StackText",
    "decode",
    "parse",
    "raw_values",
    "read",
    "read_dotenv",
    "stack_values",
]

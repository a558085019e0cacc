"""The entry point: parse, run, and end with one clear line and an exit code.

Nothing slow is imported here: each command loads what it needs when it is called.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from skep.cli import parser
from skep.cli.errors import Exit, Failure, as_failure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    # gRPC's own C++ log lines are not for the people who use this command.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _write_anything()
    try:
        options = parser.parse(sys.argv[1:] if arguments is None else arguments)
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        words = "interrupted; what the cluster was told, it goes on with"
        return _end(Failure(words, Exit.INTERRUPTED))
    except BrokenPipeError:
        # The reader of our output (head, less) has had enough. Python flushes stdout at its end
        # once more, and must find it open.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except Exception as error:
        failure = as_failure(error)
        if failure is None:
            if os.environ.get("SKEP_DEBUG"):
                raise
            failure = Failure(
                f"a fault of skep's own: {type(error).__name__}: {error}; set SKEP_DEBUG=1 to see "
                "where, and report it"
            )
        return _end(failure)
    return Exit.OK


def _write_anything() -> None:
    """A terminal that can't show a character gets its number; that is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _end(failure: Failure) -> Exit:
    for each in (str(failure), *failure.others):
        line = " ".join(each.split())
        print(f"skep: error: {line}", file=sys.stderr)
    for line in failure.after():
        print(line, file=sys.stderr)
    return failure.code


if __name__ == "__main__":
    sys.exit(main())

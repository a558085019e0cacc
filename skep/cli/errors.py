"""How the command ends: one line that says what to do next, and an exit code."""

from __future__ import annotations

import enum

from skep.env import Rejected


class Exit(enum.IntEnum):
    """Exit codes. Scripts rely on them."""

    OK = 0
    ERROR = 1
    USAGE = 2
    TIMED_OUT = 3
    UNREACHABLE = 4
    REFUSED = 5
    ROLLED_BACK = 6
    PAUSED = 7
    INTERRUPTED = 130


class Failure(Exception):
    """The command can't go on. The text is one line for a person; `others` are more of them, for
    whoever wants to mend all at once.

    `evidence` are lines that show why, and `steps` commands to type next, each with what it does;
    both follow those lines.
    """

    def __init__(
        self, message: str, code: Exit = Exit.ERROR, *, others: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.others = others
        self.evidence: tuple[str, ...] = ()
        self.steps: tuple[tuple[str, str], ...] = ()

    def after(self) -> list[str]:
        """The lines that follow."""
        room = max((len(command) for command, _ in self.steps), default=0)
        steps = [f"  {command.ljust(room)}   {what}" for command, what in self.steps]
        return [*self.evidence, *(["what next:"] if steps else []), *steps]


def as_failure(error: BaseException) -> Failure | None:
    """What an error means for the command; None for a fault of our own."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, Rejected):
        return Failure(str(error), Exit.USAGE)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Failure(f"{where}{error.strerror or error}")
    # The client is loaded only by commands that use it; so is the list of its errors.
    from skep.client import errors

    codes: tuple[tuple[type[errors.ClientError], Exit], ...] = (
        (errors.InvalidArgument, Exit.USAGE),
        (errors.RolledBack, Exit.ROLLED_BACK),
        (errors.UpdatePaused, Exit.PAUSED),
        (errors.Superseded, Exit.REFUSED),
        (errors.NotConverged, Exit.TIMED_OUT),
        (errors.Unavailable, Exit.UNREACHABLE),
        (errors.OutcomeUnknown, Exit.UNREACHABLE),
        (errors.AlreadyExists, Exit.REFUSED),
        (errors.Conflict, Exit.REFUSED),
        (errors.Refused, Exit.REFUSED),
        (errors.PermissionDenied, Exit.REFUSED),
        (errors.ClientError, Exit.ERROR),
    )
    for kind, code in codes:
        if isinstance(error, kind):
            return Failure(_advised(str(error), error), code)
    return None


def _advised(text: str, error: BaseException) -> str:
    from skep.client import errors

    advice: dict[type[BaseException], str] = {
        errors.Unavailable: "see whether its managers run: skep local ls",
        errors.OutcomeUnknown: "look before you repeat it: skep service ls",
        errors.Conflict: "look at it again, and repeat the command",
    }
    hint = advice.get(type(error))
    return f"{text}; {hint}" if hint else text

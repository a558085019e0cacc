"""What a call to the cluster can end in. Each type stands for one thing that a caller does next."""

from __future__ import annotations

from collections.abc import Mapping

from skep.domain.control import ServiceView
from skep.env import CallError, Code


class ClientError(Exception):
    """Base of all. The text is for a person; `details` are small facts from the server."""

    def __init__(self, message: str, details: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = dict(details or {})


class InvalidArgument(ClientError):
    """The request itself is wrong; `field` is the path of the culprit, where there is one."""

    @property
    def field(self) -> str:
        """Such as "spec.ports[0].target"; empty if the server named none."""
        return self.details.get("field", "")


class NotFound(ClientError):
    """There is no such object."""


class AlreadyExists(ClientError):
    """The name, or the published port, is taken."""


class Conflict(ClientError):
    """Somebody else changed the object since it was read. Read it again and decide anew."""


class Refused(ClientError):
    """The cluster is in no state for this; the text says what must change first."""


class PermissionDenied(ClientError):
    """The caller may not do this."""


class Unavailable(ClientError):
    """No manager could take the call before the deadline. Nothing was done; try again later."""

    @property
    def answered(self) -> str:
        """The address of a manager that answers, though it can't take the call; empty if none."""
        return self.details.get("answered", "")


class OutcomeUnknown(ClientError):
    """The call may or may not have been done: an answer was lost, and no manager could be asked
    again before the deadline. Look before you repeat it."""


class Unsupported(ClientError):
    """This cluster doesn't know the call; it runs an older release."""


class ServerError(ClientError):
    """A fault of the cluster's own; its managers' logs say more."""


class NotConverged(ClientError):
    """Waiting was given up. `views` are the services as last seen."""

    def __init__(self, message: str, views: tuple[ServiceView, ...] = ()) -> None:
        super().__init__(message)
        self.views = views


class GivenUp(ClientError):
    """Waiting longer would be in vain: tasks failed, and the restart policy tries no more. `views`
    are the services as last seen. Change the spec, or force an update."""

    def __init__(self, message: str, views: tuple[ServiceView, ...] = ()) -> None:
        super().__init__(message)
        self.views = views


class RolledBack(ClientError):
    """What was asked for failed, and the spec before it runs again, or is being brought back.
    `views` are the services as last seen."""

    def __init__(self, message: str, views: tuple[ServiceView, ...] = ()) -> None:
        super().__init__(message)
        self.views = views


class UpdatePaused(ClientError):
    """What was asked for failed on the way, and the update waits for a person: update again (also
    without a change), or roll back. `views` are the services as last seen."""

    def __init__(self, message: str, views: tuple[ServiceView, ...] = ()) -> None:
        super().__init__(message)
        self.views = views


class Superseded(ClientError):
    """Somebody else wrote a newer spec, or removed the service, before what was waited for ran.
    `views` are the services as last seen."""

    def __init__(self, message: str, views: tuple[ServiceView, ...] = ()) -> None:
        super().__init__(message)
        self.views = views


_TYPES: dict[Code, type[ClientError]] = {
    Code.INVALID_ARGUMENT: InvalidArgument,
    Code.NOT_FOUND: NotFound,
    Code.ALREADY_EXISTS: AlreadyExists,
    Code.FAILED_PRECONDITION: Refused,
    Code.PERMISSION_DENIED: PermissionDenied,
    Code.ABORTED: Conflict,
    Code.RESOURCE_EXHAUSTED: Unavailable,
    Code.UNAVAILABLE: Unavailable,
    Code.UNKNOWN: OutcomeUnknown,
    Code.DEADLINE_EXCEEDED: OutcomeUnknown,
    Code.UNIMPLEMENTED: Unsupported,
    Code.INTERNAL: ServerError,
}


def from_call(error: CallError) -> ClientError:
    """The typed form of a call's error."""
    return _TYPES[error.code](error.message, error.details)

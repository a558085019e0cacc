"""The typed Python SDK of the control API: what other programs, and the `skep` command, import.

    async with skep.client.connect(["127.32.0.1:4321"]) as cluster:
        service = await cluster.services.create(spec)
        await cluster.wait_converged({service.id: service.revision}, timeout_s=60)
        async for event in cluster.watch():
            ...

Every call has a deadline, goes to another manager when one doesn't answer, and raises a
`ClientError` whose type says what to do: see `skep.client.errors`. Programs without an event
loop take `skep.client.sync`. docs/client.md tells more.
"""

from skep.client.cluster import Cluster, connect
from skep.client.errors import (
    AlreadyExists,
    ClientError,
    Conflict,
    GivenUp,
    InvalidArgument,
    NotConverged,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    Refused,
    RolledBack,
    ServerError,
    Superseded,
    Unavailable,
    Unsupported,
    UpdatePaused,
)

__all__ = [
    "AlreadyExists",
    "ClientError",
    "Cluster",
    "Conflict",
    "GivenUp",
    "InvalidArgument",
    "NotConverged",
    "NotFound",
    "OutcomeUnknown",
    "PermissionDenied",
    "Refused",
    "RolledBack",
    "ServerError",
    "Superseded",
    "Unavailable",
    "Unsupported",
    "UpdatePaused",
    "connect",
]

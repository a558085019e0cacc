"""What the API's errors mean: that it can never work here, or that it may later; in one sentence.

The API has few codes and many texts, which are the same from release to release since people look
them up. What isn't known here is passed on as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from skep.env import Rejected, Retryable

# What the client says of an engine that it can't reach, in place of a status of HTTP.
UNREACHABLE = 900
NOT_FOUND = 404
CONFLICT = 409
NOT_MODIFIED = 304

_NOISE = re.compile(
    r"^(?:failed to create (?:shim task|shim|task for container): )?"
    r"(?:OCI runtime create failed: )?(?:runc create failed: )?"
    r"(?:unable to start container process: )?(?:error during container init: )?"
)


class ApiError(Exception):
    """The engine has answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = text_of(message)


def text_of(message: str) -> str:
    """The words of an answer, which may be JSON."""
    try:
        found = json.loads(message)
        if isinstance(found, dict):
            message = str(found.get("message", message))
    except ValueError:
        pass
    return " ".join(message.split())


def _says(text: str) -> Callable[[re.Match[str]], str]:
    return lambda match: match.expand(text)


# A pattern, the sentence, and whether it may work later. The first that is found counts.
_KNOWN: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str], bool], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), _says(sentence), may_work)
    for pattern, sentence, may_work in (
        (r"no space left on device", "the node's disk is full: no space left on device", True),
        (r"No such image: (\S+)", r"No such image: \1", False),
        (
            r"No command specified",
            "its image names no command to run, and neither does the service: give `command`",
            False,
        ),
        (
            r'exec: "([^"]*)": (?:stat \S+: no such file|executable file not found)',
            r'no program "\1" in its image (exit code 127)',
            False,
        ),
        (
            r'exec: "([^"]*)": permission denied',
            r'"\1" in its image may not be executed (exit code 126)',
            False,
        ),
        (
            r'exec: "([^"]*)": is a directory',
            r'"\1" in its image is a folder (exit code 126)',
            False,
        ),
        (
            r"exec format error",
            "its image is for another architecture than this node's: exec format error",
            False,
        ),
        (
            r"unable to find user ([^:]+): ",
            r"there is no user \1 in its image",
            False,
        ),
        (
            r"unable to find group ([^:]+): ",
            r"there is no group \1 in its image",
            False,
        ),
        (
            r"Unknown runtime specified skep|unknown or invalid runtime name: skep",
            "dockerd doesn't know Skep's runtime: run `skep node setup-docker` on this node",
            False,
        ),
        (
            r"cgroup-parent for systemd cgroup",
            "dockerd keeps control groups by systemd, where containers can't have virtual "
            "addresses by BPF: start this node's netproxy with `--vip nft`",
            False,
        ),
        (
            r"(?:Unknown runtime specified|unknown or invalid runtime name:) (\S+)",
            r"dockerd has no runtime \1",
            False,
        ),
        (
            r"bind source path does not exist: (\S+)",
            r"there is no \1 on this node to mount",
            False,
        ),
        (
            r"error looking up volume plugin ([^:]+): ",
            r"there is no volume driver \1 on this node",
            False,
        ),
        (
            r"error looking up logging plugin ([^:]+): ",
            r"there is no log driver \1 on this node",
            False,
        ),
        (
            r'could not select device driver "([^"]*)" with capabilities: (\S+)',
            r'this node has no device driver "\1" with capabilities \2',
            False,
        ),
        (
            r'(?:gathering device information|error gathering device).*"([^"]+)"',
            r"there is no device \1 on this node",
            False,
        ),
        (
            r"exec(?:utable file)? \S*docker-init\S* .*not found|docker-init.*no such file|"
            r'exec: "docker-init": executable file not found',
            "dockerd has no docker-init program, which `init: true` needs",
            False,
        ),
        (
            r"(?:port is already allocated|address already in use)",
            "a port that it publishes is taken on this node",
            True,
        ),
        (
            r"network (\S+) not found",
            r"Docker has no network \1 on this node",
            False,
        ),
        (
            r"(?:unauthorized|authentication required|denied: requested access|no basic auth)",
            "the registry asks for a login, or refuses the one it was given",
            False,
        ),
    )
)


def unreachable(url: str, why: str) -> Retryable:
    """Nobody answers there."""
    return Retryable(f"the Docker engine does not answer at {url}: {why}")


def refusal(error: ApiError, doing: str) -> Rejected | Retryable:
    """An error of the API as what the agent must do; `doing` begins the sentence for those that
    aren't known: "starting it"."""
    for pattern, sentence, may_work_later in _KNOWN:
        found = pattern.search(error.message)
        if found is not None:
            text = sentence(found)
            return Retryable(text) if may_work_later else Rejected(text)
    text = f"{doing}: {_NOISE.sub('', error.message).removesuffix(': unknown')}"
    # What a client did wrong stays wrong. A server's own trouble may pass; but a container that
    # can't be set up is reported in that way too.
    if error.status in (400, 403, NOT_FOUND, CONFLICT) or "OCI runtime" in error.message:
        return Rejected(text)
    return Retryable(text)

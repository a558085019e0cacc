"""Whether to pull an image, how far a pull is, and what its failure means."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import msgspec

from skep.domain.container import PullPolicy
from skep.domain.imagename import DOCKER_HUB, ImageName
from skep.domain.session import GivenLogin
from skep.env import Rejected, Retryable

_MEGABYTE = 1_000_000
# As much as a line of a table can hold of what an engine says.
WHY_LIMIT = 300


class DiskFull(Retryable):
    """There is no space for an image on this node."""


class Choice(enum.Enum):
    """What to do for an image."""

    USE = "use what is here"
    PULL = "ask its registry"
    REFUSE = "not here, and not to be pulled"


def choose(policy: PullPolicy, *, is_here: bool, is_pinned: bool) -> Choice:
    """What to do for an image that this node has or lacks. Where a digest pins its content, what is
    here is what would come from the registry, and there is no need to ask."""
    if is_here and (is_pinned or policy is not PullPolicy.ALWAYS):
        return Choice.USE
    return Choice.REFUSE if policy is PullPolicy.NEVER else Choice.PULL


# ------------------------------------------------------------------------------------ progress


class _Detail(msgspec.Struct, frozen=True):
    current: int = 0
    total: int = 0


class PullLine(msgspec.Struct, frozen=True):
    """One line of what an engine says while it pulls: of one layer (`id`), or of all."""

    status: str = ""
    id: str = ""
    progress_detail: _Detail | None = msgspec.field(name="progressDetail", default=None)
    error: str = ""


def read_line(line: bytes) -> PullLine:
    """Read one line. Raises msgspec.DecodeError."""
    return msgspec.json.decode(line, type=PullLine)


@dataclass
class _Layer:
    current: int = 0
    total: int = 0
    is_loaded: bool = False
    is_waiting: bool = True


@dataclass
class Progress:
    """How far the pull of one image is. Sizes are bytes as they travel; a layer's is known once its
    download has begun."""

    image: str
    _layers: dict[str, _Layer] = field(default_factory=dict)

    def take(self, line: PullLine) -> None:
        """Note what one line says."""
        if not line.id:
            return
        detail = line.progress_detail or _Detail()
        match line.status:
            case "Pulling fs layer" | "Waiting":
                self._layers.setdefault(line.id, _Layer())
            case "Downloading":
                layer = self._layers.setdefault(line.id, _Layer())
                layer.is_waiting = False
                layer.current, layer.total = detail.current, max(detail.total, detail.current)
            case "Verifying Checksum" | "Download complete" | "Extracting" | "Pull complete":
                layer = self._layers.setdefault(line.id, _Layer())
                layer.is_waiting, layer.is_loaded = False, True
                layer.current = layer.total
            case _:
                pass  # "Already exists", "Pulling from ...": nothing is loaded for it.

    @property
    def words(self) -> str:
        """For a person: "pulling nginx:1.25: 34 % of 120 MB"."""
        layers = self._layers.values()
        total = sum(layer.total for layer in layers)
        done = sum(layer.current for layer in layers)
        waiting = sum(layer.is_waiting for layer in layers)
        if layers and all(layer.is_loaded for layer in layers):
            size = f" {_megabytes(total)}" if total else ""
            return f"pulling {self.image}: unpacking{size}"
        if not total:
            return f"pulling {self.image}"
        more = f" and {waiting} more layers" if waiting > 1 else " and 1 more layer"
        rest = more if waiting else ""
        return f"pulling {self.image}: {100 * done // total} % of {_megabytes(total)}{rest}"


def _megabytes(size: int) -> str:
    return f"{size / _MEGABYTE:.0f} MB" if size >= 10 * _MEGABYTE else f"{size / _MEGABYTE:.1f} MB"


# ------------------------------------------------------------------------------------ failures

# What engines say, in small letters. They pass on what registries say, so that only words are there
# to go by; the first kind that fits is taken.
_NO_SPACE = ("no space left on device", "disk quota exceeded")
_WRONG_PLATFORM = (
    "no matching manifest for",
    "no match for platform",
    "does not match the specified platform",
    "cannot be used on this platform",
    "choosing an image from manifest list",
)
_DENIED = (
    "unauthorized",
    "authentication required",
    "no basic auth credentials",
    "access denied",
    "access to the resource is denied",
    "denied:",
    "invalid username/password",
    "incorrect username or password",
    "403 forbidden",
)
_MISSING = ("manifest unknown", "not found", "name unknown", "no such image", "unknown manifest")
_BUSY = ("toomanyrequests", "too many requests", "http 429")
_NO_TLS = ("server gave http response to https client", "x509:", "certificate")
_UNREACHED = (
    "dial tcp",
    "no such host",
    "connection refused",
    "connection reset",
    "network is unreachable",
    "i/o timeout",
    "timeout",
    "deadline exceeded",
    "request canceled",
    ": eof",
    "unexpected eof",
    "unexpected http status: 5",
    "unexpected status code 5",
    "error parsing http 5",
    "server misbehaving",
)


def failure(said: str, image: ImageName, login: GivenLogin | None) -> Rejected | Retryable:
    """The error that a failed pull, or question about an image, is: which words an engine `said`
    decide. What only a change elsewhere can mend is Rejected, so that another node is tried."""
    # A repository may have any of these words as its name.
    low = said.lower().replace(image.repository, "")
    if image.tag:
        low = low.replace(f":{image.tag.lower()}", "").replace(f"/{image.tag.lower()}", "")
    server = image.server
    what = f'image "{image.familiar}"'
    if _has(low, _NO_SPACE):
        return DiskFull(f"{what}: no space left on this node's disk: {_short(said)}")
    if _has(low, _WRONG_PLATFORM):
        return Rejected(f"{what} is not made for this node's architecture: {_short(said)}")
    if _has(low, _BUSY):
        return Retryable(f"{what}: registry {server} wants fewer requests: {_short(said)}")
    if _has(low, _DENIED):
        return _denied(what, server, login, said)
    if _has(low, _NO_TLS):
        return Retryable(f"{what}: registry {server} can't be trusted: {_short(said)}")
    if _has(low, _MISSING):
        return Rejected(f"{what}: registry {server} has no such image")
    if _has(low, _UNREACHED):
        return Retryable(f"{what}: registry {server} can't be reached: {_short(said)}")
    return Retryable(f"{what}: {_short(said)}")


def _denied(what: str, server: str, login: GivenLogin | None, said: str) -> Rejected | Retryable:
    if login is not None:
        return Rejected(
            f"{what}: registry {server} refuses the login of {login.username!r}, or lets it not "
            f"have this; `skep registry login {server}` takes another: {_short(said)}"
        )
    # A login may be on its way: after an agent's start logins come with the first leader's word.
    absent = "there is no such image, or it " if server == DOCKER_HUB else "it "
    return Retryable(f"{what}: {absent}needs a login: skep registry login {server}")


def _has(low: str, words: tuple[str, ...]) -> bool:
    return any(word in low for word in words)


def _short(said: str) -> str:
    line = " ".join(said.split())
    return line if len(line) <= WHY_LIMIT else f"{line[: WHY_LIMIT - 1]}…"

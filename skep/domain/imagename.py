"""Names of images, read by Docker's rules (github.com/distribution/reference).

The first part of a name is a registry's server if it has a dot or a colon in it, is "localhost",
or has capitals, which no repository may have; otherwise the whole name is one of docker.io's.
There, names without a slash are under "library/". "index.docker.io" is an old word for "docker.io".
"""

from __future__ import annotations

import re

from skep.domain.base import Struct
from skep.env import Rejected

DOCKER_HUB = "docker.io"
_OLD_DOCKER_HUB = "index.docker.io"
_OFFICIAL = "library/"
DEFAULT_TAG = "latest"
# Docker's limit for server and repository together.
NAME_LIMIT = 255

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_SERVER = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")


class ImageName(Struct, frozen=True, kw_only=True):
    """The parts of an image's name. `server` is where logins are looked up: "docker.io",
    "registry.example.com:5000". `tag` is "" only where there is a `digest` ("sha256:...")."""

    server: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Server and repository, without tag and digest."""
        return f"{self.server}/{self.repository}"

    @property
    def text(self) -> str:
        """All of it, such as "docker.io/library/nginx:1.25@sha256:..."."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def familiar(self) -> str:
        """As people write it: "nginx:1.25"."""
        name = self.name if self.server != DOCKER_HUB else self.repository.removeprefix(_OFFICIAL)
        return self.text.replace(self.name, name, 1)


def parse_image(text: str) -> ImageName:
    """The parts of a name such as "nginx", "registry.example.com:5000/team/app:2" or
    "app@sha256:...". Raises Rejected for what is no image's name."""
    rest, has_digest, digest = text.partition("@")
    if has_digest and not _DIGEST.fullmatch(digest):
        raise _refusal(text, f"{digest!r} is no digest, such as sha256:<64 hexadecimal digits>")
    server, repository = _split(rest)
    repository, has_tag, tag = repository.partition(":")
    if has_tag and not _TAG.fullmatch(tag):
        raise _refusal(text, f"{tag!r} is no tag")
    if not _SERVER.fullmatch(server):
        raise _refusal(text, f"{server!r} is no address of a registry")
    if server == DOCKER_HUB and repository and "/" not in repository:
        repository = _OFFICIAL + repository
    if not _REPOSITORY.fullmatch(repository):
        why = "names are in lower-case letters, digits and single . _ - between them"
        raise _refusal(text, why)
    if len(server) + 1 + len(repository) > NAME_LIMIT:
        raise _refusal(text, f"it is longer than {NAME_LIMIT} characters")
    if not tag and not digest:
        tag = DEFAULT_TAG
    return ImageName(server=server, repository=repository, tag=tag, digest=digest)


def registry_of(text: str) -> str:
    """The server that an image's name points to; "" for what is no image's name."""
    try:
        return parse_image(text).server
    except Rejected:
        return ""


def _split(name: str) -> tuple[str, str]:
    """Server and the rest of a name without its digest."""
    first, slash, rest = name.partition("/")
    is_server = "." in first or ":" in first or first == "localhost" or first.lower() != first
    if not slash or not is_server:
        return DOCKER_HUB, name
    return (DOCKER_HUB if first == _OLD_DOCKER_HUB else first), rest


def _refusal(text: str, why: str) -> Rejected:
    return Rejected(f"{text!r} is no image's name: {why}")

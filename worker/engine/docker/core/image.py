"""What an image brings along, as an engine tells it."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from skep.domain.base import Pairs, Struct, pairs
from skep.domain.imagename import ImageName, parse_image
from skep.domain.spec import HealthCheck
from skep.env import Rejected

# What a machine runs besides what it is itself, by the names that Go and Docker have for these.
_RUNS_TOO = {"amd64": {"386"}, "arm64": {"arm"}}
# The same machines by the names that the kernel and QEMU have for them.
_ALIASES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i686": "386",
    "armv7l": "arm",
    "armv6l": "arm",
    "armhf": "arm",
}
_QEMU = "qemu-"


class ImageFacts(Struct, frozen=True, kw_only=True):
    """An image that this node has.

    `id` is its content's; `reference` is a name that leads to this very image. `digest` is what its
    registry calls it, "" if it never was in that one. `entrypoint` and `command` are what runs
    where a service says nothing; `exposed` are ports such as "80/tcp", `volumes` paths that want
    one. `health` is the image's own test; () as its test says that there is none.
    """

    id: str
    reference: str
    digest: str = ""
    os: str = ""
    architecture: str = ""
    size_bytes: int = 0
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    exposed: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Pairs = ()
    health: HealthCheck | None = None


class _Health(msgspec.Struct, frozen=True, rename="pascal"):
    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class _Config(msgspec.Struct, frozen=True, rename="pascal"):
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] | None = None
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    exposed_ports: dict[str, object] | None = None
    volumes: dict[str, object] | None = None
    labels: dict[str, str] | None = None
    healthcheck: _Health | None = None


class _Inspected(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    repo_tags: list[str] | None = None
    repo_digests: list[str] | None = None
    os: str = ""
    architecture: str = ""
    size: int = 0
    config: _Config | None = None


def facts_of(inspected: bytes, wanted: ImageName) -> ImageFacts:
    """Read what GET /images/{name}/json says of the image that was `wanted`. Raises
    msgspec.DecodeError for what is no such answer."""
    image = msgspec.json.decode(inspected, type=_Inspected)
    config = image.config or _Config()
    digest = _digest(image.repo_digests or (), wanted)
    return ImageFacts(
        id=image.id,
        reference=wanted.familiar,
        digest=digest,
        os=image.os,
        architecture=image.architecture,
        size_bytes=image.size,
        entrypoint=tuple(config.entrypoint or ()),
        command=tuple(config.cmd or ()),
        env=tuple(config.env or ()),
        user=config.user,
        working_dir=config.working_dir,
        stop_signal=config.stop_signal,
        exposed=tuple(sorted(config.exposed_ports or ())),
        volumes=tuple(sorted(config.volumes or ())),
        labels=pairs(config.labels or {}),
        health=_health(config.healthcheck),
    )


def _digest(digests: Collection[str], wanted: ImageName) -> str:
    """Under which of its names it is the wanted repository's: an image may be in several."""
    found = []
    for text in digests:
        try:
            name = parse_image(text)
        except Rejected:
            continue  # "<none>@<none>"
        if name.name == wanted.name:
            found.append(name.digest)
    return wanted.digest if wanted.digest in found else next(iter(found), "")


def _health(said: _Health | None) -> HealthCheck | None:
    """An absent or zero part is Docker's default, which is ours too."""
    if said is None or not said.test or said.test[0] == "":
        return None
    if said.test[0] == "NONE":
        return HealthCheck(test=("NONE",))
    plain = HealthCheck()
    return HealthCheck(
        test=tuple(said.test),
        interval_ns=said.interval or plain.interval_ns,
        timeout_ns=said.timeout or plain.timeout_ns,
        start_period_ns=said.start_period,
        start_interval_ns=said.start_interval or plain.start_interval_ns,
        retries=said.retries or plain.retries,
    )


def runs_on(image_architecture: str, node_architecture: str, handlers: Collection[str]) -> bool:
    """Whether a node can run an image of this architecture. `handlers` are the names of the node's
    interpreters for other machines' programs, such as "qemu-aarch64"."""
    image, node = _common(image_architecture), _common(node_architecture)
    if not image or not node or image == node or image in _RUNS_TOO.get(node, ()):
        return True
    return any(_common(name.removeprefix(_QEMU)) == image for name in handlers)


def _common(architecture: str) -> str:
    return _ALIASES.get(architecture, architecture)

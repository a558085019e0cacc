"""Which images and containers of a node are nobody's any more.

Of images, only those are looked at that came by a pull of Skep's and weren't there before: what
people pulled or built themselves is theirs. Names that people gave such an image later stay, and
the image with them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec

from skep.domain.base import SECOND_NS, Struct, replace
from skep.domain.imagename import ImageName, parse_image
from skep.env import Rejected

RECORD_FORMAT = 1
# A task that has an image has no container yet: it is attached to networks, waits for its turn.
LEAST_UNUSED_S = 600.0
# Whoever made such a container may still be about to note that.
ORPHAN_AGE_S = 600.0
# Nodes have some hundred images; more than this in a record is one image that comes again and again
# under ids that others remove.
RECORD_LIMIT = 10_000
_ENDED = ("exited", "dead", "created")


class CleanupPolicy(Struct, frozen=True, kw_only=True):
    """How long images that no container uses are kept, in seconds, and from how many percent of the
    disk on those that were used least recently go at once. 0 means never, for either."""

    unused_s: float = 24 * 3600.0
    disk_percent: int = 85


class PulledImage(Struct, frozen=True, kw_only=True):
    """An image that Skep has pulled: its id, the names it was pulled by, and when it was last seen
    in use, in wall time."""

    id: str
    names: tuple[str, ...]
    used_ns: int
    size_bytes: int = 0


class ImageRecord(Struct, frozen=True, kw_only=True):
    """All of them, as kept on disk."""

    format: int = RECORD_FORMAT
    images: tuple[PulledImage, ...] = ()


class LocalImage(msgspec.Struct, frozen=True, rename="pascal"):
    """One image in an engine's listing."""

    id: str
    repo_tags: list[str] | None = None
    repo_digests: list[str] | None = None
    size: int = 0


class LocalContainer(msgspec.Struct, frozen=True, rename="pascal"):
    """One container in an engine's listing. `created` is in seconds of wall time."""

    id: str
    image_i_d: str = msgspec.field(name="ImageID", default="")
    state: str = ""
    created: int = 0
    labels: dict[str, str] | None = None


@dataclass(frozen=True)
class Removal:
    """An image that goes, by these of its names (or by its id, if it has none at all)."""

    image: PulledImage
    names: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Plan:
    """What is to go now; and what of the rest, in this order, while the disk is too full."""

    record: ImageRecord
    removals: tuple[Removal, ...]
    spare: tuple[Removal, ...]


def read_record(data: bytes | None) -> ImageRecord:
    """The record in a file; an empty one for none, or for one that can't be read: what isn't known
    to be Skep's is left alone."""
    if data is None:
        return ImageRecord()
    try:
        record = msgspec.json.decode(data, type=ImageRecord)
    except msgspec.DecodeError:
        return ImageRecord()
    return record if record.format <= RECORD_FORMAT else ImageRecord()


def write_record(record: ImageRecord) -> bytes:
    """The other way round."""
    return msgspec.json.encode(record)


def with_pulled(record: ImageRecord, pulled: PulledImage) -> ImageRecord:
    """Note a pull; an image that came by another name before has both."""
    others = [image for image in record.images if image.id != pulled.id]
    for image in record.images:
        if image.id == pulled.id:
            names = tuple(sorted({*image.names, *pulled.names}))
            pulled = replace(pulled, names=names, used_ns=max(pulled.used_ns, image.used_ns))
    newest = sorted((*others, pulled), key=lambda image: image.used_ns)[-RECORD_LIMIT:]
    return ImageRecord(images=tuple(sorted(newest, key=lambda image: image.id)))


def with_used(record: ImageRecord, used: Collection[str], wall_ns: int) -> ImageRecord:
    """Note that these images (by id) are in use now."""
    return ImageRecord(
        images=tuple(
            replace(image, used_ns=max(wall_ns, image.used_ns)) if image.id in used else image
            for image in record.images
        )
    )


def plan(
    record: ImageRecord,
    policy: CleanupPolicy,
    wall_ns: int,
    images: Iterable[LocalImage],
    containers: Iterable[LocalContainer],
) -> Plan:
    """Decide about images. Those that anybody's container uses, also one that has ended, stay."""
    used = {container.image_i_d for container in containers}
    record = with_used(record, used, wall_ns)
    local = {image.id: image for image in images}
    # What others have removed is no business of ours any more.
    record = ImageRecord(images=tuple(image for image in record.images if image.id in local))
    removals, spare = [], []
    for image in sorted(record.images, key=lambda image: (image.used_ns, image.id)):
        unused_s = (wall_ns - image.used_ns) / SECOND_NS
        if image.id in used or unused_s < LEAST_UNUSED_S:
            continue
        names = _own_names(image, local[image.id])
        if names is None:
            continue
        why = f"unused for {_duration(unused_s)}"
        if policy.unused_s and unused_s >= policy.unused_s:
            removals.append(Removal(image, names, why))
        elif policy.disk_percent:
            spare.append(Removal(image, names, f"{why}, and the disk is full"))
    return Plan(record, tuple(removals), tuple(spare))


def without(record: ImageRecord, removed: Collection[str]) -> ImageRecord:
    """Forget images (by id)."""
    return ImageRecord(images=tuple(image for image in record.images if image.id not in removed))


def is_full(used_bytes: int, total_bytes: int, policy: CleanupPolicy) -> bool:
    """Whether a disk is fuller than it should be."""
    return bool(policy.disk_percent) and used_bytes * 100 > total_bytes * policy.disk_percent


def orphans(
    containers: Iterable[LocalContainer],
    node: tuple[str, str],
    tasks: Collection[str],
    task_label: str,
    wall_ns: int,
) -> list[str]:
    """Containers with this node's label (name and value) that have ended, or never began, and that
    belong to no task that is known; by id."""
    label, node_id = node
    found = []
    for container in containers:
        labels = container.labels or {}
        is_old = wall_ns / SECOND_NS - container.created > ORPHAN_AGE_S
        is_ours = labels.get(label) == node_id and task_label in labels
        if is_ours and is_old and container.state in _ENDED and labels[task_label] not in tasks:
            found.append(container.id)
    return sorted(found)


def _own_names(image: PulledImage, local: LocalImage) -> tuple[str, ...] | None:
    """The names that it has by our pulls; () where it has none of anybody's, and None where all
    that it has are other people's."""
    pulled = [name for text in image.names if (name := _parsed(text)) is not None]
    tags = {(name.name, name.tag) for name in pulled if not name.digest}
    repositories = {name.name for name in pulled}
    own, others = [], 0
    for text in (*(local.repo_tags or ()), *(local.repo_digests or ())):
        name = _parsed(text)
        if name is None:
            continue  # "<none>:<none>"
        is_own = name.name in repositories and (name.digest or (name.name, name.tag) in tags)
        if is_own:
            own.append(text)
        else:
            others += 1
    return tuple(own) if own or not others else None


def _parsed(text: str) -> ImageName | None:
    try:
        return parse_image(text)
    except Rejected:
        return None


def _duration(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours >= 1 else f"{seconds / 60:.0f} min"

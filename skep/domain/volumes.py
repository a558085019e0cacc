"""Which volumes live on single nodes, and what they are called for one slot of a service."""

from __future__ import annotations

from collections.abc import Iterator

from skep.domain.base import NodeId, Pairs, lookup, replace
from skep.domain.objects import Task, Volume
from skep.domain.spec import ServiceSpec
from skep.domain.storage import Mount, MountKind
from skep.domain.templates import TemplateValues, expand
from skep.env import Rejected

# Drivers that keep data on the node that made the volume. What other drivers do isn't known here:
# most exist because they don't.
_NODE_DRIVERS = ("", "local")
# File systems that the local driver can mount on any node.
_SHARED_TYPES = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "glusterfs", "ceph", "lustre"})
_SHARED_TYPES |= {"fuse.glusterfs", "fuse.sshfs", "beegfs", "9p", "afs"}


def is_node_local(mount: Mount) -> bool:
    """Whether a mount is a named volume whose content is on one node alone."""
    if mount.kind is not MountKind.VOLUME or not mount.source:
        return False
    return mount.driver in _NODE_DRIVERS and not _is_shared(mount.driver_options)


def _is_shared(options: Pairs) -> bool:
    """Whether the local driver is told to mount what another machine serves."""
    kind = (lookup(options, "type") or "").strip().lower()
    if kind in _SHARED_TYPES:
        return True
    words = (lookup(options, "o") or "").split(",")
    return any(word.strip().lower().startswith("addr=") for word in words)


def slot_volumes(spec: ServiceSpec, task: Task, stack: str) -> Iterator[tuple[str, Mount]]:
    """The node-local volumes of a task's slot, by name. One whose name differs from task to task
    or from node to node isn't the slot's, and not among them."""
    for mount in spec.task.run.mounts:
        if not is_node_local(mount):
            continue
        name = _slot_name(mount.source, _values(spec, task, stack))
        if name:
            yield name, mount


def _slot_name(source: str, values: TemplateValues) -> str:
    """The name for one slot, whatever task of it runs wherever; "" where there is none."""
    if "{{" not in source:
        return source
    elsewhere = replace(
        values,
        task_id="another",
        task_name="another",
        task_address="another",
        node_id="another",
        node_hostname="another",
        node_address="another",
        node_os="another",
        node_arch="another",
    )
    try:
        name = expand(source, values, "source")
        return name if expand(source, elsewhere, "source") == name else ""
    except Rejected:
        # The task's node will say what is wrong with it.
        return ""


def _values(spec: ServiceSpec, task: Task, stack: str) -> TemplateValues:
    return TemplateValues(
        task_slot=str(task.slot),
        service_id=task.service_id,
        service_name=task.service_name,
        service_labels=spec.labels,
        stack_name=stack,
    )


def without_node(volume: Volume, node_id: NodeId) -> Volume:
    """The volume once a node is gone for good."""
    left = tuple(place for place in volume.places if place.node_id != node_id)
    return volume if left == volume.places else replace(volume, places=left)

"""Named volumes that live on single nodes: what is known of them, and forgetting it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from skep.domain.control import RemoveRequest, RemoveResponse
from skep.domain.filecalls import VolumeView
from skep.domain.objects import Service, Volume
from skep.domain.spec import ServiceSpec
from skep.domain.storage import MountKind
from skep.env import CallError, Code
from skep.manager.control.core.find import find
from skep.manager.control.core.users import told
from skep.manager.store.core.tables import View
from skep.manager.store.core.transaction import Transaction

_TEMPLATE = re.compile(r"\{\{.*?\}\}", re.DOTALL)


def remove_volume(tx: Transaction, request: RemoveRequest) -> RemoveResponse:
    """Forget where a volume was that no service uses. What is in it stays on those nodes."""
    row = find(tx, Volume, request.ref)
    users = [
        service.name
        for service in tx.all(Service)
        if not service.is_removing and uses(service.spec, row.name)
    ]
    if users:
        raise CallError(
            Code.FAILED_PRECONDITION,
            f"volume {row.name!r} is used by {told(users)}; remove them, or take it out of their "
            "specs first",
        )
    tx.remove(Volume, row.id)
    return RemoveResponse(id=row.id, name=row.name)


def volume_views(view: View, rows: Iterable[Volume]) -> tuple[VolumeView, ...]:
    """Volumes and who uses them."""
    services = sorted(view.all(Service), key=lambda row: (row.name, row.id))
    return tuple(
        VolumeView(
            volume=row,
            services=tuple(each.name for each in services if uses(each.spec, row.name)),
        )
        for row in rows
    )


def uses(spec: ServiceSpec, volume: str) -> bool:
    """Whether a service's tasks may mount the volume: by its name, or by templates that may come
    to it."""
    sources = {
        mount.source
        for mount in spec.task.run.mounts
        if mount.kind is MountKind.VOLUME and mount.source
    }
    return volume in sources or any(_may_be(source, volume) for source in sources)


def _may_be(source: str, volume: str) -> bool:
    parts = _TEMPLATE.split(source)
    return len(parts) > 1 and bool(re.fullmatch(".+".join(map(re.escape, parts)), volume))

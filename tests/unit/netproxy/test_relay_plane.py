"""The relay as a whole data plane: what it takes tasks for, and what it doesn't."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from skep.domain.attach import AttachRequest
from skep.domain.base import NetworkId, ServiceId, TaskId
from skep.domain.endpoints import NetworkEntry
from skep.domain.objects import Attachment
from skep.env import Retryable
from skep.netproxy.adapters.relay import Relay
from skep.netproxy.adapters.relayplane import RelayPlane
from skep.netproxy.core.world import World
from skep.netproxy.dataplane import Joined

NET = NetworkId("net")


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_task_on_an_encrypted_network_is_refused(is_encrypted: bool) -> None:
    entry = NetworkEntry(
        network_id=NET, name="back", vni=9, subnet="10.0.1.0/24", is_encrypted=is_encrypted
    )
    request = AttachRequest(
        task_id=TaskId("t1"),
        service_id=ServiceId("s"),
        service_name="web",
        attachments=(Attachment(network_id=NET, address="10.0.1.2"),),
    )
    # It is not asked for anything.
    plane = RelayPlane(cast("Relay", None), block=32, node_number=1, dns_port=53)
    attaching = plane.attach(request, World(networks={NET: entry}))
    if not is_encrypted:
        assert asyncio.run(attaching) == Joined()
        return
    with pytest.raises(Retryable, match=r"back is encrypted, .* it is in user space"):
        asyncio.run(attaching)

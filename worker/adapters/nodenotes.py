"""What this node's netproxy says of the network, for the node's description.

Both start at the same moment. It is waited for a little, so that the first registration has it all
already; without a netproxy a node is registered all the same, and its notes say so.
"""

from __future__ import annotations

import logging

from skep.api import codec
from skep.domain.attach import FactsRequest, FactsResponse
from skep.domain.base import Pairs
from skep.env import CallError, Code, Env

log = logging.getLogger(__name__)

METHOD = "skep.v1.Attach/Facts"
# A fraction of the silence after which a node counts as lost: its tasks wait for the agent.
PATIENCE_S = 2.0
PAUSE_S = 0.1
NOTE = "network.plane"


async def network_notes(env: Env, address: str) -> Pairs:
    """The notes of the netproxy at `address` ("unix:/path"); none where there is no address, or
    where its release has none."""
    if not address:
        return ()
    gives_up_at = env.now() + PATIENCE_S
    channel = env.transport.channel(address)
    try:
        while (left_s := gives_up_at - env.now()) > 0:
            try:
                data = await channel.call(METHOD, codec.encode(FactsRequest()), deadline_s=left_s)
                return codec.decode(FactsResponse, data).notes
            except CallError as error:
                if error.code is Code.UNIMPLEMENTED:
                    return ()
                why = error.message
            await env.clock.sleep(PAUSE_S)
    finally:
        await channel.close()
    log.warning("notes=incomplete why=%r", why)
    return ((NOTE, f"not known: netproxy did not answer in {PATIENCE_S:g} s after the start"),)

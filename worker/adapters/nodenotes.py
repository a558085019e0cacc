"""What this node's netproxy says of the network, for the node's description.

Both start at the same moment. It is waited for a little, so that the first registration has it all
already; without a netproxy a node is registered all the same, and its notes say so. It is asked
again and again: one that starts later, or that can do more than the one before it, is heard, and
one that is silent takes nothing back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from skep.api import codec
from skep.domain.attach import FactsRequest, FactsResponse
from skep.domain.base import Pairs
from skep.env import CallError, Code, Env, Rejected

log = logging.getLogger(__name__)

METHOD = "skep.v1.Attach/Facts"
# A fraction of the silence after which a node counts as lost: its tasks wait for the agent.
PATIENCE_S = 2.0
PAUSE_S = 0.1
# One call on a unix socket, for news that a person is waiting for at most.
PERIOD_S = 5.0
NOTE = "network.plane"


async def network_notes(env: Env, address: str) -> Pairs:
    """The notes of the netproxy at `address` ("unix:/path"); none where there is no address, or
    where its release has none."""
    if not address:
        return ()
    gives_up_at = env.now() + PATIENCE_S
    why = ""
    while (left_s := gives_up_at - env.now()) > 0:
        try:
            return await _asked(env, address, left_s)
        except (CallError, Rejected) as error:
            why = str(error)
        await env.clock.sleep(PAUSE_S)
    log.warning("notes=incomplete why=%r", why)
    return ((NOTE, f"not known: netproxy did not answer in {PATIENCE_S:g} s after the start"),)


async def follow_notes(
    env: Env, address: str, told: Pairs, on_news: Callable[[Pairs], None]
) -> None:
    """Go on asking, and say when the notes are no longer those that were `told`."""
    while address:
        await env.clock.sleep(PERIOD_S)
        try:
            notes = await _asked(env, address, PATIENCE_S)
        except (CallError, Rejected):
            continue
        if notes != told:
            log.info("notes=changed")
            told = notes
            on_news(notes)


async def _asked(env: Env, address: str, deadline_s: float) -> Pairs:
    """Raises CallError where nobody answers."""
    channel = env.transport.channel(address)
    try:
        data = await channel.call(METHOD, codec.encode(FactsRequest()), deadline_s=deadline_s)
    except CallError as error:
        if error.code is Code.UNIMPLEMENTED:
            return ()
        raise
    finally:
        await channel.close()
    return codec.decode(FactsResponse, data).notes

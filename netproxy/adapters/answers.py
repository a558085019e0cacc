"""Names as the DNS process of this node answers them: see `skep.netproxy.network.NameServer`."""

from __future__ import annotations

from skep.domain.base import NetworkId
from skep.env import Rejected, Retryable
from skep.netproxy.dns.adapters.client import DnsClient
from skep.netproxy.dns.core.protocol import Listen
from skep.netproxy.dns.core.zones import NetworkZone


class Answers:
    """Starts the process with the first name that is to be answered: a node without networks has
    none."""

    def __init__(self, client: DnsClient) -> None:
        self._client = client
        self._is_started = False

    async def apply(
        self, zones: dict[NetworkId, NetworkZone], listens: tuple[Listen, ...]
    ) -> dict[str, str]:
        """See `NameServer.apply`."""
        if not (self._is_started or listens):
            return {}
        try:
            if not self._is_started:
                await self._client.start()
                self._is_started = True
            errors = await self._client.apply(zones.values(), listens)
        except (Retryable, Rejected) as error:
            raise Retryable(f"names: {error}") from error
        return {each.scope_id: each.why for each in errors}

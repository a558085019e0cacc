"""Every manager's regular word to the leader: it lives, and so far are its netproxies.

The leader hears of its own netproxies directly. Reports are sent when something moved, and once a
second in any case.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from skep.actor import Actor, Mailbox, Overflow
from skep.api import codec
from skep.domain.control import ManagerReport, ManagerReportResponse
from skep.env import CallError, Channel, Code, Env, Timer
from skep.manager.endpoints.actor import EndpointServer
from skep.manager.office import Office
from skep.manager.store.actor import Store

log = logging.getLogger(__name__)

METHOD = "skep.v1.Managers/Report"
PERIOD_S = 1.0
CALL_DEADLINE_S = 1.0


@dataclass(frozen=True, slots=True)
class ReportDue:
    """Time to report."""


class Roster(Actor[ReportDue]):
    """Reports to whoever leads."""

    def __init__(self, env: Env, store: Store, office: Office, endpoints: EndpointServer) -> None:
        mailbox: Mailbox[ReportDue] = Mailbox(
            "roster", 2, Overflow.COALESCE, key=lambda message: "due"
        )
        super().__init__(env, mailbox)
        self._store = store
        self._office = office
        self._endpoints = endpoints
        self._channels: dict[str, Channel] = {}
        self._timer: Timer | None = None

    async def started(self) -> None:
        """Report once a second, and when a netproxy moves on."""
        self._endpoints.on_progress = lambda: self.mailbox.tell(ReportDue())
        self._later()

    async def stopped(self) -> None:
        """Report no more."""
        if self._timer is not None:
            self._timer.cancel()
        for channel in self._channels.values():
            await channel.close()

    async def handle(self, message: ReportDue) -> None:
        """One report."""
        progress = self._endpoints.progress()
        if self._office.is_leader:
            self._office.netproxies_changed(progress)
            return
        address = self._office.leader_address
        if address is None:
            return
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self.env.transport.channel(address)
        report = ManagerReport(
            node_id=self._office.config.node_id,
            applied_version=self._store.version,
            netproxies=progress,
        )
        try:
            await channel.call(METHOD, codec.encode(report), deadline_s=CALL_DEADLINE_S)
        except CallError as error:
            log.debug("report to=%s failed why=%s", address, error)

    def _later(self) -> None:
        self._timer = self.env.clock.call_at(self.env.now() + PERIOD_S, self._due)

    def _due(self) -> None:
        self._later()
        self.mailbox.tell(ReportDue())


async def receive_report(office: Office, data: bytes) -> bytes:
    """A follower's report, at the leader. See `skep.env.CallHandler`."""
    report = codec.decode(ManagerReport, data)
    dispatcher = office.dispatcher
    if dispatcher is None:
        raise CallError(Code.FAILED_PRECONDITION, "this manager does not lead")
    await dispatcher.manager_reported(report)
    return codec.encode(ManagerReportResponse(term=office.term))

"""What this node holds of the managers' word, and how much of it is in force.

Three versions matter. `held` is the last step of the stream that came whole; `in_force` is what the
data plane has confirmed, and all that is ever acknowledged: a manager that reads "version 12 is in
force here" lets tasks stop that version 12 no longer names. `told` is what the manager at the other
end knows of it.

A step that doesn't start exactly at `held` means that something was missed: the stream is opened
again, asking for the whole. A manager that lags behind what this node holds is left for another,
for a while: going back would send new connections to tasks that are already gone.
"""

from __future__ import annotations

from dataclasses import dataclass

from skep.domain.base import NetworkId, NodeId, ServiceId
from skep.domain.endpoints import EndpointUpdate, MeshNode, NetworkEntry, ServiceEndpoints
from skep.netproxy.core.routes import Desired, Routing, VipForm
from skep.netproxy.core.steps import Stepped

# One step of 200,000 endpoints is about 16 MiB. More than this is not a cluster but a mistake.
STEP_LIMIT_BYTES = 32 * 1024 * 1024
# Managers differ by milliseconds; one that is still behind after this long is what is left of the
# cluster (restored from an older state), and its word counts.
BEHIND_LIMIT_S = 10.0
# A port is mostly taken by the process that this one replaces, so the first retry is soon.
FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class StateLoaded:
    """What was on disk: (0, (), (), ()) where nothing was."""

    version: int
    services: tuple[ServiceEndpoints, ...]
    nodes: tuple[MeshNode, ...]
    networks: tuple[NetworkEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """A manager is at the other end."""


@dataclass(frozen=True, slots=True)
class StreamLost:
    """There is no manager at the other end any more."""


@dataclass(frozen=True, slots=True)
class UpdateReceived:
    """One frame, and how many bytes it had."""

    now: float
    update: EndpointUpdate
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PlaneApplied:
    """The data plane has done what `Apply` asked for, all but `errors`. Where it is not in force,
    tasks that the version doesn't name may still be reached, and it must not be acknowledged."""

    now: float
    version: int
    errors: tuple[str, ...] = ()
    is_in_force: bool = True


@dataclass(frozen=True, slots=True)
class RetryReached:
    """It is time to try again what went wrong."""


Event = StateLoaded | StreamOpened | StreamLost | UpdateReceived | PlaneApplied | RetryReached


@dataclass(frozen=True, slots=True)
class SendHello:
    """Greet the manager; 0 asks for the whole."""

    applied_version: int


@dataclass(frozen=True, slots=True)
class SendApplied:
    """Acknowledge."""

    version: int
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Apply:
    """Put this in force; answered by `PlaneApplied`."""

    desired: Desired


@dataclass(frozen=True, slots=True)
class Save:
    """Keep what is held on disk."""


@dataclass(frozen=True, slots=True)
class SetRetry:
    """Send `RetryReached` at this time."""

    at: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Leave this stream and open another."""

    why: str


Effect = SendHello | SendApplied | Apply | Save | SetRetry | Cut


class EndpointTable:
    """The core. `step` is the only way in; what it returns is the only way out."""

    def __init__(self, node_id: NodeId, vip_form: VipForm | None = None) -> None:
        self._routing = Routing(node_id, vip_form)
        self.version = 0
        self.services: Stepped[ServiceId, ServiceEndpoints] = Stepped()
        self.nodes: dict[NodeId, MeshNode] = {}
        self.networks: dict[NetworkId, NetworkEntry] = {}
        self.in_force = 0
        self.errors: tuple[str, ...] = ()
        self._problems: tuple[str, ...] = ()
        self._applying: int | None = None
        self._is_dirty = False  # what is held differs from what was last handed to the data plane
        self._has_begun = False  # anything was ever applied
        self._is_behind = False  # what was last applied is not in force
        self._failures = 0
        self._partial: list[EndpointUpdate] = []
        self._partial_bytes = 0
        self._is_connected = False
        self._needs_whole = False
        self._told: tuple[int, tuple[str, ...]] | None = None
        self._behind_since: float | None = None

    def step(self, event: Event) -> list[Effect]:
        """What follows."""
        match event:
            case StateLoaded(version, services, nodes, networks):
                self.version = version
                self.networks = {network.network_id: network for network in networks}
                self.services = Stepped((service.service_id, service) for service in services)
                self.nodes = {node.node_id: node for node in nodes}
                # Where nothing is known, what an earlier process has put in force is left alone
                # until a manager has said what there should be.
                return self._apply() if version else []
            case StreamOpened():
                return self._opened()
            case StreamLost():
                self._disconnect()
                return []
            case UpdateReceived(now, update, size_bytes):
                return self._received(now, update, size_bytes)
            case PlaneApplied():
                return self._applied(event)
            case RetryReached():
                return self._apply() if self._applying is None else []

    def _opened(self) -> list[Effect]:
        self._disconnect()
        self._is_connected = True
        # An increment would start at what is in force, but be added to what is held.
        can_continue = self.in_force == self.version and not self._needs_whole
        hello = self.in_force if can_continue else 0
        self._told = (hello, ())
        effects: list[Effect] = [SendHello(hello)]
        if hello and self.errors:
            effects += self._tell()
        return effects

    def _disconnect(self) -> None:
        self._is_connected = False
        self._told = None
        self._forget_partial()

    def _forget_partial(self) -> None:
        self._partial = []
        self._partial_bytes = 0

    def _received(self, now: float, update: EndpointUpdate, size_bytes: int) -> list[Effect]:
        if not self._is_connected:
            return []  # It was on its way when the stream was cut.
        if self._partial and not _is_same_step(self._partial[0], update):
            return self._resync(f"a frame of version {update.version} amid another step")
        self._partial_bytes += size_bytes
        if self._partial_bytes > STEP_LIMIT_BYTES:
            return self._resync(f"version {update.version} is over {STEP_LIMIT_BYTES} bytes")
        self._partial.append(update)
        if update.is_partial:
            return []
        frames = self._partial
        self._forget_partial()
        if update.is_complete:
            return self._replace(now, frames)
        return self._increment(frames)

    def _resync(self, why: str) -> list[Effect]:
        self._needs_whole = True
        return self._cut(why)

    def _cut(self, why: str) -> list[Effect]:
        self._disconnect()
        return [Cut(why)]

    def _replace(self, now: float, frames: list[EndpointUpdate]) -> list[Effect]:
        version = frames[-1].version
        if version < self.version:
            if self._behind_since is None:
                self._behind_since = now
            if now - self._behind_since < BEHIND_LIMIT_S:
                return self._cut(f"the manager is at {version}, behind {self.version}")
            self.in_force = 0
        self._behind_since = None
        self._needs_whole = False
        services = {s.service_id: s for frame in frames for s in frame.services}
        nodes = {n.node_id: n for frame in frames for n in frame.nodes}
        networks = {n.network_id: n for frame in frames for n in frame.networks}
        # The same word as before is the very same object: see `Stepped`.
        for service_id, service in self.services.items():
            if services.get(service_id) == service:
                services[service_id] = service
        return self._hold(version, Stepped(services), nodes, networks)

    def _increment(self, frames: list[EndpointUpdate]) -> list[Effect]:
        from_version, version = frames[-1].from_version, frames[-1].version
        if from_version != self.version:
            return self._resync(f"a step from {from_version}, but {self.version} is held")
        if version < from_version:
            return self._resync(f"a step back, from {from_version} to {version}")
        self._behind_since = None
        services: dict[ServiceId, ServiceEndpoints | None] = {}
        nodes, networks = dict(self.nodes), dict(self.networks)
        for frame in frames:
            services.update(dict.fromkeys(frame.removed_services))
            for node_id in frame.removed_nodes:
                nodes.pop(node_id, None)
            for network_id in frame.removed_networks:
                networks.pop(network_id, None)
            services.update((service.service_id, service) for service in frame.services)
            nodes.update((node.node_id, node) for node in frame.nodes)
            networks.update((network.network_id, network) for network in frame.networks)
        return self._hold(version, self.services.after(services), nodes, networks)

    def _hold(
        self,
        version: int,
        services: Stepped[ServiceId, ServiceEndpoints],
        nodes: dict[NodeId, MeshNode],
        networks: dict[NetworkId, NetworkEntry],
    ) -> list[Effect]:
        is_same = services is self.services or services == self.services
        is_same = is_same and (nodes, networks) == (self.nodes, self.networks)
        self.version = version
        self.services, self.nodes, self.networks = services, nodes, networks
        if not is_same or not self._has_begun:
            self._is_dirty = True
            applied: list[Effect] = self._apply() if self._applying is None else []
            return [*applied, Save()]
        if self._applying is None and not self._is_behind:
            # Nothing to do for this version, so it is in force.
            self.in_force = version
        return self._tell()

    def _apply(self) -> list[Effect]:
        assert self._applying is None
        self._has_begun = True
        desired = self._routing.build(self.version, self.services, self.nodes, self.networks)
        self._problems = desired.problems
        self._applying = self.version
        self._is_dirty = False
        return [Apply(desired)]

    def _applied(self, event: PlaneApplied) -> list[Effect]:
        assert self._applying == event.version, (self._applying, event.version)
        self._applying = None
        self._is_behind = not event.is_in_force
        if event.is_in_force:
            # Later versions that changed nothing are in force along with it.
            self.in_force = event.version if self._is_dirty else self.version
        self.errors = self._problems + event.errors
        effects = self._tell()
        if self._is_dirty:
            return effects + self._apply()
        if not event.errors:
            self._failures = 0
            return effects
        retry_s = min(FIRST_RETRY_S * 2.0**self._failures, LONGEST_RETRY_S)
        self._failures = min(self._failures + 1, 16)
        return [*effects, SetRetry(event.now + retry_s)]

    def _tell(self) -> list[Effect]:
        news = (self.in_force, self.errors)
        if not self._is_connected or self._told == news or not self.in_force:
            return []
        self._told = news
        return [SendApplied(*news)]

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        assert self.in_force <= self.version, (self.in_force, self.version)
        assert not self._is_dirty or self._applying is not None, "a change that nobody applies"
        assert self._applying is None or self._applying <= self.version
        assert self._partial_bytes <= STEP_LIMIT_BYTES
        assert self._is_connected or not self._partial


def _is_same_step(first: EndpointUpdate, other: EndpointUpdate) -> bool:
    return (first.from_version, first.version, first.is_complete) == (
        other.from_version,
        other.version,
        other.is_complete,
    )

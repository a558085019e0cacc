"""One worker's agent as a whole: two actors, their inboxes, and who restarts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from skep.actor import Mailbox, Overflow
from skep.domain.base import ClusterId, NodeId, replace
from skep.domain.objects import NodeDescription, NodeRole
from skep.domain.session import SESSION_FORMAT, WorkerHello
from skep.env import Env
from skep.supervisor import Child, Supervisor
from skep.worker.actor import AGENT_INBOX_LIMIT, AgentActor, AgentMessage, AgentParts, AgentView
from skep.worker.core.agent import AgentCore
from skep.worker.core.link import Described, LinkCore
from skep.worker.engine.protocol import Engine, ImageResolver, NodeFacts
from skep.worker.execs import ExecRunner
from skep.worker.link import LINK_INBOX_LIMIT, Errands, LinkActor, LinkMessage
from skep.worker.logs import LogPublisher
from skep.worker.supplies import Supplies


@dataclass(frozen=True)
class AgentConfig:
    """Who this worker is and where its managers are (their control addresses)."""

    name: str
    node_id: NodeId
    cluster_id: ClusterId
    description: NodeDescription
    managers: tuple[str, ...]
    role: NodeRole = NodeRole.WORKER


@dataclass(frozen=True)
class Equipment:
    """What this worker runs tasks with. Engines look in the `supplies`, which the agent fills;
    with a `resolver` it can tell managers what images' names stand for."""

    engines: Mapping[str, Engine]
    supplies: Supplies = field(default_factory=Supplies)
    resolver: ImageResolver | None = None


class Agent:
    """A worker's agent. `on_escalate` hears of an actor that can't be kept up; the process, or
    the simulated node, should then end. `on_step` sees the core after every step."""

    def __init__(
        self,
        env: Env,
        config: AgentConfig,
        equipment: Equipment,
        on_escalate: Callable[[BaseException], None],
        on_step: Callable[[AgentCore], None] | None = None,
    ) -> None:
        self.view = AgentView()
        inbox: Mailbox[AgentMessage] = Mailbox("agent", AGENT_INBOX_LIMIT, Overflow.WAIT)
        link_inbox: Mailbox[LinkMessage] = Mailbox("link", LINK_INBOX_LIMIT)
        description = config.description
        parts = AgentParts(
            cluster_id=config.cluster_id,
            node_id=config.node_id,
            facts=NodeFacts(
                node_id=config.node_id,
                hostname=description.hostname,
                address=description.address,
                os=description.os,
                arch=description.arch,
            ),
            engines=equipment.engines,
            supplies=equipment.supplies,
            view=self.view,
            on_step=on_step,
        )
        self._env = env
        self._link_inbox = link_inbox
        self._hello = WorkerHello(
            format=SESSION_FORMAT,
            cluster_id=config.cluster_id,
            node_id=config.node_id,
            name=config.name,
            role=config.role,
            description=description,
        )
        dice = env.fork_dice("link")
        engines = equipment.engines
        self.logs = logs = LogPublisher(env, config.cluster_id, config.node_id, engines)
        execs = ExecRunner(env, config.cluster_id, config.node_id, engines)
        self.supervisor = Supervisor(
            env,
            "worker",
            (
                Child("agent", inbox, lambda: AgentActor(env, inbox, link_inbox, parts)),
                Child(
                    "link",
                    link_inbox,
                    lambda: LinkActor(
                        env,
                        link_inbox,
                        inbox.put,
                        Errands(logs, execs),
                        lambda: LinkCore(self._hello, config.managers, dice),
                    ),
                ),
            ),
            on_escalate,
        )

    def start(self) -> None:
        """Begin; must run on the loop."""
        self.supervisor.start()

    def describe(self, description: NodeDescription) -> None:
        """Say this of the node from now on; its session is begun anew for that."""
        self._hello = replace(self._hello, description=description)
        self._link_inbox.tell(Described(self._env.now(), description))

    async def stop(self) -> None:
        """End; tasks go on."""
        await self.supervisor.stop()

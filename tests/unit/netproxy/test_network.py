"""A node's network: what is attached, what is answered, and what survives the process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from skep.domain.attach import AttachRequest
from skep.domain.base import ClusterId, NetworkId, NodeId, ServiceId, TaskId, replace
from skep.domain.endpoints import (
    Endpoint,
    NameAnswer,
    NetworkEntry,
    NetworkPlace,
    NetworkQuestion,
    ServiceEndpoints,
)
from skep.domain.objects import Attachment, Vip
from skep.domain.spec import ExposedPort
from skep.env import CallError, Code, RealDisk, Retryable, real_env
from skep.netproxy.core.forms import KernelForms, RelayForms
from skep.netproxy.core.routes import Desired
from skep.netproxy.core.world import World
from skep.netproxy.dataplane import Joined, Observed
from skep.netproxy.dns.core.protocol import Listen
from skep.netproxy.dns.core.zones import NetworkZone
from skep.netproxy.network import NodeNetwork, SharedDns
from skep.rpc import GrpcTransport

APP, BACK, INGRESS = NetworkId("app"), NetworkId("back"), NetworkId("ingress")
OWN = (ClusterId("c"), NodeId("n1"))
NETWORKS = {
    APP: NetworkEntry(network_id=APP, name="app", vni=4098, subnet="10.0.1.0/24"),
    BACK: NetworkEntry(
        network_id=BACK, name="back", vni=4099, subnet="10.0.2.0/24", is_internal=True
    ),
    INGRESS: NetworkEntry(
        network_id=INGRESS, name="ingress", vni=4097, subnet="10.255.0.0/16", is_ingress=True
    ),
}
DB = ServiceEndpoints(
    service_id=ServiceId("db"),
    name="db",
    exposed=(ExposedPort(target=5432),),
    endpoints=(
        Endpoint(
            task_id=TaskId("d1"),
            node_id=NodeId("n2"),
            address="127.32.16.9",
            attachments=(Attachment(network_id=APP, address="10.0.1.9"),),
            name="db.1",
        ),
    ),
    networks=(NetworkPlace(network_id=APP),),
    vips=(Vip(network_id=APP, index=7, address="10.0.1.7"),),
)


class Plane:
    """A data plane that remembers."""

    name = "kernel"

    def __init__(self, *, has_namespaces: bool = True) -> None:
        self.has_namespaces = has_namespaces
        self.forms = KernelForms() if has_namespaces else RelayForms(32, 4)
        self.there: set[TaskId] = set()
        self.applied: list[Desired] = []
        self.trouble: str | None = None
        self.wrong: tuple[str, ...] = ()

    async def apply(self, desired: Desired) -> tuple[str, ...]:
        self.applied.append(desired)
        return ()

    async def attach(self, request: AttachRequest, world: World) -> Joined:
        if self.trouble:
            raise Retryable(self.trouble)
        self.there.add(request.task_id)
        return Joined(f"/ns/{request.task_id}", "/group") if self.has_namespaces else Joined()

    async def detach(self, task_ids: Iterable[TaskId]) -> None:
        if self.trouble:
            raise Retryable(self.trouble)
        self.there -= set(task_ids)

    async def attached(self) -> frozenset[TaskId]:
        return frozenset(self.there)

    async def probe(self, task_id: TaskId, address: str, port: int, deadline_s: float) -> int:
        if self.trouble:
            raise ConnectionRefusedError(111, "Connection refused")
        return 1000

    async def differences(self) -> tuple[str, ...]:
        return self.wrong

    def facts(self) -> tuple[str, ...]:
        return ("a fact",)

    def observed(self) -> Observed:
        return Observed(0, (), 0)

    async def close(self, drain_s: float) -> None: ...


class Server:
    """A server of names that remembers."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.refused: dict[str, str] = {}
        self.zones: dict[NetworkId, NetworkZone] = {}
        self.listens: dict[str, Listen] = {}

    async def apply(
        self, zones: dict[NetworkId, NetworkZone], listens: tuple[Listen, ...]
    ) -> dict[str, str]:
        if self.trouble:
            raise Retryable(self.trouble)
        self.zones = zones
        self.listens = {listen.scope.scope_id: listen for listen in listens}
        return {scope: why for scope, why in self.refused.items() if scope in self.listens}


class Shared:
    def place(self, set_number: int) -> tuple[str, int]:
        return f"127.36.255.{set_number}", 53


class Life:
    """One life of a netproxy; its folder outlives it."""

    def __init__(self, folder: Path, plane: Plane, shared: SharedDns | None = None) -> None:
        self.plane = plane
        self.server = Server()
        self.disk = RealDisk(folder)
        env = real_env("n1", GrpcTransport(), self.disk)
        self.network = NodeNetwork(env, OWN, plane, self.server, shared)

    async def know(self, *services: ServiceEndpoints, version: int = 1) -> tuple[str, ...]:
        by_id = {each.service_id: each for each in services}
        world = World(version, by_id, {}, NETWORKS)
        return await self.network.apply(Desired(version=version, world=world))


def request(task: str, *networks: NetworkId, names: tuple[str, ...] = ()) -> AttachRequest:
    return AttachRequest(
        task_id=TaskId(task),
        service_id=ServiceId("web"),
        service_name="web",
        attachments=tuple(
            # The first task is at 10.0.0.3 on its first network.
            Attachment(network_id=each, address=f"10.0.{place}.{2 + int(task[1:])}")
            for place, each in enumerate(networks)
        ),
        names=names,
        hostname=f"web.1.{task}",
    )


def run(folder: Path, steps: Callable[[Life], Awaitable[None]], **plane: bool) -> None:
    async def go() -> None:
        shared = None if plane.get("has_namespaces", True) else Shared()
        life = Life(folder, Plane(**plane), shared)
        try:
            async with asyncio.timeout(20):
                await steps(life)
        finally:
            life.disk.close()

    asyncio.run(go())


def test_a_task_with_a_namespace_asks_for_names_in_there(tmp_path: Path) -> None:
    async def steps(life: Life) -> None:
        await life.know(DB)
        answer = await life.network.attach(request("t1", INGRESS, APP, names=("db",)))
        assert answer.namespace == "/ns/t1"
        assert answer.cgroup == "/group"
        assert answer.address == "0.0.0.0"
        assert answer.dns == "127.0.0.11:53"
        assert "nameserver 127.0.0.11" in answer.resolv_conf
        assert answer.hosts.endswith("10.0.0.3\tweb.1.t1\n")
        assert answer.vips == (("db", "10.0.1.7"),)
        listen = life.server.listens["t1"]
        assert (listen.address, listen.port, listen.namespace) == ("127.0.0.11", 53, "/ns/t1")
        assert listen.scope.networks == (APP,)
        assert listen.scope.forwards
        assert [r.addresses for r in life.server.zones[APP].records.values() if r.name == "db"] == [
            ("10.0.1.7",)
        ]

    run(tmp_path, steps)


def test_without_namespaces_tasks_on_the_same_networks_share_an_address(tmp_path: Path) -> None:
    async def steps(life: Life) -> None:
        await life.know(DB)
        first = await life.network.attach(request("t1", APP, names=("db",)))
        assert first.dns == "127.36.255.0:53"
        assert (first.namespace, first.address) == ("", "")
        assert first.vips == (("db", "127.36.0.7"),)
        assert (await life.network.attach(request("t2", APP))).dns == first.dns
        assert (await life.network.attach(request("t3", BACK, APP))).dns == "127.36.255.1:53"
        await life.network.detach((TaskId("t1"),))
        assert set(life.server.listens) == {"set-0", "set-1"}
        await life.network.detach((TaskId("t2"),))
        assert set(life.server.listens) == {"set-1"}

    run(tmp_path, steps, has_namespaces=False)


def test_who_is_on_internal_networks_alone_asks_nobody_outside(tmp_path: Path) -> None:
    async def steps(life: Life) -> None:
        await life.know()
        for task, networks, forwards in (
            ("t1", (BACK,), False),
            ("t2", (BACK, APP), True),
            ("t3", (BACK, INGRESS), False),
            ("t5", (INGRESS,), True),
            ("t4", (), True),
        ):
            await life.network.attach(request(task, *networks))
            assert life.server.listens[task].scope.forwards is forwards, task

    run(tmp_path, steps)


def test_a_task_waits_for_what_is_not_known_yet(tmp_path: Path) -> None:
    async def steps(life: Life) -> None:
        with pytest.raises(CallError, match="network app is not known on this node yet") as caught:
            await life.network.attach(request("t1", APP))
        assert caught.value.code is Code.UNAVAILABLE
        await life.know()
        with pytest.raises(CallError, match="no service 'db' on the networks of this task"):
            await life.network.attach(request("t1", APP, names=("db",)))
        assert life.plane.there == set()
        await life.know(replace(DB, vips=()))
        with pytest.raises(CallError, match="no service 'db'"):
            await life.network.attach(request("t1", APP, names=("db",)))
        await life.know(DB)
        await life.network.attach(request("t1", APP, names=("db",)))
        assert life.plane.there == {"t1"}

    run(tmp_path, steps)


def test_the_next_process_knows_what_is_attached(tmp_path: Path) -> None:
    async def first(life: Life) -> None:
        await life.know(DB)
        await life.network.attach(request("t1", APP))
        await life.network.attach(request("t2", APP))

    async def second(life: Life) -> None:
        assert life.server.listens == {}
        await life.know(DB)
        assert life.plane.there == {"t1", "t2"}
        assert set(life.server.listens) == {"t1", "t2"}
        await life.network.detach((TaskId("t1"),))

    async def third(life: Life) -> None:
        life.plane.trouble = "no memory"
        problems = await life.know(DB)
        assert problems == ("web: task t2 can't be attached: no memory",)
        life.plane.trouble = None
        assert await life.know(DB, version=2) == ()
        assert set(life.server.listens) == {"t2"}

    for life in (first, second, third):
        run(tmp_path, life)


def test_what_no_task_holds_is_taken_away_also_what_nobody_remembers(tmp_path: Path) -> None:
    async def steps(life: Life) -> None:
        await life.know()
        for task in ("t1", "t2"):
            await life.network.attach(request(task, APP))
        life.plane.there.add(TaskId("stray"))
        await life.network.hold((TaskId("t2"), TaskId("never attached")))
        assert life.plane.there == {"t2"}
        assert set(life.server.listens) == {"t2"}
        assert set(life.network.attached.by_task) == {"t2"}

    run(tmp_path, steps)


def test_what_could_not_be_kept_on_disk_is_kept_by_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first(life: Life) -> None:
        async def full(name: str, data: bytes) -> None:
            raise OSError("no space left on device")

        await life.know()
        with monkeypatch.context() as patch:
            patch.setattr(life.disk, "replace", full)
            with pytest.raises(Retryable, match="no space left"):
                await life.network.attach(request("t1", APP))
        await life.network.attach(request("t1", APP))

    async def second(life: Life) -> None:
        await life.know()
        assert life.plane.there == {"t1"}
        life.plane.trouble = "busy"
        with pytest.raises(Retryable, match="busy"):
            await life.network.detach((TaskId("t1"),))
        life.plane.trouble = None
        await life.network.detach((TaskId("t1"),))

    async def third(life: Life) -> None:
        await life.know()
        assert life.plane.there == set()

    for life in (first, second, third):
        run(tmp_path, life)


def test_who_has_an_address_that_is_now_anothers_is_over(tmp_path: Path) -> None:
    async def steps(life: Life) -> None:
        await life.know()
        for task in ("t1", "t2"):
            await life.network.attach(request(task, APP))
        heir = replace(request("t3", APP), attachments=request("t1", APP).attachments)
        life.plane.trouble = "busy"
        with pytest.raises(Retryable, match="busy"):
            await life.network.attach(heir)
        life.plane.trouble = None
        await life.network.attach(heir)
        assert life.plane.there == {"t2", "t3"}
        # The same address on another network is another one.
        other = replace(heir.attachments[0], network_id=BACK)
        await life.network.attach(replace(request("t4", BACK), attachments=(other,)))
        assert life.plane.there == {"t2", "t3", "t4"}

    run(tmp_path, steps)


def test_names_are_in_force_before_the_plane_says_so(tmp_path: Path) -> None:
    """An acknowledged version without a task means that no name leads to it either."""

    async def steps(life: Life) -> None:
        await life.know(DB)
        gone = replace(DB, endpoints=())
        await life.know(gone, version=2)
        tasks = [r for r in life.server.zones[APP].records.values() if r.name == "tasks.db"]
        assert [record.addresses for record in tasks] == [()]
        assert [desired.version for desired in life.plane.applied] == [1, 2]

    run(tmp_path, steps)


def test_a_person_is_told_what_a_name_leads_to(tmp_path: Path) -> None:
    async def steps(life: Life) -> None:
        await life.know(DB)
        await life.network.attach(request("t1", APP))
        await life.network.attach(request("t2", BACK))

        async def ask(name: str, task: str) -> NameAnswer:
            question = NetworkQuestion(id="q", name=name, task_id=TaskId(task))
            answer = (await life.network.diagnose(question)).answer
            assert answer is not None
            return answer

        answer = await ask("db", "t1")
        assert (answer.kind, answer.network, answer.service) == ("vip", "app", "db")
        assert answer.addresses == ("10.0.1.7",)
        [probe] = answer.probes
        assert (probe.address, probe.latency_ns, probe.error) == ("10.0.1.9", 1000, "")
        life.plane.trouble = "down"
        [probe] = (await ask("tasks.db", "t1")).probes
        assert (probe.latency_ns, probe.error) == (None, "Connection refused at port 5432")
        other = await ask("db", "t2")
        assert other.kind == "unknown"
        assert "service db on network app" in other.why
        assert "on no network" in (await ask("db", "t9")).why
        life.plane.wrong = ("a bridge is missing",)
        look = await life.network.diagnose(NetworkQuestion(id="q"))
        assert look.differences == ("a bridge is missing",)
        assert look.facts == ("2 attached tasks", "a fact")

    run(tmp_path, steps)


def test_all_networks_of_attached_tasks_are_wanted_from_the_first_word_on(tmp_path: Path) -> None:
    """A start must not take a network from a task only because another one's turn is first."""

    async def first(life: Life) -> None:
        await life.know(DB)
        await life.network.attach(request("t1", APP))
        await life.network.attach(request("t2", BACK))

    async def second(life: Life) -> None:
        # What was saved last may be older than the attachment.
        await life.network.apply(Desired(version=1, world=World(1)))
        [applied] = life.plane.applied
        assert applied.world.here == {APP, BACK}
        assert applied.world.tasks == {"t1", "t2"}
        assert applied.world.networks[APP].vni == 4098

    for life in (first, second):
        run(tmp_path, life)


def test_a_version_whose_names_are_not_told_is_not_in_force(tmp_path: Path) -> None:
    async def steps(life: Life) -> None:
        await life.know(DB)
        life.server.trouble = "nobody answers"
        with pytest.raises(Retryable, match="nobody answers"):
            await life.know(DB, version=2)
        assert [d.version for d in life.plane.applied] == [1, 2], "the plane does not wait for it"
        life.server.trouble = None
        life.server.refused = {"t9": "port 53 is taken"}
        assert await life.know(DB, version=3) == ()

    run(tmp_path, steps)


def test_another_task_s_trouble_with_names_is_not_mine(tmp_path: Path) -> None:
    async def steps(life: Life) -> None:
        await life.know(DB)
        life.server.refused = {"t1": "no such namespace"}
        with pytest.raises(Retryable, match="no such namespace"):
            await life.network.attach(request("t1", APP))
        await life.network.attach(request("t2", APP))
        assert await life.know(DB) == ("names: t1: no such namespace",)

    run(tmp_path, steps)


def test_a_detached_task_is_forgotten_before_it_is_taken_apart(tmp_path: Path) -> None:
    async def first(life: Life) -> None:
        await life.know(DB)
        await life.network.attach(request("t1", APP))

        async def killed(task_ids: Iterable[TaskId]) -> None:
            raise ConnectionAbortedError("killed at this very line")

        life.plane.detach = killed  # type: ignore[method-assign]
        with pytest.raises(ConnectionAbortedError):
            await life.network.detach((TaskId("t1"),))

    async def second(life: Life) -> None:
        life.plane.there = {TaskId("t1")}
        await life.know(DB)
        assert life.network.attached.by_task == {}
        await life.network.hold(())
        assert life.plane.there == set()

    for life in (first, second):
        run(tmp_path, life)

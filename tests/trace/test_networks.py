"""The life of networks: who gets which addresses, when they are given back, and what is said
where there are none."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from skep.domain.base import NetworkId, TaskId, replace
from skep.domain.objects import (
    Attachment,
    Cluster,
    Network,
    Service,
    Task,
    TaskStatus,
    UpdateState,
)
from skep.domain.spec import (
    EndpointMode,
    FailureAction,
    NetworkSpec,
    NetworkUse,
    Port,
    Protocol,
    ServiceSpec,
    UpdateOrder,
    UpdatePolicy,
)
from skep.domain.states import TaskState
from skep.env import CallError
from skep.manager.control.core.networks import network_views
from skep.manager.control.core.views import service_view
from tests.trace.support.stage import Stage, spec

FIVE = "10.1.0.0/29"


def stage_with(*networks: NetworkSpec, nodes: int = 2) -> Stage:
    stage = Stage()
    for number in range(1, nodes + 1):
        stage.register(f"n{number}")
    stage.run()
    for network in networks:
        stage.create_network(network)
    stage.run()
    return stage


def net(name: str = "back", **changes: Any) -> NetworkSpec:
    return NetworkSpec(name=name, **changes)


def on(*names: str, **changes: Any) -> ServiceSpec:
    return spec(networks=tuple(NetworkUse(network=name) for name in names), **changes)


def row(stage: Stage, name: str = "back") -> Network:
    found = stage.network(name)
    assert found is not None
    return found


def addresses(stage: Stage, network: str = "back", service: str = "web") -> list[str]:
    """Of a service's live tasks, by slot."""
    network_id = row(stage, network).id
    return [
        at.address
        for task in stage.tasks(service)
        if not task.is_terminal
        for at in task.attachments
        if at.network_id == network_id
    ]


def vips(stage: Stage, service: str = "web") -> list[tuple[str, str, int]]:
    names = {each.id: each.name for each in stage.store.tables.all(Network)}
    found = stage.service(service).vips
    return [(names[vip.network_id], vip.address, vip.index) for vip in found]


def set_pools(stage: Stage, *pools: str, prefix: int = 24) -> None:
    cluster = next(iter(stage.store.tables.all(Cluster)))
    changed = replace(cluster, address_pools=pools, subnet_prefix=prefix)
    stage.store.commit(lambda tx: tx.update(changed))


# -------------------------------------------------------------------------------- networks


def test_networks_get_ids_and_ranges_in_turn() -> None:
    stage = stage_with(net("a"), net("b", subnet="10.0.1.0/24", gateway="10.0.1.9"), net("c"))
    told = [(n.name, n.vni, n.subnet, n.gateway) for n in stage.store.tables.all(Network)]
    assert told == [
        ("ingress", 4097, "10.255.0.0/16", "10.255.0.1"),
        ("a", 4098, "10.0.0.0/24", "10.0.0.1"),
        ("b", 4099, "10.0.1.0/24", "10.0.1.9"),
        ("c", 4100, "10.0.2.0/24", "10.0.2.1"),
    ]


def test_ids_and_ranges_of_what_is_gone_are_used_late() -> None:
    stage = stage_with(net("a"))
    stage.remove_network("a")
    stage.create_network(net("b"))
    stage.run()
    assert stage.network("a") is None
    assert (row(stage, "b").vni, row(stage, "b").subnet) == (4099, "10.0.1.0/24")


def test_two_networks_may_ask_for_one_range() -> None:
    stage = stage_with(net("a", subnet=FIVE), net("b", subnet=FIVE))
    assert row(stage, "a").subnet == row(stage, "b").subnet == FIVE
    stage.create(on("a"))
    stage.create(on("b", name="db"))
    stage.run()
    assert addresses(stage, "a") == addresses(stage, "b", "db") == ["10.1.0.3"]


def test_a_network_that_gets_no_range_says_so_and_gets_one_when_there_is_one() -> None:
    stage = Stage()
    set_pools(stage, "10.3.0.0/23")
    stage.register("n1")
    # The ingress network has had the sixteenth of the pool that is its own at most.
    stage.settle()
    assert row(stage, "ingress").subnet == "10.3.0.0/24"
    stage.create_network(net("a"))
    stage.create_network(net("b"))
    stage.create(on("b"))
    stage.run()
    assert row(stage, "b").vni is None
    assert row(stage, "b").message == (
        "no range of /24 is free in 10.3.0.0/23: remove networks, or create it with a subnet of "
        "your own"
    )
    waiting = stage.task("web.1")
    assert waiting.status.state is TaskState.NEW
    assert waiting.status.error.startswith("network b has no addresses yet: no range of /24")
    stage.remove_network("a")
    stage.run()
    assert (row(stage, "b").subnet, row(stage, "b").message) == ("10.3.1.0/24", "")
    assert stage.task("web.1").status.state is TaskState.RUNNING
    assert stage.task("web.1").status.error == ""


@pytest.mark.parametrize(
    ("pools", "prefix", "subnet"),
    [
        ((), 24, "10.255.0.0/16"),
        (("10.0.0.0/8",), 20, "10.255.0.0/16"),
        (("172.20.0.0/14",), 24, "172.20.0.0/18"),
        (("192.168.0.0/16",), 24, "192.168.0.0/20"),
        (("192.168.7.0/26",), 28, "192.168.7.0/28"),
        (("192.168.7.0/28", "10.8.0.0/13"), 24, "10.8.0.0/17"),
    ],
)
def test_the_ingress_network_is_of_the_clusters_pools(
    pools: tuple[str, ...], prefix: int, subnet: str
) -> None:
    stage = Stage()
    stage.lead()
    set_pools(stage, *pools, prefix=prefix)
    stage.register("n1")
    stage.run()
    assert row(stage, "ingress").subnet == subnet
    assert row(stage, "ingress").is_ingress
    assert stage.node("n1").ingress_address


# --------------------------------------------------------------------------- services and tasks


def test_a_service_has_one_virtual_address_per_network_and_tasks_one_each() -> None:
    stage = stage_with(net("front"), net("back"))
    stage.create(on("front", "back", replicas=2))
    stage.run()
    assert vips(stage) == [("front", "10.0.0.2", 1), ("back", "10.0.1.2", 2)]
    assert addresses(stage, "front") == ["10.0.0.3", "10.0.0.4"]
    assert addresses(stage, "back") == ["10.0.1.3", "10.0.1.4"]
    view = network_views(stage.store.tables, [row(stage, "back"), row(stage, "ingress")])
    assert [(each.services, each.tasks) for each in view] == [(("web",), 2), ((), 0)]


def test_who_publishes_on_ingress_is_on_that_network_without_a_virtual_address() -> None:
    stage = stage_with()
    stage.create(spec(ports=(Port(target=53, protocol=Protocol.UDP),)))
    stage.run()
    assert vips(stage) == []
    # The nodes came first.
    assert [stage.node(name).ingress_address for name in ("n1", "n2")] == [
        "10.255.0.2",
        "10.255.0.3",
    ]
    assert addresses(stage, "ingress") == ["10.255.0.4"]


def test_unchanged_virtual_addresses_stay_and_dnsrr_frees_them_without_new_tasks() -> None:
    stage = stage_with(net("front"), net("back"))
    stage.create(on("front"))
    stage.run()
    before = vips(stage)
    task = stage.task("web.1")
    stage.update(on("front", replicas=2))
    stage.update(on("front", replicas=2, endpoint_mode=EndpointMode.DNSRR))
    stage.run()
    assert vips(stage) == []
    assert stage.task("web.1").id == task.id
    stage.update(on("front", "back", replicas=2))
    stage.run()
    assert [name for name, _, _ in vips(stage)] == ["front", "back"]
    assert before != vips(stage)[:1]


def test_a_virtual_address_lives_until_the_last_task_on_its_network_has_ended() -> None:
    stage = stage_with(net("old"), net("new"))
    policy = UpdatePolicy(order=UpdateOrder.START_FIRST)
    stage.create(on("old", update=policy))
    stage.run()
    stage.update(on("new", update=policy))
    stage.settle()
    assert [name for name, _, _ in vips(stage)] == ["new", "old"]
    stage.run()
    stage.advance(60.0)
    stage.run()
    assert [name for name, _, _ in vips(stage)] == ["new"]


def test_an_update_that_is_taken_back_brings_the_same_virtual_address_back() -> None:
    stage = stage_with(net("old"), net("new"))
    stage.create(on("old", replicas=2))
    stage.run()
    before = vips(stage)
    stage.update(on("new", replicas=2))
    stage.settle()
    stage.roll_back("web")
    stage.run()
    assert vips(stage) == before


def test_aliases_need_no_new_tasks_and_networks_do() -> None:
    stage = stage_with(net("front"), net("back"))
    stage.create(on("front", "back"))
    stage.run()
    uses = (NetworkUse(network="back", aliases=("db",)), NetworkUse(network="front"))
    stage.update(spec(networks=uses))
    stage.run()
    assert len(stage.tasks()) == 1
    stage.update(on("front"))
    stage.run()
    stage.advance(60.0)
    stage.run()
    assert len(stage.tasks()) == 2
    assert len(stage.task("web.1").attachments) == 1


def test_a_full_network_says_so_on_the_task_until_something_is_freed() -> None:
    stage = stage_with(net(subnet=FIVE))
    stage.create(on("back", replicas=5))
    stage.run()
    [waiting] = [task for task in stage.tasks() if task.status.state is TaskState.NEW]
    assert waiting.status.error == (
        "network back has no free address: all 5 of 10.1.0.0/29 are in use"
    )
    assert (waiting.address, waiting.attachments) == ("", ())
    stage.update(on("back", replicas=4))
    stage.create(on("back", name="db", replicas=0))
    stage.run()
    # All four and the address of the service: the other one's is missing.
    [problem] = service_view(stage.store.tables, stage.service("db")).problems
    assert problem == "no virtual address on network back yet"
    assert not service_view(stage.store.tables, stage.service("db")).is_converged
    stage.update(on("back", replicas=3))
    stage.run()
    assert service_view(stage.store.tables, stage.service("db")).is_converged


def test_a_task_waits_for_the_address_of_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skep.manager.allocator.core.networks.RELAY_VIPS", 2)
    stage = stage_with(net())
    stage.create(on("back"))
    stage.create(on("back", name="db"))
    stage.run()
    assert stage.task("db.1").status.state is TaskState.NEW
    assert stage.task("db.1").status.error == (
        "no virtual address is free: too many services are on networks"
    )
    stage.update(on("back", endpoint_mode=EndpointMode.DNSRR))
    stage.run()
    assert stage.task("db.1").status.state is TaskState.RUNNING


def test_all_or_nothing() -> None:
    stage = stage_with(net("wide"), net("narrow", subnet=FIVE))
    stage.create(on("narrow", replicas=4))
    stage.create(on("wide", "narrow", name="db"))
    stage.run()
    assert stage.task("db.1").attachments == ()
    assert "network narrow has no free address" in stage.task("db.1").status.error
    assert addresses(stage, "wide", "db") == []
    stage.remove("web")
    stage.run()
    assert len(stage.task("db.1").attachments) == 2


def test_addresses_are_a_tasks_own_until_it_has_ended() -> None:
    stage = stage_with(net(subnet="10.1.0.0/29"))
    stage.create(on("back", replicas=4))
    stage.run()
    held = set(addresses(stage))
    for task in stage.tasks():
        stage.remove_task(task.id)
    stage.settle()
    # They are being stopped, and what follows them waits.
    assert set(addresses(stage)) == held
    new = [task for task in stage.tasks() if task.status.state is TaskState.NEW]
    assert {task.status.error.partition(":")[0] for task in new} == {
        "network back has no free address"
    }
    stage.run()
    assert len(set(addresses(stage))) == 4
    assert not any(task.status.error for task in stage.tasks() if task.is_wanted)


def test_ended_tasks_in_the_history_hold_nothing() -> None:
    stage = stage_with(net(subnet=FIVE))
    stage.create(on("back", replicas=2))
    for _ in range(4):
        stage.run()
        stage.fail("web.1")
        stage.advance(10.0)
    stage.run()
    assert len(stage.tasks()) > 5
    assert len(addresses(stage)) == 2


def test_a_task_is_on_the_networks_of_its_own_revision() -> None:
    stage = stage_with(net("old"), net("new"))
    stage.create(on("old", replicas=2))
    stage.run()
    stage.update(on("new", replicas=2))
    stage.settle()
    # One slot changes at a time; the other one's task ends meanwhile.
    [unchanged] = [t for t in stage.tasks() if t.is_wanted and t.revision == 1]
    stage.report(unchanged, TaskState.FAILED, "exit 1")
    stage.settle()
    names = {
        (task.revision, row_.name)
        for task in stage.tasks()
        for at in task.attachments
        if (row_ := stage.store.tables.get(Network, at.network_id)) is not None
    }
    assert names <= {(1, "old"), (2, "new")}


def test_a_new_leader_gives_nothing_out_twice() -> None:
    stage = stage_with(net())
    stage.create(on("back", replicas=3))
    stage.run()
    before = set(addresses(stage)) | {address for _, address, _ in vips(stage)}
    stage.lead()
    stage.update(on("back", replicas=6))
    stage.run()
    assert len(set(addresses(stage)) | {address for _, address, _ in vips(stage)}) == 7
    assert before < set(addresses(stage)) | {address for _, address, _ in vips(stage)}


def test_a_removed_nodes_address_is_given_back() -> None:
    stage = Stage()
    set_pools(stage, "192.168.7.0/28", prefix=29)
    for name in ("n1", "n2", "n3", "n4", "n5"):
        stage.register(name)
    stage.run()
    stage.register("n6")
    stage.run()
    assert stage.node("n6").ingress_address == ""
    gone = stage.node("n1").ingress_address
    stage.lose("n1")
    stage.remove_node("n1")
    stage.run()
    assert stage.node("n6").ingress_address == gone


# --------------------------------------------------------------------------------- removal


def test_a_network_goes_when_its_last_task_has_ended() -> None:
    stage = stage_with(net())
    stage.create(on("back", endpoint_mode=EndpointMode.DNSRR))
    stage.run()
    with pytest.raises(CallError, match="network 'back' is used by service web; remove"):
        stage.remove_network("back")
    stage.update(spec())
    stage.settle()
    with pytest.raises(CallError, match="of the spec that service web may go back to"):
        stage.remove_network("back")
    stage.run()
    stage.advance(60.0)
    stage.run()
    stage.remove_network("back")
    stage.run()
    assert stage.network("back") is None


def test_a_network_stays_while_a_task_that_nobody_hears_of_may_be_on_it() -> None:
    stage = stage_with(net())
    stage.create(on("back", endpoint_mode=EndpointMode.DNSRR))
    stage.run()
    lost = stage.task("web.1")
    assert lost.node_id is not None
    stage.lose(lost.node_id)
    stage.run()
    stage.update(spec())
    for _ in range(3):
        stage.run()
        stage.advance(60.0)
    stage.remove_network("back")
    stage.run()
    assert row(stage).is_removing
    stage.register(lost.node_id)
    stage.run()
    assert stage.network("back") is None


def test_a_network_waits_for_services_that_are_being_removed() -> None:
    stage = stage_with(net())
    stage.create(on("back"))
    stage.run()
    stage.remove("web")
    stage.remove_network("back")
    stage.settle()
    assert row(stage).is_removing
    with pytest.raises(CallError, match="still being removed"):
        stage.create_network(net())
    with pytest.raises(CallError, match="is being removed; create it first"):
        stage.create(on("back", name="db"))
    stage.run()
    assert stage.network("back") is None
    stage.create_network(net())


def test_a_rollback_that_lacks_its_network_is_refused() -> None:
    stage = stage_with(net())
    stage.create(on("back"))
    stage.run()
    stage.update(spec())
    for _ in range(3):
        stage.run()
        stage.advance(60.0)
    stage.remove_network("back")
    stage.run()
    with pytest.raises(CallError, match="there is no network 'back'") as caught:
        stage.roll_back("web")
    assert caught.value.details == {"field": "revision.task.networks[0].network"}


def test_an_automatic_rollback_that_lacks_its_network_pauses_the_update() -> None:
    stage = stage_with(net())
    policy = UpdatePolicy(failure_action=FailureAction.ROLLBACK)
    stage.create(on("back", update=policy))
    stage.run()
    stage.update(spec(update=policy))
    stage.run()
    # Nobody may do so while the update is on trial.
    going = replace(row(stage), is_removing=True)
    stage.store.commit(lambda tx: tx.update(going))
    stage.fail("web.1")
    stage.run()
    status = stage.service().update
    assert status is not None
    assert status.state is UpdateState.PAUSED
    assert "since network 'back' is being removed, which the spec before names" in status.message


# ------------------------------------------------------------------------------------ speed


def test_one_new_task_among_ten_thousand_is_quick() -> None:
    stage = stage_with(net("front", subnet="10.64.0.0/12"), net("back", subnet="10.96.0.0/12"))
    stage.create(on("front", "back", replicas=0))
    stage.run()
    service, networks = stage.service(), (row(stage, "front").id, row(stage, "back").id)
    for number in range(10_000):
        stage.store.tables.put(_running(service, number, networks))
    # What holds is checked elsewhere, and would take longer than what is measured here.
    stage.store.on_commit = lambda changes: None

    def longest_pass_s(number: int) -> float:
        new = replace(_running(service, number, ()), status=TaskStatus(), address="")
        stage.store.commit(lambda tx: tx.create(new))
        took_s = []
        is_busy = True
        while is_busy:
            begin = time.process_time()
            is_busy = stage.step("allocator")
            took_s.append(time.process_time() - begin)
        assert len(cast("Task", stage.store.tables.get(Task, new.id)).attachments) == 2
        return max(took_s)

    assert min(longest_pass_s(20_000 + n) for n in range(10)) < 0.1


def _running(service: Service, number: int, networks: tuple[NetworkId, ...]) -> Task:
    third, fourth = divmod(number, 250)
    attachments = tuple(
        Attachment(network_id=network_id, address=f"10.{second}.{third}.{fourth + 1}")
        for network_id, second in zip(networks, (65, 97), strict=False)
    )
    return Task(
        id=TaskId(f"t{number}"),
        service_id=service.id,
        service_name=service.name,
        revision=service.task_revision,
        slot=number,
        status=TaskStatus(state=TaskState.RUNNING),
        address=f"127.0.{16 + third}.{fourth + 1}",
        attachments=attachments,
    )

"""Networks by the control API: created, used, shown and removed, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from skep.domain.base import NetworkId, StackId, pairs, replace
from skep.domain.control import (
    CreateNetworkRequest,
    DeployStackRequest,
    DeployStackResponse,
    RollbackServiceRequest,
)
from skep.domain.objects import Attachment, Network, Service, UpdateState
from skep.domain.spec import NetworkSpec, NetworkUse, Port, ServiceSpec, StackSpec
from skep.domain.states import TaskState
from skep.env import CallError, Code, Rejected
from skep.manager.control.core.networks import create_network, network_views, remove_network
from skep.manager.control.core.services import remove_service, rollback_service
from skep.manager.control.core.stacks import deploy_stack, remove_stack
from tests.unit.manager.build import node, service_spec, task
from tests.unit.manager.control.office import Office


def make(office: Office, name: str = "back", **changes: Any) -> Network:
    request = CreateNetworkRequest(request_id="r", spec=NetworkSpec(name=name, **changes))
    return office.do(lambda tx: create_network(tx, request, office.new_id))


def on(*names: str, **changes: Any) -> ServiceSpec:
    of = service_spec(**changes)
    uses = tuple(NetworkUse(network=name) for name in names)
    return replace(of, task=replace(of.task, networks=uses))


def deploy(
    office: Office, *networks: NetworkSpec, services: tuple[ServiceSpec, ...] = (), **more: Any
) -> DeployStackResponse:
    spec = StackSpec(name="shop", services=services, networks=networks)
    request = DeployStackRequest(request_id="r", spec=spec, **more)
    return office.do(lambda tx: deploy_stack(tx, request, office.new_id))


def settle_update(office: Office, name: str = "web") -> None:
    """The update is over, and nothing goes back to the spec before by itself."""
    of = office.service(name)
    assert of.update is not None
    done = replace(of.update, state=UpdateState.COMPLETED)
    office.do(lambda tx: tx.update(replace(of, update=done)))


def names(office: Office, *, is_removing: bool) -> list[str]:
    rows = office.tables.all(Network)
    return sorted(row.name for row in rows if row.is_removing is is_removing)


def add_ingress(office: Office) -> None:
    row = Network(
        id=NetworkId("ingress"),
        name="ingress",
        spec=NetworkSpec(name="ingress"),
        is_ingress=True,
        vni=4097,
        subnet="10.255.0.0/16",
        gateway="10.255.0.1",
    )
    office.do(lambda tx: tx.create(row))


# ---------------------------------------------------------------------------------- creating


def test_a_network_is_created_once() -> None:
    office = Office()
    of = make(office, subnet="10.1.0.0/24")
    assert (of.id, of.name, of.vni, of.subnet, of.stack_id) == ("id1", "back", None, "", None)
    with pytest.raises(CallError, match=r"spec\.name: a network called 'back' exists; choose") as e:
        make(office)
    assert (e.value.code, e.value.details) == (Code.ALREADY_EXISTS, {"field": "spec.name"})
    make(office, "other", subnet="10.1.0.0/24")


ENCRYPTION: list[tuple[list[str | None], str]] = [
    ([], "no node is known yet"),
    ([None], "no node says that it can encrypt"),
    (["none: no such key type in this kernel"], "n0: no such key type in this kernel"),
    (["none: a", "none: b"], r"n0: a; n1: b\); leave it out"),
    (["none"], "n0: it does not say why"),
    ([None, "none: a", "wireguard"], ""),
]


@pytest.mark.parametrize(("notes", "refusal"), ENCRYPTION)
def test_only_what_some_node_can_encrypt_is_taken(notes: list[str | None], refusal: str) -> None:
    office = Office()
    for number, note in enumerate(notes):
        of = node(f"n{number}")
        said = {} if note is None else {"network.encryption": note}
        described = replace(of.description, notes=pairs(said))
        noting = replace(of, description=described)
        office.do(lambda tx, row=noting: tx.create(row))
    if not refusal:
        assert make(office, is_encrypted=True).spec.is_encrypted
        return
    with pytest.raises(CallError, match=refusal) as caught:
        make(office, is_encrypted=True)
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert caught.value.details == {"field": "spec.is_encrypted"}


# ------------------------------------------------------------------------------------- using


def test_services_are_on_networks_that_are_there() -> None:
    office = Office()
    make(office, "front")
    with pytest.raises(CallError, match="there is no network 'back'; create it first") as caught:
        office.create(on("front", "back"))
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert caught.value.details == {"field": "spec.task.networks[1].network"}
    make(office, "back")
    office.create(on("front", "back"))
    with pytest.raises(CallError, match=r"spec\.task\.networks\[0\]\.network: there is no network"):
        office.update(on("far"))


def test_nobody_is_on_the_ingress_network_by_hand() -> None:
    office = Office()
    add_ingress(office)
    with pytest.raises(Rejected, match="'ingress' is the cluster's own; a service is on it when"):
        office.create(on("ingress"))


def test_a_task_on_two_networks_must_be_able_to_tell_them_apart() -> None:
    office = Office()
    add_ingress(office)
    make(office, "a", subnet="10.1.0.0/16")
    make(office, "b", subnet="10.1.7.0/24")
    make(office, "c", subnet="10.2.0.0/16")
    make(office, "d", subnet="10.255.3.0/24")
    make(office, "e")
    office.create(on("a", "c", "e"))
    with pytest.raises(CallError, match=r"'b' \(10\.1\.7\.0/24\) overlaps with 'a'") as caught:
        office.update(on("a", "b"))
    assert caught.value.details == {"field": "spec.task.networks[1].network"}
    office.update(on("b", "d"))
    with pytest.raises(CallError, match=r"'d' .* overlaps with 'ingress'"):
        office.update(on("d", ports=(Port(target=80),)))


# ------------------------------------------------------------------------------------ showing


def test_a_view_counts_who_has_an_address() -> None:
    office = Office()
    add_ingress(office)
    back = make(office)
    office.create(on("back"))
    office.create(replace(on("back", ports=(Port(target=80),)), name="shop"))
    at = (Attachment(network_id=back.id, address="10.0.0.2"),)
    for id_, state in (("t1", TaskState.RUNNING), ("t2", TaskState.FAILED), ("t3", TaskState.NEW)):
        row = task(id_, state, attachments=at)
        office.do(lambda tx, row=row: tx.create(row))
    told = network_views(office.tables, office.tables.all(Network))
    assert [(view.network.name, view.services, view.tasks) for view in told] == [
        ("ingress", ("shop",), 0),
        ("back", ("shop", "web"), 2),
    ]


# ----------------------------------------------------------------------------------- removing


def test_a_network_in_use_stays_and_it_is_said_by_whom() -> None:
    office = Office()
    make(office)
    for name in ("a", "b", "c", "d", "e", "f"):
        office.create(replace(on("back"), name=name))
    with pytest.raises(
        CallError, match=r"is used by services a, b, c, d, e, \.\.\.; remove"
    ) as caught:
        office.remove(remove_network, "back")
    assert caught.value.code is Code.FAILED_PRECONDITION
    for name in ("a", "b", "c", "d", "e", "f"):
        office.remove(remove_service, name)
    office.remove(remove_network, "back")
    assert names(office, is_removing=True) == ["back"]
    office.remove(remove_network, "back")


def test_the_ingress_network_stays() -> None:
    office = Office()
    add_ingress(office)
    with pytest.raises(CallError, match="can't be removed: published ports are reached by it"):
        office.remove(remove_network, "ingress")


def test_a_spec_that_an_update_may_go_back_to_keeps_its_networks_until_it_is_over() -> None:
    office = Office()
    make(office)
    office.create(on("back"))
    office.update(service_spec())
    with pytest.raises(CallError, match="of the spec that service web may go back to; wait"):
        office.remove(remove_network, "back")
    settle_update(office)
    office.remove(remove_network, "back")
    # Going back by hand is asked for, and can be refused.
    request = RollbackServiceRequest(request_id="r", ref="web")
    with pytest.raises(CallError, match="network 'back' is being removed"):
        office.do(lambda tx: rollback_service(tx, request))


# -------------------------------------------------------------------------------------- stacks


def test_a_stacks_networks_come_before_its_services_and_are_its_own() -> None:
    office = Office()
    back = NetworkSpec(name="shop_back")
    told = deploy(office, back, services=(on("shop_back"),))
    assert told.networks_created == ("shop_back",)
    row = office.tables.named(Network, "shop_back")
    assert row is not None
    assert row.stack_id == told.stack.id
    assert deploy(office, back, services=(on("shop_back"),)).networks_created == ()
    assert office.tables.named(Network, "shop_back") == row
    labelled = replace(back, labels=pairs({"a": "b"}))
    deploy(office, labelled, services=(on("shop_back"),))
    row = office.tables.named(Network, "shop_back")
    assert row is not None
    assert row.spec == labelled


def test_nothing_is_deployed_when_a_network_of_it_is_missing() -> None:
    office = Office()
    with pytest.raises(CallError, match="there is no network 'far'") as caught:
        deploy(office, NetworkSpec(name="shop_back"), services=(on("shop_back", "far"),))
    assert caught.value.details == {"field": "spec.services[0].task.networks[1].network"}
    assert not office.content()
    assert not tuple(office.tables.all(Network))


def test_a_network_of_a_stack_is_never_changed_or_taken_over() -> None:
    office = Office()
    deploy(office, NetworkSpec(name="shop_back", subnet="10.1.0.0/24"))
    changed = NetworkSpec(name="shop_back", subnet="10.2.0.0/24", is_internal=True)
    with pytest.raises(
        CallError, match=r"another subnet .*10\.1\.0\.0/24.*is_internal.*or give the"
    ):
        deploy(office, changed)
    make(office, "other")
    with pytest.raises(CallError, match="is not of this stack; choose another name, or say"):
        deploy(office, NetworkSpec(name="other"))
    office.remove(remove_network, "shop_back")
    with pytest.raises(CallError, match="still being removed; try again shortly"):
        deploy(office, NetworkSpec(name="shop_back"))


def test_pruning_removes_what_nothing_needs() -> None:
    office = Office()
    one, two, three = (NetworkSpec(name=f"shop_{n}") for n in ("one", "two", "three"))
    deploy(office, one, two, three, services=(on("shop_one"),))
    deploy(office, services=(service_spec(),))
    assert names(office, is_removing=True) == []
    deploy(office, three, services=(service_spec(),), is_prune=True)
    # The update may still go back to the spec with the first one.
    assert names(office, is_removing=True) == ["shop_two"]
    settle_update(office)
    deploy(office, three, services=(service_spec(),), is_prune=True)
    assert names(office, is_removing=True) == ["shop_one", "shop_two"]


def test_a_stack_goes_with_its_networks_or_not_at_all() -> None:
    office = Office()
    deploy(office, NetworkSpec(name="shop_back"), services=(on("shop_back"),))
    office.create(replace(on("shop_back"), name="guest"))
    with pytest.raises(CallError, match="stack 'shop': network 'shop_back' is used by service gu"):
        office.remove(remove_stack, "shop")
    assert not office.service("web").is_removing
    office.remove(remove_service, "guest")
    office.remove(remove_stack, "shop")
    assert names(office, is_removing=True) == ["shop_back"]
    assert all(row.is_removing for row in office.tables.all(Service))


def test_a_transaction_finds_a_network_that_it_wrote() -> None:
    office = Office()
    row = Network(id=NetworkId("x"), name="x", spec=NetworkSpec(name="x"), stack_id=StackId("s"))

    def write(tx: Any) -> None:
        tx.create(row)
        assert tx.named(Network, "x").id == "x"
        tx.remove(Network, "x")
        assert tx.named(Network, "x") is None

    office.do(write)

"""Names, virtual addresses and isolation, in both data planes, as tasks see them."""

from __future__ import annotations

import pytest

from skep.client import ClientError
from skep.domain.base import replace
from skep.domain.spec import EndpointMode, NetworkSpec, NetworkUse, StackSpec
from tests.support.local_cluster import eventually, kill_pid
from tests.support.netcluster import TARGET, Net, Refused
from tests.support.packets import VNI, Wire

pytestmark = pytest.mark.process

NOTICED_S = 10.0


def test_a_service_has_one_address_and_its_tasks_have_theirs(net: Net) -> None:
    front = net.network()
    (echo,) = net.start(net.spec("echo", on=[NetworkUse(network=front, aliases=("www",))]))
    agent = net.agent(front)
    (vip,) = agent.names(echo)
    assert agent.names("www") == [vip]
    (task,) = agent.names(f"tasks.{echo}")
    assert task != vip
    assert agent.names(f"{echo}.1") == [task]

    for replicas in (3, 1):
        net.scale(echo, replicas)
        assert agent.names(echo) == [vip]
        assert len(agent.names(f"tasks.{echo}")) == replicas
        expected = {f"{echo}.{slot}" for slot in range(1, replicas + 1)}
        assert set(agent.greeted(vip, 9)) == expected
        assert len(agent.names("tasks.www")) == replicas
    assert set(agent.greeted(echo, 3)) == {f"{echo}.1"}


def test_without_a_virtual_address_the_name_is_the_tasks(net: Net) -> None:
    front = net.network()
    spec = net.spec("direct", on=[front], replicas=3)
    (direct,) = net.start(replace(spec, endpoint_mode=EndpointMode.DNSRR))
    agent = net.agent(front)
    found = agent.names(direct)
    assert len(found) == 3
    assert agent.names(f"tasks.{direct}") == found
    firsts = {agent.do("resolve", name=direct)["addresses"][0] for _ in range(20)}
    assert len(firsts) > 1, "always in the same order"
    assert {agent.greeted(each)[0] for each in found} == {f"{direct}.{n}" for n in (1, 2, 3)}


def test_unknown_names_are_refused_at_once(net: Net) -> None:
    agent = net.agent(net.network())
    answer = agent.do("resolve", name="nobody")
    assert (answer["rcode"], answer["addresses"]) == (3, [])
    assert answer["took_s"] < 0.5
    # IPv6 addresses of what has none: there is such a name, but nothing of that kind.
    own = agent.do("resolve", name=agent.name, kind=28)
    assert (own["rcode"], own["addresses"]) == (0, [])


def test_programs_find_names_where_they_look_for_them(net: Net) -> None:
    front = net.network()
    echo = net.peers("echo", on=[front])
    agent = net.agent(front)
    assert agent.do("look_up", name=echo) == agent.names(echo)


def test_within_a_stack_short_names_will_do(net: Net) -> None:
    stack, network = net.name("shop"), net.name("net")
    named = []
    for short in ("web", "db"):
        use = NetworkUse(network=f"{stack}_{network}", aliases=(short,))
        named.append(replace(net.spec(short, on=[use]), name=f"{stack}_{short}"))
    net.sdk.stacks.deploy(
        StackSpec(
            name=stack,
            services=tuple(named),
            networks=(NetworkSpec(name=f"{stack}_{network}"),),
        )
    )
    net.sdk.wait_converged(stack=stack, timeout_s=60.0)
    agent = net.agent(f"{stack}_{network}")
    assert agent.names("web") == agent.names(f"{stack}_web")
    assert agent.names("web") != agent.names("db")
    assert agent.greeted("db") == [f"{stack}_db.1"]
    net.remove(agent.name)
    net.sdk.stacks.remove(stack)


def test_names_are_those_of_ones_own_networks(net: Net) -> None:
    here, there = net.network(), net.network()
    near, far = net.start(net.spec("near", on=[here]), net.spec("far", on=[there]))
    inside, between = net.agents([here], [here, there], nodes=("w1", "w2"))
    assert inside.names(near)
    assert inside.is_unknown(far)
    assert between.greeted(near) == [f"{near}.1"]
    assert between.greeted(far) == [f"{far}.1"]


def test_a_network_lets_no_packet_of_another_one_in(net: Net) -> None:
    if not net.is_kernel:
        pytest.skip("the relay plane keeps names apart, not packets")
    here, there = net.network(), net.network()
    far = net.peers("far", on=[there], node="w2")
    inside, between = net.agents([here], [there], nodes=("w1", "w1"))
    (vip,), (task,) = between.names(far), between.names(f"tasks.{far}")
    assert between.greeted(task) == [f"{far}.1"]
    for address in (vip, task):
        with pytest.raises(Refused):
            inside.do("touch", host=address, port=TARGET, timeout_s=1.0)


def test_two_networks_may_have_the_same_addresses(net: Net) -> None:
    subnet = "10.99.7.0/24"
    here, there = net.network(subnet=subnet), net.network(subnet=subnet)
    near, far = net.start(
        net.spec("near", on=[here], node="w1"), net.spec("far", on=[there], node="w1")
    )
    for on, mine, other in ((here, near, far), (there, far, near)):
        for agent in net.agents([on], nodes=("w1", "w2")):
            assert set(agent.greeted(mine, 3)) == {f"{mine}.1"}
            assert agent.is_unknown(other)
            (task,) = agent.names(f"tasks.{mine}")
            assert agent.greeted(task) == [f"{mine}.1"]


def test_a_service_reaches_itself_by_its_own_name(net: Net) -> None:
    front = net.network()
    agent = net.agent(front)
    assert set(agent.greeted(agent.name, 3)) == {f"{agent.name}.1"}


def test_datagrams_to_a_virtual_address_are_answered_by_it(net: Net) -> None:
    front = net.network()
    echo = net.peers("echo", on=[front], replicas=3)
    agent = net.agent(front)
    for is_connected in (True, False):
        told = agent.do("udp", host=echo, port=TARGET, count=12, is_connected=is_connected)
        assert {words[0] for words in told} == {f"{echo}.{n}" for n in (1, 2, 3)}
        assert [words[-1] for words in told] == [f"n{n}" for n in range(12)]


def test_names_follow_tasks_that_die(net: Net) -> None:
    front = net.network()
    echo = net.peers("echo", on=[front], replicas=2)
    agent = net.agent(front)
    before = agent.names(f"tasks.{echo}")
    kill_pid(net.pids(echo)[f"{echo}.1"])

    def are_there() -> bool:
        after = agent.names(f"tasks.{echo}")
        return len(after) == 2 and after != before

    eventually(are_there, NOTICED_S, "the new task's address")
    assert set(agent.greeted(echo, 6)) == {f"{echo}.1", f"{echo}.2"}


def test_what_an_encrypted_network_carries_is_not_seen_between_nodes(net: Net) -> None:
    notes = [dict(net.sdk.nodes.get(name).description.notes) for name in net.workers]
    lacks = [each["network.encryption"] for each in notes if "network.wireguard-key" not in each]
    if lacks:
        with pytest.raises(ClientError, match="no node can encrypt"):
            net.network("secret", is_encrypted=True)
        pytest.skip(lacks[0])
    front = net.network("secret", is_encrypted=True)
    echo = net.peers("echo", on=[front], node="w2")
    agent = net.agent(front, node="w1")
    vni = net.sdk.networks.get(front).network.vni
    assert vni is not None
    with Wire(net.namespace("w1")) as wire:
        assert agent.greeted(echo, 5) == [f"{echo}.1"] * 5
        in_the_clear = {frame[VNI] for frame in wire.udp(4789)}
        assert vni.to_bytes(3, "big") not in in_the_clear
        assert wire.udp(51820)
    assert net.troubles() == []

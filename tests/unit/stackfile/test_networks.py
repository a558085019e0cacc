"""Networks of a stack: which are made, which are only named, and who is on them as what."""

from __future__ import annotations

import pytest

from skep.domain.spec import (
    EndpointMode,
    ExposedPort,
    NetworkSpec,
    NetworkUse,
    Port,
    Protocol,
    ProxyProtocol,
)
from skep.stackfile import Reading, read
from tests.unit.stackfile.files import refused, service, texts, told


def used(*files: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """The networks of each service with its names there, by short names of services."""
    return {
        one.name.removeprefix("shop_"): {use.network: use.aliases for use in one.task.networks}
        for one in told(*files).spec.services
    }


def test_who_names_no_network_is_on_the_default_one() -> None:
    text = """\
        services:
          a: {command: x}
          b: {command: x, networks: }
          c: {command: x, networks: []}
          d: {command: x, networks: {}}
        """
    assert used(text) == {name: {"shop_default": (name,)} for name in "abcd"}
    assert told(text).spec.networks == (NetworkSpec(name="shop_default"),)


def test_networks_that_nobody_is_on_are_not_made() -> None:
    text = """\
        networks: {front: , back: , outside: {external: true}}
        services:
          a: {command: x, networks: [front]}
        """
    found = told(text)
    assert [network.name for network in found.spec.networks] == ["shop_front"]
    assert found.warnings == ("a.yml:1:21: no service is on this network, so it is not made",)


def test_a_service_goes_by_its_short_name_and_its_aliases() -> None:
    text = """\
        networks: {front: , back: }
        services:
          web: {command: x, networks: {front: {aliases: [www, web, www]}, back: , default: {}}}
        """
    assert used(text) == {
        "web": {"shop_back": ("web",), "shop_default": ("web",), "shop_front": ("web", "www")}
    }


def test_the_order_of_networks_means_nothing() -> None:
    files = [
        f"networks: {{front: , back: }}\n{service(f'networks: {order}')}"
        for order in ("[front, back]", "[back, front]", "{front: {aliases: []}, back: }")
    ]
    assert used(files[0]) == used(files[1]) == used(files[2])
    assert told(files[0]).spec == told(files[1]).spec


@pytest.mark.parametrize(
    ("says", "name", "is_made"),
    [
        ("", "shop_net", True),
        ("{}", "shop_net", True),
        ("{name: backbone}", "backbone", True),
        ("{external: false}", "shop_net", True),
        ("{external: true}", "net", False),
        ("{external: true, name: backbone}", "backbone", False),
        ("{external: {name: backbone}}", "backbone", False),
        ("{external: true, ipam: {}, labels: {}}", "net", False),
        ("{name: '${N}bone'}", "backbone", True),
    ],
)
def test_names(says: str, name: str, is_made: bool) -> None:
    text = f"networks: {{net: {says}}}\n{service('networks: [net]')}"
    found = told(text, N="back").spec
    assert found.services[0].task.networks == (NetworkUse(network=name, aliases=("a",)),)
    assert [network.name for network in found.networks] == ([name] if is_made else [])


def test_the_default_network_can_be_another() -> None:
    text = f"networks: {{default: {{external: true, name: public}}}}\n{service()}"
    assert used(text) == {"a": {"public": ("a",)}}
    assert told(text).spec.networks == ()


@pytest.mark.parametrize(
    ("says", "options", "is_encrypted"),
    [
        ("{encrypted: }", (), True),
        ("{encrypted: ''}", (), True),
        ("{encrypted: 'true', a: 1}", (("a", "1"),), True),
        ("{encrypted: false}", (), False),
        ("{com.docker.network.driver.mtu: 1450}", (("com.docker.network.driver.mtu", "1450"),), 0),
    ],
)
def test_driver_options(says: str, options: object, is_encrypted: bool) -> None:
    (network,) = told(f"networks: {{default: {{driver_opts: {says}}}}}\n{service()}").spec.networks
    assert (network.options, network.is_encrypted) == (options, bool(is_encrypted))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("{driver: bridge}", "a.yml:1:30: driver 'bridge' makes no network that spans machines"),
        ("{driver: [a]}", "a.yml:1:30: driver must be text, but this is a list"),
        ("{driver_opts: {encrypted: maybe}}", "encrypted must be true or false, but this is 'm"),
        ("{enable_ipv6: true}", "a.yml:1:35: networks have IPv4 addresses, and IPv6 is not there"),
        ("{enable_ipv4: false}", "networks have IPv4 addresses"),
        ("{attachable: 2}", "attachable must be true or false"),
        ("{external: true, driver: overlay}", "a.yml:1:46: an external network is there already"),
        ("{external: maybe}", "external must be true or false"),
        ("{external: {nam: x}}", "unknown key 'nam' in external; did you mean 'name'?"),
        ("{external: true, name: 'a b'}", "a.yml:1:12: 'a b' can't be a network's name"),
        ("{name: ''}", ""),
        ("{nam: x}", "unknown key 'nam' in a network; did you mean 'name'?"),
        ("{ipam: {driver: x}}", "a.yml:1:37: ipam driver 'x' is not supported"),
        ("{ipam: {options: {a: b}}}", "'options' is not supported yet"),
        ("{ipam: {config: {subnet: 10.1.0.0/16}}}", "config must be a list, but this is a map"),
        ("{ipam: {config: [{subnet: 10.1.0.0}]}}", "'10.1.0.0' is not a subnet; write one like"),
        ("{ipam: {config: [{subnet: 10.1.2.3/24}]}}", "write '10.1.2.0/24' if that is it"),
        ("{ipam: {config: [{subnet: 'fd00::/64'}]}}", "is IPv6, which is not there yet"),
        ("{ipam: {config: [{gateway: 10.1.0.1}]}}", "a gateway needs 'subnet'"),
        (
            "{ipam: {config: [{subnet: 10.1.0.0/24, gateway: 10.2.0.1}]}}",
            "a.yml:1:69: gateway 10.2.0.1 is not in the subnet 10.1.0.0/24",
        ),
        ("{ipam: {config: [{subnet: 10.1.0.0/24, gateway: x}]}}", "'x' is not an IPv4 address"),
        ("{ipam: {config: [{ip_range: 10.1.0.0/24}]}}", "'ip_range' is not supported yet; give"),
        (
            "{ipam: {config: [{subnet: 10.1.0.0/24}, {subnet: 'fd00::/64'}]}}",
            "a network has one subnet, of IPv4 addresses; remove the others",
        ),
        (
            "{ipam: {config: [{subnet: 10.1.0.0/30}]}}",
            "a.yml:1:28: ipam: 10.1.0.0/30 is a /30; take one from /8 to /29",
        ),
        (
            "{ipam: {config: [{subnet: 10.1.0.0/24, gateway: 10.1.0.255}]}}",
            "a.yml:1:28: ipam: 10.1.0.255 can't be a host of 10.1.0.0/24; take one such as",
        ),
        ("{name: ingress}", "a.yml:1:28: name: 'ingress' is the cluster's own network"),
        ("{driver_opts: {a b: c}}", "a.yml:1:35: driver_opts: 'a b' can't be a label's name"),
        ("[a]", "a.yml:1:21: default must be a map, but this is a list"),
    ],
)
def test_networks_that_are_refused(network: str, expected: str) -> None:
    text = f"networks: {{default: {network}}}\n{service()}"
    if not expected:
        assert told(text).spec.networks == (NetworkSpec(name="shop_default"),)
        return
    (line, *others) = refused(text)
    assert expected in line
    assert others == []


def test_networks_of_one_name_are_refused_with_both_places() -> None:
    text = f"networks: {{a: {{name: shop_b}}, b: }}\n{service('networks: [a, b]')}"
    assert refused(text) == [
        "a.yml:1:31: network 'shop_b' stands here for the second time (first: a.yml:1:12); remove "
        "one, or give it another 'name'"
    ]


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (
            "[bakc]",
            "a.yml:5:16: network 'bakc' is not under 'networks:' of the file; did you mean 'back'?",
        ),
        ("{bakc: }", "a.yml:5:16: network 'bakc' is not under"),
        ("[other]", "a.yml:5:16: network 'other' is not under 'networks:' of the file; add it"),
        ("x", "networks must be a map, but this is 'x'"),
        ("[[a]]", "a.yml:5:16: networks[0] must be text, but this is a list"),
        ("{back: [x]}", "back must be a map, but this is a list"),
        ("{back: {aliases: x}}", "aliases must be a list"),
        ("{back: {aliases: ['a b']}}", "a.yml:5:33: 'a b' can't be a name"),
        ("{back: {alias: [a]}}", "unknown key 'alias' in a service's network; did you mean"),
        ("{back: {ipv4_address: 10.1.0.5}}", "'ipv4_address' is not supported yet; addresses are"),
        ("{back: {mac_address: x}}", "a.yml:5:23: 'mac_address' is not supported yet"),
        ("{back: {priority: 5}}", "'priority' is not supported yet"),
    ],
)
def test_uses_that_are_refused(says: str, expected: str) -> None:
    (line, *others) = refused(f"networks: {{back: }}\n{service(f'networks: {says}')}")
    assert expected in line
    assert others == []


def test_what_is_wrong_with_a_network_is_told_once() -> None:
    text = f"networks: {{back: {{driver: bridge}}}}\n{service('networks: [back]')}"
    assert len(refused(text)) == 1


def test_places_of_networks_are_known_for_what_a_manager_says() -> None:
    text = f"networks: {{back: {{name: b}}}}\n{service('networks: [back, default]')}"
    found = read(texts(text), Reading({}, name="shop"))
    assert found.network_places == {"b": "a.yml:1:12"}


# ----------------------------------------------------------------------- modes and ports


def test_a_service_without_a_virtual_address() -> None:
    found = told(service("deploy: {endpoint_mode: dnsrr}", "expose: [80, 53/udp, 80, '90-91']"))
    assert found.only.endpoint_mode is EndpointMode.DNSRR
    assert found.only.exposed == (
        ExposedPort(target=80),
        ExposedPort(target=53, protocol=Protocol.UDP),
        ExposedPort(target=90),
        ExposedPort(target=91),
    )
    ports = "ports: [{target: 80, published: 80, mode: host}]"
    assert told(service("deploy: {endpoint_mode: dnsrr}", ports)).only.ports
    assert refused(service("ports: ['80:80']", "deploy: {endpoint_mode: dnsrr}")) == [
        "a.yml:5:29: a service in mode 'dnsrr' can't publish ports on every node, but one is "
        "published at a.yml:4:13; give that port 'mode: host', or use 'vip'"
    ]


def test_ports_of_datagrams_and_of_connections_are_apart() -> None:
    found = told(service("ports: ['53:53', '53:53/udp', {target: 54, protocol: UDP}]")).only
    assert found.ports == (
        Port(target=53, published=53),
        Port(target=53, published=53, protocol=Protocol.UDP),
        Port(target=54, protocol=Protocol.UDP),
    )
    assert (
        "already published at a.yml:4:13"
        in refused(service("ports: ['53:53/udp', '53:54/udp']"))[0]
    )


@pytest.mark.parametrize(
    ("says", "sends", "accepts"),
    [
        ("v1", ProxyProtocol.V1, False),
        ("none", ProxyProtocol.NONE, False),
        ("{send: v2, accept: true}", ProxyProtocol.V2, True),
        ("{accept: yes}", ProxyProtocol.NONE, True),
        ("{send: '${V}'}", ProxyProtocol.V1, False),
    ],
)
def test_who_is_told_who_the_client_is(says: str, sends: ProxyProtocol, accepts: bool) -> None:
    found = told(service(f"ports: [{{target: 80, x-proxy-protocol: {says}}}]"), V="v1").only
    (port,) = found.ports
    assert (port.proxy_protocol, port.accepts_proxy_protocol) == (sends, accepts)

"""`ports:` of a service, in its short and its long form, and `expose:`."""

from __future__ import annotations

from skep.domain.spec import Balance, ExposedPort, Port, PortMode, Protocol, ProxyProtocol
from skep.stackfile import keys, values
from skep.stackfile.reader import Place

# A range is for the handful of ports that some programs need; each port is a listener on every
# node, so that "1-65535" can only be a mistake.
PORT_LIMIT = 1000

_MODES = {mode.value: mode for mode in PortMode}
_BALANCES = {balance.value: balance for balance in Balance}
_PROTOCOLS = {protocol.value: protocol for protocol in Protocol}
PROXY_PROTOCOLS = {version.value: version for version in ProxyProtocol}

PlacedPort = tuple[Port, Place]


def read_ports(place: Place) -> list[PlacedPort]:
    """The published ports, each with where it stands."""
    found: list[PlacedPort] = []
    for item in place.items():
        none: list[Port] = []
        found += [(port, item) for port in item.attempt(_read, none)]
        if len(found) > PORT_LIMIT:
            raise item.error(f"more than {PORT_LIMIT} ports in one service; publish fewer")
    return found


def _read(item: Place) -> list[Port]:
    if item.is_scalar:
        return item.parsed(short_ports)
    port = _long(item)
    return [port] if port else []


def short_ports(text: str) -> list[Port]:
    """The ports in "8080:80", "80", "8080:80/tcp" or "8000-8009:80-89". Raises BadValue."""
    numbers, _, protocol_text = text.partition("/")
    protocol = _protocol(protocol_text or "tcp")
    host, colon, target_text = numbers.rpartition(":")
    if ":" in host:
        raise values.BadValue(
            f"'{text}' names an address to listen on, but a port is published on every node; "
            f"write '{host.rpartition(':')[2]}:{target_text}'"
        )
    try:
        targets = values.port_range(target_text)
        published = values.port_range(host) if colon else None
    except values.BadValue as error:
        raise values.BadValue(f"{error}; a port is '8080:80', '80' or '53:53/udp'") from None
    if len(targets) > PORT_LIMIT:
        raise values.BadValue(f"'{text}' is more than {PORT_LIMIT} ports; publish fewer")
    if published is None:
        return [Port(target=target, protocol=protocol) for target in targets]
    if len(published) != len(targets):
        raise values.BadValue(
            f"'{text}' pairs {len(published)} published ports with {len(targets)} of the service; "
            "make both ranges the same length"
        )
    return [
        Port(target=target, published=outside, protocol=protocol)
        for outside, target in zip(published, targets, strict=True)
    ]


def _long(item: Place) -> Port | None:
    before = item.source.problems.count
    fields = item.fields(keys.PORT)
    if "target" not in fields:
        if item.source.problems.count > before:
            return None
        raise item.error("a port needs 'target', the port that the service listens on")
    target = fields.read("target", lambda at: at.parsed(values.port), None)
    mode = fields.read("mode", lambda at: at.choice(_MODES), PortMode.INGRESS)
    if mode is PortMode.HOST and "x-balance" in fields:
        raise fields["x-balance"].error(
            "a port of mode 'host' has one task behind it and nothing to balance; remove x-balance"
        )
    published = fields.read("published", lambda at: at.parsed(values.port), None)
    protocol = fields.read("protocol", lambda at: at.parsed(_protocol), Protocol.TCP)
    balance = fields.read("x-balance", lambda at: at.choice(_BALANCES), Balance.ROUND_ROBIN)
    name = fields.read("name", Place.text, "")
    sends, accepts = fields.read("x-proxy-protocol", _proxy_protocol, (ProxyProtocol.NONE, False))
    if protocol is Protocol.UDP and (accepts or sends is not ProxyProtocol.NONE):
        raise fields["x-proxy-protocol"].error(
            "x-proxy-protocol is for connections, and UDP has none; remove it, or publish the port "
            "with 'protocol: tcp'"
        )
    if target is None:
        return None
    return Port(
        target=target,
        published=published,
        protocol=protocol,
        balance=balance,
        name=name,
        mode=mode,
        proxy_protocol=sends,
        accepts_proxy_protocol=accepts,
    )


def _proxy_protocol(place: Place) -> tuple[ProxyProtocol, bool]:
    """What is sent to tasks, and whether clients begin with a header themselves."""
    if place.is_scalar:
        return place.choice(PROXY_PROTOCOLS), False
    fields = place.fields(keys.PROXY_PROTOCOL)
    return (
        fields.read("send", lambda at: at.choice(PROXY_PROTOCOLS), ProxyProtocol.NONE),
        fields.read("accept", Place.truth, False),
    )


def read_exposed(place: Place) -> tuple[ExposedPort, ...]:
    """Ports for other services: "80", "53/udp" or "8000-8009", each once."""
    found: dict[ExposedPort, None] = {}
    for item in place.items():
        none: list[ExposedPort] = []
        found |= dict.fromkeys(item.attempt(lambda at: at.parsed(exposed_ports), none))
        if len(found) > PORT_LIMIT:
            raise item.error(f"more than {PORT_LIMIT} ports in one service; expose fewer")
    return tuple(found)


def exposed_ports(text: str) -> list[ExposedPort]:
    """The ports in "80", "53/udp" or "8000-8009". Raises BadValue."""
    numbers, _, protocol_text = text.partition("/")
    protocol = _protocol(protocol_text or "tcp")
    if ":" in numbers:
        raise values.BadValue(
            f"'{text[:40]}' is published, not exposed; write it under 'ports', or as "
            f"'{numbers.rpartition(':')[2]}'"
        )
    try:
        targets = values.port_range(numbers)
    except values.BadValue as error:
        raise values.BadValue(f"{error}; an exposed port is '80' or '53/udp'") from None
    if len(targets) > PORT_LIMIT:
        raise values.BadValue(f"'{text}' is more than {PORT_LIMIT} ports; expose fewer")
    return [ExposedPort(target=target, protocol=protocol) for target in targets]


def _protocol(text: str) -> Protocol:
    word = text.strip().lower()
    if word in _PROTOCOLS:
        return _PROTOCOLS[word]
    if word == "sctp":
        raise values.BadValue("protocol 'sctp' is not supported yet; use 'tcp' or 'udp'")
    raise values.BadValue(f"'{text[:40]}' is not a protocol; use 'tcp' or 'udp'")

"""`ports:` of a service, in its short and its long form."""

from __future__ import annotations

from skep.domain.spec import Balance, Port, Protocol
from skep.stackfile import keys, values
from skep.stackfile.reader import Place

# A range is for the handful of ports that some programs need; each port is a listener on every
# node, so that "1-65535" can only be a mistake.
PORT_LIMIT = 1000

_BALANCES = {balance.value: balance for balance in Balance}

PlacedPort = tuple[Port, Place]


def read_ports(place: Place) -> list[PlacedPort]:
    """The published ports, each with where it stands."""
    found: list[PlacedPort] = []
    for item in place.items():
        if item.is_scalar:
            found += [(port, item) for port in item.parsed(short_ports)]
        else:
            found.append((_long(item), item))
        if len(found) > PORT_LIMIT:
            raise item.error(f"more than {PORT_LIMIT} ports in one service; publish fewer")
    return found


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
        raise values.BadValue(f"{error}; a port is '8080:80', '80' or '8080:80/tcp'") from None
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


def _long(item: Place) -> Port:
    fields = item.fields(keys.PORT)
    if "target" not in fields:
        raise item.error("a port needs 'target', the port that the service listens on")
    mode = fields.get("mode")
    if mode and mode.choice({"ingress": True, "host": False}) is False:
        raise mode.error("mode 'host' is not supported yet; use 'ingress'")
    balance = fields.get("x-balance")
    protocol = fields.get("protocol")
    published = fields.get("published")
    return Port(
        target=fields["target"].parsed(values.port),
        published=published.parsed(values.port) if published else None,
        protocol=protocol.parsed(_protocol) if protocol else Protocol.TCP,
        balance=balance.choice(_BALANCES) if balance else Balance.ROUND_ROBIN,
        name=fields["name"].text() if "name" in fields else "",
    )


def _protocol(text: str) -> Protocol:
    word = text.strip().lower()
    if word == "tcp":
        return Protocol.TCP
    if word in ("udp", "sctp"):
        raise values.BadValue(f"protocol '{word}' is not supported yet; use 'tcp'")
    raise values.BadValue(f"'{text[:40]}' is not a protocol; use 'tcp'")

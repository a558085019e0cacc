"""What the ports of a spec must satisfy. TCP and UDP don't meet: a number may be both's."""

from __future__ import annotations

from skep.domain.refusal import refuse
from skep.domain.spec import ExposedPort, Port, PortMode, Protocol, ProxyProtocol, ServiceSpec


def check_ports(ports: tuple[Port, ...], field: str) -> None:
    """Refuse a service's published ports that can't work. Raises Rejected."""
    published: set[tuple[int, str]] = set()
    for place, port in enumerate(ports):
        where = f"{field}[{place}]"
        if not 1 <= port.target <= 65535:
            raise refuse(f"{where}.target", f"{port.target} is not a port (1 to 65535)")
        _check_proxy_protocol(port, where)
        if port.published is None:
            continue
        if not 1 <= port.published <= 65535:
            raise refuse(f"{where}.published", f"{port.published} is not a port (1 to 65535)")
        key = (port.published, port.protocol.value)
        if key in published:
            text = f"{port.published}/{port.protocol.value}"
            raise refuse(f"{where}.published", f"port {text} is published twice")
        published.add(key)


def _check_proxy_protocol(port: Port, field: str) -> None:
    asks = {
        "proxy_protocol": port.proxy_protocol is not ProxyProtocol.NONE,
        "accepts_proxy_protocol": port.accepts_proxy_protocol,
    }
    for name, is_asked in asks.items():
        if is_asked and port.protocol is not Protocol.TCP:
            raise refuse(
                f"{field}.{name}",
                f"the header begins a connection, and {port.protocol.value} has none; leave it "
                "out, or publish the port as tcp",
            )


def check_exposed(exposed: tuple[ExposedPort, ...], field: str) -> None:
    """Refuse a service's exposed ports that can't work. Raises Rejected."""
    seen: set[ExposedPort] = set()
    for place, port in enumerate(exposed):
        where = f"{field}[{place}].target"
        if not 1 <= port.target <= 65535:
            raise refuse(where, f"{port.target} is not a port (1 to 65535)")
        if port in seen:
            raise refuse(where, f"port {port.target}/{port.protocol.value} is exposed twice")
        seen.add(port)


def check_shared_ports(
    service: ServiceSpec, published: dict[tuple[int, str], tuple[str, PortMode]], where: str
) -> None:
    """Refuse a port that another service of the same stack publishes; `published` is what those
    before this one publish, and gets this one's. Raises Rejected."""
    for port in service.ports:
        if port.published is None:
            continue
        key = (port.published, port.protocol.value)
        other, mode = published.get(key, ("", PortMode.HOST))
        # Two services may share a host port; the scheduler keeps their tasks on other nodes.
        if other and PortMode.INGRESS in (mode, port.mode):
            raise refuse(
                f"{where}.ports",
                f"port {port.published}/{port.protocol.value} is published by {other!r} too",
            )
        published[key] = (service.name, port.mode)
